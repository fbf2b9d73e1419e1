"""The Raft protocol as it is implemented here, without clock, disk, network or randomness.

Sources: the Raft paper (Ongaro and Ousterhout, extended version), cited as "paper 5.3" or "Figure
2", and Ongaro's dissertation, cited as "dissertation 4.2.3". Read this page, then `raft` and
`leader`; whole runs to read along are the transcripts in `tests/golden`.

Reading order
-------------

| file | what it holds |
|---|---|
| `types` | the values: `Entry`, `HardState`, `ServerId` (name and incarnation), terms, indexes |
| `messages` | what servers say to each other |
| `quorum` | the two questions about majorities, simple and joint |
| `availability` | how many failures majorities survive, and which ones stop them |
| `membership` | the algebra of configurations; configuration entries; the history in a log |
| `log` | the log as the protocol sees it, and the chain of positions in it |
| `options`, `errors` | time-outs in ticks; refusals of local requests |
| `election` | followers, pre-candidates, candidates; who gives way to whom |
| `raft` | one server: inputs, the rule for terms, elections, the receiver of each message |
| `leader` | what only a leader does: replicate, commit, confirm reads, change, hand over |
| `progress`, `pacing` | a leader's view of one other server, and how much it may be sent |
| `reads`, `lease` | the reads that wait; reads without a round, and what voters owe for them |
| `receiving` | a server's part in being sent a snapshot |
| `ready`, `status`, `view` | what the driver has to do, in its order; a frozen view for people |
| `invariants` | what must hold on one server after each input |

One input and its consequences
------------------------------

The driver puts inputs in (`tick`, `step`, `propose`, `read`, `change_membership`, ...), then takes
out one `Ready` after the other and does what it says in its order. Nothing here waits and nothing
raises because of what a peer sent. Time is counted in ticks; leases alone go by a clock, which the
driver has read.

What waits for the disk is decided here and visible in `Ready`. *Early* messages leave before the
write: AppendEntries of a term that is durable already (the leader's disk works in parallel with
its followers', dissertation 10.2.1), and pre-vote requests, which promise nothing. All others
leave after it: vote requests and votes, acknowledgements, and everything of a term that is new. A
server's own vote and its own match index count from `persisted` on, never before.

Elections
---------

A server whose timer runs out asks first whether it could win (*pre-vote*, dissertation 9.6): no
term changes anywhere, so a server that comes back from a partition disturbs nobody. A refusal
carries the responder's term, and a higher one is adopted: otherwise a server with the better log
and a lower term could ask in vain for ever. With a majority of pre-votes it takes a new term,
makes that and its own vote durable, and asks for votes.

*No time-out is lost* where a few messages can tell who should lead. Of servers that ask at the same
time, all but the best placed give way: the better log first, then the higher name; for two
heartbeats, and once in a round, so that nobody is held up by a server that only asks. A server that
is asked by one with a lesser log, and has heard nothing of a leader for the minimum election
timeout itself, campaigns in its place: so the first time-out of any server begins an election that
a complete log wins. A pre-vote that was refused is asked for again at each heartbeat. If a vote is
split all the same, the highest name among the candidates begins anew after two heartbeats, the
others after a time-out. None of this decides who may win; that is as in Figure 2.

*A process that has ended leads nobody.* A driver that knows that the leader's process is gone, and
not only silent, says so (`Raft.report_unreachable`), and this server asks for pre-votes at once.
Others refuse it as long as they have heard the leader within an election timeout and do not know
the same. So it takes a majority to know; then nobody waits for a time-out. A leader that lives is
not touched by what a minority believes.

*Stickiness* (dissertation 4.2.3): whoever heard from a live leader within the minimum election
timeout refuses votes and pre-votes and does not adopt the term of the request. Only an election
that the leader itself asked for (`leadership_transfer`) passes. *Check quorum* (dissertation 6.2)
is the other side: a leader that no majority has answered for an election timeout steps down, so
that clinging to a leader never means clinging to a dead one. A vote is about the log alone:
receivers answer whoever asks, whatever their own configuration says about the sender or about
themselves. Whether a server may *start* an election is its own question (`Raft.may_campaign`).

Replication and commit
----------------------

A new leader appends an empty entry; entries of earlier terms are committed only through one of its
own (Figure 8). To whom the leader sends, and what, is decided once for each `Ready`, in a *send
round* (`Leader.send_outstanding`): whoever lacks entries gets them in bounded batches; where a
heartbeat is due or a read waits, all the others get an empty AppendEntries of the same round.
Rounds are numbered within the term, never twice, and an answer repeats its number; so it says not
only how far the sender is but also which moment it confirms.

A follower is *probed* with one request until it accepts one, then entries are pipelined within a
window. A refusal names the conflicting term and where it starts, so that each round skips a whole
term (no follower of Figure 7 needs more than two). A follower deletes only from the first entry
that conflicts, and acknowledges what the request verified, not what it happens to have.

A server that, in one term, lacks what it had acknowledged in that term has lost its disk: the
leader *fences* it, which means that it is not fed and does not count.

Reads
-----

A linearizable read notes the commit index and waits for a send round that started after it had
arrived to be confirmed by a majority of the configuration in force (dissertation 6.4). Until the
leader has committed an entry of its own term it cannot know what its predecessors committed, so
reads wait for that first. Stepping down refuses them all.

A server that does not lead can answer reads from its own state: it asks its leader for the index,
with one message for all reads that wait, and the leader makes sure of it as for a read of its own.

A *lease* (dissertation 6.4.1), where one is asked for, spares the round: for as long as a majority
has promised not to vote, nobody else can have been elected. It rests on clocks; everything else in
here does not.

Membership
----------

A configuration is a log entry, in force at each server from the moment it is in that server's
log; truncation rolls it back, however many it takes along. Changes that give or take a vote use
joint consensus (paper 6, dissertation 4.3) whatever their size; changes of learners and addresses
are one simple entry.

| entry | in force | who decides | what follows |
|---|---|---|---|
| SIMPLE | other learners or addresses | the voters, who are the same as before | nothing |
| JOINT | C_old,new | a majority of C_old *and* a majority of C_new | FINAL or ABORT |
| FINAL | C_new | a majority of C_new | those left out are told |
| ABORT | C_old | a majority of C_old | those left out are told |

"Who decides" holds for votes, pre-votes, commits, read rounds and check-quorum alike; all of them
are one call of `quorum`. A new server is a learner first and may become a voter when it has caught
up (dissertation 4.2.1). A change needs a leader that has committed an entry of its own term, and a
latest configuration that is committed and not joint.

FINAL is appended by whichever leader commits, under both majorities, an entry *of its own term* at
or after JOINT. That the entry is committed as such is not enough, because a leader in between may
have aborted it. A leader that is no voter of C_new leads on without counting itself until FINAL is
committed, then it asks the best voter to take over (dissertation 4.2.2).

Messages
--------

| message | from | to | receiver | see |
|---|---|---|---|---|
| PreVote | pre-candidate | voters of both halves | says whether it would vote | 9.6 |
| PreVoteResponse | anyone | pre-candidate | counts; adopts the term of a refusal | 9.6 |
| RequestVote | candidate | voters of both halves | votes once a term, durably | Figure 2 |
| RequestVoteResponse | anyone | candidate | counts under each majority | Figure 2 |
| AppendEntries | leader | members and departing | stores, cuts conflicts | Figure 2 |
| AppendEntriesResponse | anyone | leader | match, commit, rounds, contact | Figure 2, 6.4 |
| TimeoutNow | leader | one voter | campaigns at once, without pre-vote | 3.10 |
| ReadIndex | anyone | its leader | makes sure that it leads, then answers | 6.4 |
| ReadIndexResponse | leader | who has asked | reads once it has applied the index | 6.4 |

A request of an older term is answered with the current one where the sender can learn from it; any
other message of an older term is dropped.

Where this differs from the paper and the dissertation
------------------------------------------------------

- *A joint change can be aborted.* The paper only goes forward, and then a new half that dies takes
  the cluster with it. Here one entry restores C_old and the learners from before the operation.
  It is allowed only to a leader that has not appended FINAL and that appended JOINT itself in its
  current term, or has committed an entry of its term at or after JOINT under both majorities.
  Otherwise an earlier leader's FINAL may be on its way, and both halves would decide alone
  (`abort_refused_for_inherited_joint` among the transcripts shows it).
- *Check-quorum looks at the halves apart.* Without a majority of C_old the leader steps down. If
  only that of C_new is lost, it aborts, where that is allowed, instead of stepping down: afterwards
  nobody could be elected. A new half that answers and stores nothing leads to the same after
  `Options.joint_timeout_ticks`.
- *Departing servers are fed.* Whoever the latest FINAL, ABORT or SIMPLE entry leaves out gets the
  log until it reports the commit of that entry, or until `Options.departing_ticks` have passed;
  every later leader does the same. So a removed server knows it for certain, by a committed entry
  with its tombstone, instead of campaigning in the dark (dissertation 4.2.3 only protects the
  others from it).
- *Learners are fed what is committed*, voters everything. A learner that had more could hold back
  its vote from the only server that can still lead (one whose log ends with a C_old,new that makes
  the learner a voter), and learners do not campaign.
- *A voter of the previous configuration may campaign* while the latest one is not known to be
  committed: it may be the only one that can win (two servers, one of them just removed, which
  alone has the entry).
- *Votes and members are (name, incarnation)*: a wiped disk under an old name is another server.
- *Learners, pre-vote, check-quorum and stickiness are always on*; none of them is an option.
- *Some elections begin before a time-out*: in the place of a server that asks and cannot win, after
  a split vote, and when the leader's process is known to be gone.
- *Leases are used only on request.* A voter withholds its vote by its clock from each contact on,
  whatever becomes of term and leader meanwhile, and after a restart; it says in each answer for how
  long, and the leader goes by what was promised. The dissertation has stickiness alone do that,
  which a higher term from elsewhere ends. After a TimeoutNow the leader of that term uses none any
  more, since nobody knows when the message arrives.
- *Responses are messages of their own*, matched by their fields; `match_index` comes from the
  request, so a late or repeated answer is as good as the first one. An answer to a request of an
  older term carries the current term and no round: a leader that had sent that request in an
  earlier term of its own must not take it for an answer to what it sends now. For the same reason
  an answer to a vote request names the term of the request.
"""
