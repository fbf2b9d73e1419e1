"""Golden transcripts: runs of a whole cluster that are written down, and read like a story.

A transcript is a text file of blocks with a blank line after each:

    # Prose: what to look for, and where the paper says so.
    propose n1 put x=1
    deliver from=n1 to=n2
    ---
    n1 persist 3@2 put x=1

A block has lines of prose, then commands, then `---` and what the commands printed. A command in
parentheses is set-up: it prints nothing. Commands are the `do_...` methods of `Script`.

What the lines of the output mean:

| line | meaning |
|---|---|
| `n1 becomes candidate (term 2)` | another role, term or leader |
| `n1 configuration 4 JOINT (n1)&&(n2)` | in force from here on: C_old && C_new, from entry 4 |
| `n1 persist 3@2 put x=1` | on disk from here on: entry 3 of term 2; also terms and votes |
| `n1 cut 3@2` | entries that leave the log, because the leader has others |
| `n1 commit 3`, `n1 apply 3@2 put x=1` | known to be committed; given to the state machine |
| `n1 publishes snapshot 3@2`, `n1 forgets entries up to 3` | on disk: the state, then less log |
| `n1 drops its log` | nothing of it agrees with the snapshot that takes its place |
| `n1 stores 0+200 of snapshot 3@2` | 200 bytes from 0 on; of 3@2, the last entry that it includes |
| `n1 restores 3@2 put x=1` | the state is that of the snapshot, with these commands applied |
| `  n1 -> n2 n3 RequestVote ...` | sent to both, not yet delivered |
| `  n1 -x n2 RequestVote ... (why)` | lost on the way |
| `! change refused (...): why` | a request that was turned down; nothing happened |

Nothing is random: every election time-out is the longest possible one, so a server campaigns only
when a transcript says so, and messages wait until they are delivered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from random import Random

import attrs

from raftd.core.errors import RequestRefused
from raftd.core.leader import Leader
from raftd.core.membership import ConfigurationAt, MembershipError, decode_configuration
from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from raftd.core.quorum import committed_index, majority
from raftd.core.ready import Ready
from raftd.core.snapshot import Snapshot, SnapshotId
from raftd.core.types import Entry, EntryKind, HardState, Index, Term
from tests.core.disk import Disk, chunks_of
from tests.core.harness import OPTIONS, Cluster, Server, founding_entry

COMMAND_CHARACTERS_MAX = 24
"""Longer commands are abbreviated in the output."""
ENTRIES_MAX = 4
"""Of more entries only the first and the last are shown."""
SNAPSHOT_CHUNK_BYTES = 200
"""Snapshots of a few entries are sent in several parts."""
SNAPSHOT_INFLIGHT_BYTES_MAX = 400
"""Two parts of a snapshot may be unanswered."""
ROUNDS_MAX = 100
"""Rounds of delivery after which messages are taken to have no end."""


class SteadyRandom(Random):
    """Draws the longest election time-out always."""

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        assert stop is None
        assert step == 1
        return start - 1


def entry_text(entry: Entry) -> str:
    """Return an entry as `index@term` and what it says."""
    if entry.kind is EntryKind.NOOP:
        text = "noop"
    elif entry.kind is EntryKind.CONFIGURATION:
        text = decode_configuration(entry.data).kind.upper()
    else:
        text = entry.data.decode()
        if len(text) > COMMAND_CHARACTERS_MAX:
            text = f"{text[:COMMAND_CHARACTERS_MAX].rstrip('.')}... ({len(text)} bytes)"
    return f"{entry.index}@{entry.term} {text}"


def entries_text(entries: Sequence[Entry]) -> str:
    """Return several entries, `first .. last` if they are many."""
    if len(entries) > ENTRIES_MAX:
        return f"{entry_text(entries[0])} .. {entry_text(entries[-1])}"
    return ", ".join(map(entry_text, entries))


def configuration_text(at: ConfigurationAt) -> str:
    """Return a configuration with its index, its kind, and C_old && C_new while joint."""
    return f"{at.index} {at.entry.kind.upper()} {at.configuration}"


def snapshot_text(snapshot: SnapshotId) -> str:
    """Return a snapshot as the last entry that it includes."""
    return f"{snapshot.last_included_index}@{snapshot.last_included_term}"


def message_text(message: Message, shown: frozenset[str] = frozenset()) -> str:
    """Return a message with the fields that tell the story; `shown` adds others."""
    name = type(message).__name__
    match message:
        case PreVote() | RequestVote():
            text = f"last={message.last_log_index}@{message.last_log_term}"
            if isinstance(message, RequestVote) and message.leadership_transfer:
                text += " transfer"
        case PreVoteResponse() | RequestVoteResponse():
            text = "granted" if message.vote_granted else "refused"
        case AppendEntries():
            text = f"prev={message.prev_log_index}@{message.prev_log_term}"
            text += f" commit={message.leader_commit} [{entries_text(message.entries)}]"
        case AppendEntriesResponse() if message.success:
            text = f"ok match={message.match_index}"
        case AppendEntriesResponse() if message.conflict_index == 0:
            text = "refused: the term is stale"
        case AppendEntriesResponse():
            text = f"refused prev={message.match_index} last={message.last_log_index}"
            text += f" conflict={message.conflict_index}@{message.conflict_term}"
        case TimeoutNow():
            text = ""
        case InstallSnapshot():
            text = f"{snapshot_text(message.snapshot)} {message.offset}+{len(message.data)}"
            text += f" of {message.snapshot.size_bytes}"
        case InstallSnapshotResponse() if message.match_index:
            text = f"{snapshot_text(message.snapshot)} ok match={message.match_index}"
        case InstallSnapshotResponse() if message.round == 0:
            text = "refused: the term is stale"
        case InstallSnapshotResponse():
            text = f"{snapshot_text(message.snapshot)} has {message.received_bytes}"
            text += f" of {message.snapshot.size_bytes}"
    if "rounds" in shown and isinstance(message, AppendEntries | AppendEntriesResponse):
        text += f" round={message.round}"
    if "commits" in shown and isinstance(message, AppendEntriesResponse):
        text += f" commit={message.commit_index}"
    return f"{name} t={message.term} {text}".rstrip()


class RecordedDisk(Disk):
    """A disk that says what is written to it."""

    def __init__(self, server: str, disk: Disk, say: Callable[[str], None]) -> None:
        super().__init__(disk.entries)
        self.hard_state = disk.hard_state
        self._server = server
        self._say = say

    def append(self, hard_state: HardState | None, entries: tuple[Entry, ...]) -> None:
        written = []
        if hard_state is not None:
            written.append(f"term={hard_state.current_term} vote={hard_state.voted_for or '-'}")
        if entries:
            cut = [entry for entry in self.entries if entry.index >= entries[0].index]
            if cut:
                self._say(f"{self._server} cut {entries_text(cut)}")
            written.append(entries_text(entries))
        self._say(f"{self._server} persist {', '.join(written)}")
        super().append(hard_state, entries)

    def publish(self, snapshot: Snapshot, encoded: bytes) -> bool:
        is_newest = super().publish(snapshot, encoded)
        if is_newest:
            self._say(f"{self._server} publishes snapshot {snapshot_text(snapshot.id)}")
        return is_newest

    def compact(self, index: Index) -> None:
        super().compact(index)
        self._say(f"{self._server} forgets entries up to {index}")

    def reset(self, index: Index, term: Term) -> None:
        self._say(f"{self._server} drops its log")
        super().reset(index, term)

    def receive(self, snapshot: SnapshotId, offset: int, part: bytes) -> int:
        if part:
            what = f"{offset}+{len(part)} of snapshot {snapshot_text(snapshot)}"
            self._say(f"{self._server} stores {what}")
        return super().receive(snapshot, offset, part)


@attrs.define
class Seen:
    """What the transcript has said of a server so far."""

    role: str
    term: int
    leader: str | None
    commit_index: int
    configuration: ConfigurationAt | None
    knows_removal: bool = False


class RecordedCluster(Cluster):
    """A cluster that writes down what happens in it."""

    def __init__(
        self, voters: Iterable[str], learners: Iterable[str], blank: Iterable[str]
    ) -> None:
        self.lines: list[str] = []
        self.shown: frozenset[str] = frozenset()
        self.hides_heartbeats = False
        self._seen: dict[str, Seen] = {}
        self._heartbeats: set[tuple[str, str, int, int]] = set()
        super().__init__(voters, learners=learners, blank=blank, options=OPTIONS)
        for server in self.servers:
            self._record(server)

    def _record(self, server: str) -> None:
        node = self.servers[server]
        node.random = SteadyRandom()
        node.disk = RecordedDisk(server, node.disk, self.lines.append)
        node.start()
        self._look(node)

    def set_log(self, server: str, term: int, entries: Iterable[Entry]) -> None:
        """Put a log on the disk of `server` and start it anew."""
        node = self.servers[server]
        node.disk.hard_state = HardState(term)
        node.disk.entries = list(entries)
        node.start()
        self._look(node)

    def restart(self, server: str) -> None:
        super().restart(server)
        self._look(self.servers[server])

    # --- writing down ---

    def _look(self, node: Server) -> None:
        status = node.raft.status()
        self._seen[node.name] = Seen(
            role=status.role,
            term=status.current_term,
            leader=status.leader_id,
            commit_index=status.commit_index,
            configuration=status.configuration,
        )

    def settle(self, server: str) -> None:
        super().settle(server)
        self._observe(self.servers[server])

    def _handle(self, node: Server, ready: Ready) -> None:
        self._observe(node)
        applied, reads = len(node.applied), len(node.reads)
        super()._handle(node, ready)
        self._observe(node)
        if ready.restore is not None:
            applied = ready.restore.id.last_included_index
        commands = [e for e in node.applied[applied:] if e.kind is EntryKind.COMMAND]
        if commands:
            self.lines.append(f"{node.name} apply {entries_text(commands)}")
        for answer in node.reads[reads:]:
            if answer.read_index is None:
                self.lines.append(f"! read refused: {node.name} does not lead any more")
            else:
                value = self._value(node, str(answer.token))
                self.lines.append(
                    f"{node.name} answers read of {answer.token} at {answer.read_index}: {value}"
                )

    def _install(self, node: Server, snapshot: Snapshot) -> None:
        super()._install(node, snapshot)
        commands = [e for e in node.applied if e.kind is EntryKind.COMMAND]
        self.lines.append(f"{node.name} restores {entries_text(commands) or 'no command'}")

    @staticmethod
    def _value(node: Server, key: str) -> str:
        for entry in reversed(node.applied):
            words = entry.data.decode().split()
            if entry.kind is EntryKind.COMMAND and words[1].startswith(f"{key}="):
                return words[1]
        return f"no {key}"

    def _post(self, envelopes: Iterable[Envelope]) -> None:
        envelopes = tuple(envelopes)
        super()._post(envelopes)
        for envelope in envelopes:
            message = envelope.message
            if isinstance(message, AppendEntries) and not message.entries:
                self._heartbeats.add(
                    (envelope.source, envelope.dest, message.round, message.prev_log_index)
                )
        self._say_messages("->", envelopes)

    def _say_messages(self, arrow: str, envelopes: Iterable[Envelope], why: str = "") -> None:
        """Say one line for equal messages to several servers."""
        lines: dict[tuple[str, str], list[str]] = {}
        for envelope in envelopes:
            if self.hides_heartbeats and self._is_heartbeat(envelope):
                continue
            text = message_text(envelope.message, self.shown)
            lines.setdefault((envelope.source, text), []).append(envelope.dest)
        for (source, text), dests in lines.items():
            self.lines.append(f"  {source} {arrow} {' '.join(dests)} {text}{why}")

    def _is_heartbeat(self, envelope: Envelope) -> bool:
        """Whether it is an AppendEntries without entries, or the friendly answer to one."""
        message = envelope.message
        if isinstance(message, InstallSnapshot):
            return not message.data
        if isinstance(message, AppendEntriesResponse) and message.success:
            key = (envelope.dest, envelope.source, message.round, message.match_index)
            return key in self._heartbeats
        return isinstance(message, AppendEntries) and not message.entries

    def _observe(self, node: Server) -> None:
        """Say what is new at `node`, in the order of cause and effect."""
        status, seen, name = node.raft.status(), self._seen[node.name], node.name
        role, term, leader = status.role, status.current_term, status.leader_id
        if (role, term) != (seen.role, seen.term) and role != "follower":
            self.lines.append(f"{name} becomes {role} (term {term})")
        elif role == "follower" and leader is not None and leader != seen.leader:
            self.lines.append(f"{name} follows {leader} (term {term})")
        elif role != seen.role:
            self.lines.append(f"{name} becomes {role} (term {term})")
        elif term != seen.term:
            self.lines.append(f"{name} enters term {term}")
        # An entry that is committed but not yet on this disk is spoken of once it is there.
        if seen.commit_index < status.commit_index <= status.durable_index:
            self.lines.append(f"{name} commit {status.commit_index}")
            seen.commit_index = status.commit_index
        self._observe_configuration(node, seen)
        seen.role, seen.term, seen.leader = role, term, leader

    def _observe_configuration(self, node: Server, seen: Seen) -> None:
        configurations = node.raft.log.configurations
        latest, before = configurations.latest, seen.configuration
        if latest is None:
            return
        if latest != before:
            back = " rolled back to" if before is not None and latest.index < before.index else ""
            self.lines.append(f"{node.name} configuration{back} {configuration_text(latest)}")
            seen.configuration = latest
        if (
            not seen.knows_removal
            and node.name in latest.entry.tombstones
            and latest.index <= seen.commit_index
        ):
            self.lines.append(f"{node.name} knows that it is removed")
            seen.knows_removal = True

    # --- the network ---

    def deliver_batch(self, envelopes: Iterable[Envelope]) -> None:
        """Hand over `envelopes` in their order; say first which of them are lost."""
        envelopes = tuple(envelopes)
        lost: dict[str, list[Envelope]] = {}
        for envelope in envelopes:
            if not self.passes(envelope):
                lost.setdefault(self._obstacle(envelope), []).append(envelope)
        for obstacle, those in lost.items():
            self._say_messages("-x", those, f" ({obstacle})")
        for envelope in envelopes:
            self.deliver(envelope)

    def deliver_among(self, servers: Iterable[str]) -> None:
        """Deliver what these servers send each other, reactions too, until they are silent."""
        among = set(servers)
        for _ in range(ROUNDS_MAX):
            taken = self.take(lambda e: e.source in among and e.dest in among)
            if not taken:
                return
            self.deliver_batch(taken)
        raise AssertionError("the messages do not come to an end")

    def deliver_all(self, rounds_max: int = ROUNDS_MAX) -> None:
        self.deliver_among(self.servers)

    def _obstacle(self, envelope: Envelope) -> str:
        for server in (envelope.source, envelope.dest):
            if server in self.down:
                return f"{server} is down"
        return "partition"

    def drop(self, envelopes: Iterable[Envelope]) -> None:
        self._say_messages("-x", envelopes, " (dropped)")

    def duplicate(self, envelopes: Iterable[Envelope]) -> None:
        self._say_messages("->", envelopes, " (again)")
        self.queue.extend(envelopes)


@attrs.define
class Arguments:
    """The words of a command: servers and the like, and `key=value` pairs."""

    words: list[str] = attrs.field(factory=list)
    pairs: list[tuple[str, str]] = attrs.field(factory=list)

    @classmethod
    def parse(cls, words: Iterable[str]) -> Arguments:
        arguments = cls()
        for word in words:
            key, equals, value = word.partition("=")
            if equals:
                arguments.pairs.append((key, value))
            else:
                arguments.words.append(word)
        return arguments

    def option(self, key: str, default: str = "") -> str:
        return dict(self.pairs).get(key, default)

    def listed(self, key: str) -> list[str]:
        return [value for value in self.option(key).split(",") if value]


class Script:
    """The commands of a transcript."""

    def __init__(self) -> None:
        self._cluster: RecordedCluster | None = None

    @property
    def cluster(self) -> RecordedCluster:
        assert self._cluster is not None, "a transcript starts with `cluster`"
        return self._cluster

    def run_all(self, commands: Iterable[str]) -> list[str]:
        """Run commands and return what they printed; a failure tells it too."""
        printed: list[str] = []
        for command in commands:
            try:
                printed += self.run(command)
            except AssertionError as error:
                error.add_note("\n".join([*printed, f"at the command: {command}"]))
                raise
        return printed

    def run(self, line: str) -> list[str]:
        """Run one command and return what it printed."""
        quiet = re.fullmatch(r"\((.*)\)", line)
        name, *words = (quiet[1] if quiet else line).split()
        command = getattr(self, f"do_{name}", None)
        assert command is not None, f"unknown command: {line}"
        if self._cluster is not None:
            self._cluster.lines.clear()
        try:
            command(Arguments.parse(words))
        except (RequestRefused, MembershipError) as refusal:
            why = f"{name} refused ({type(refusal).__name__}): {refusal}"
            self.cluster.lines.append(f"! {why}")
            assert not quiet, f"the set-up fails: {why}"
        return [] if quiet else list(self.cluster.lines)

    def do_cluster(self, arguments: Arguments) -> None:
        """`cluster n1 n2 [learners=n3] [blank=n4,n5]`: new servers, all forgotten before."""
        self._cluster = RecordedCluster(
            arguments.words, arguments.listed("learners"), arguments.listed("blank")
        )

    def do_disk(self, arguments: Arguments) -> None:
        """`disk n1 term=3 log=1,1,2`: what `n1` has on disk, given by the terms of its entries."""
        terms = [int(term) for term in arguments.listed("log")]
        founding = founding_entry(self.cluster.servers)
        rest = [
            Entry(index, term, EntryKind.COMMAND, b"put x=%d" % index)
            for index, term in enumerate(terms, start=1)
        ]
        assert terms[0] == founding.term
        (server,) = arguments.words
        self.cluster.set_log(server, int(arguments.option("term")), [founding, *rest[1:]])

    def do_show(self, arguments: Arguments) -> None:
        """`show rounds commits`: print these fields of messages too."""
        self.cluster.shown = frozenset(arguments.words)

    # --- time ---

    def do_tick(self, arguments: Arguments) -> None:
        """`tick n1 n2 10`: let time pass for these servers alone; nothing is delivered."""
        *servers, count = arguments.words
        if not count.isdigit():
            servers, count = arguments.words, "1"
        for server in servers:
            self.cluster.tick(server, int(count))

    def do_run(self, arguments: Arguments) -> None:
        """`run 10`: let time pass for all, deliver everything; heartbeats are not shown."""
        self.cluster.hides_heartbeats = True
        self.cluster.run(int(arguments.words[0]))
        self.cluster.hides_heartbeats = False

    def do_campaign(self, arguments: Arguments) -> None:
        """`campaign n1`: the election timer of `n1` runs out; time passes for `n1` alone."""
        (server,) = arguments.words
        assert not isinstance(self.cluster.raft(server).role, Leader), f"{server} leads"
        waiting = len(self.cluster.queue)
        before = self.cluster.raft(server).current_term
        for _ in range(2 * OPTIONS.election_ticks):
            self.cluster.tick(server)
            if len(self.cluster.queue) > waiting:
                return
            if self.cluster.raft(server).current_term > before:
                return
        self.cluster.lines.append(f"{server} does not campaign")

    def do_elect(self, arguments: Arguments) -> None:
        """`elect n1`: time passes until nobody clings to a leader; `n1` campaigns and wins."""
        (server,) = arguments.words
        for other in sorted(self.cluster.servers.keys() - self.cluster.down - {server}):
            self.cluster.tick(other, OPTIONS.election_ticks)
        self.do_campaign(arguments)
        self.cluster.deliver_all()
        assert self.cluster.leader() == server, f"{server} is not elected"
        self.do_heartbeat(arguments)

    def do_heartbeat(self, arguments: Arguments) -> None:
        """`heartbeat n1`: a heartbeat interval passes for the leader `n1`; all is delivered."""
        self.do_tick(arguments)
        self.cluster.deliver_all()

    # --- requests ---

    def do_propose(self, arguments: Arguments) -> None:
        """`propose n1 put x=1 [padding=BYTES]`: a command for the state machine."""
        server, verb = arguments.words
        (key, value), *_ = arguments.pairs
        command = f"{verb} {key}={value}".encode()
        padding = int(arguments.option("padding", "0"))
        self.cluster.propose(command + b"." * padding, server)

    def do_read(self, arguments: Arguments) -> None:
        """`read n1 x`: a linearizable read."""
        server, key = arguments.words
        self.cluster.give(server, lambda raft: raft.read(key))

    def do_change(self, arguments: Arguments) -> None:
        """`change n1 voter=n4 learner=n5 remove=n2 [learners_before=n6|none]`."""
        (server,) = arguments.words
        steps = [(role, id_) for role, id_ in arguments.pairs if role != "learners_before"]
        extra: dict[str, object] = {}
        before = arguments.listed("learners_before")
        if before:
            extra["learners_before"] = frozenset(before) - {"none"}
        self.cluster.change(steps, server, **extra)

    def do_abort(self, arguments: Arguments) -> None:
        """`abort n1 why`: go back to C_old."""
        server, *reason = arguments.words
        self.cluster.give(server, lambda raft: raft.abort_membership_change(" ".join(reason)))

    def do_transfer(self, arguments: Arguments) -> None:
        """`transfer n1 n2`: hand leadership from `n1` to `n2`."""
        server, target = arguments.words
        self.cluster.give(server, lambda raft: raft.transfer_leadership(target))

    def do_snapshot(self, arguments: Arguments) -> None:
        """`snapshot n1`: `n1` publishes a snapshot of all that it has applied."""
        for server in arguments.words:
            self.cluster.take_snapshot(server)

    def do_compact(self, arguments: Arguments) -> None:
        """`compact n1`: `n1` forgets the entries that its snapshot includes."""
        for server in arguments.words:
            self.cluster.compact(server)

    def do_unreachable(self, arguments: Arguments) -> None:
        """`unreachable n1 n2`: `n1` notices that its link to `n2` is broken."""
        server, other = arguments.words
        self.cluster.give(server, lambda raft: raft.report_unreachable(other))

    # --- the network and the machines ---

    def _wanted(self, arguments: Arguments) -> Callable[[Envelope], bool]:
        """Return the filter `from=n1,n2 to=n3 kind=AppendEntries entry=4`."""
        sources, dests = arguments.listed("from"), arguments.listed("to")
        kinds, indexes = arguments.listed("kind"), arguments.listed("entry")

        def wanted(envelope: Envelope) -> bool:
            entries = getattr(envelope.message, "entries", ())
            return (
                (not sources or envelope.source in sources)
                and (not dests or envelope.dest in dests)
                and (not kinds or type(envelope.message).__name__ in kinds)
                and (not indexes or any(str(entry.index) in indexes for entry in entries))
            )

        return wanted

    def do_deliver(self, arguments: Arguments) -> None:
        """`deliver [FILTER]`: hand over what is on its way now, and not the reactions."""
        taken = self.cluster.take(self._wanted(arguments))
        assert taken, "nothing to deliver"
        self.cluster.deliver_batch(taken)

    def do_drop(self, arguments: Arguments) -> None:
        """`drop [FILTER]`: lose what is on its way now."""
        taken = self.cluster.take(self._wanted(arguments))
        assert taken, "nothing to drop"
        self.cluster.drop(taken)

    def do_duplicate(self, arguments: Arguments) -> None:
        """`duplicate [FILTER]`: what is on its way now arrives once more, after all the rest."""
        wanted = self._wanted(arguments)
        copies = [envelope for envelope in self.cluster.queue if wanted(envelope)]
        assert copies, "nothing to duplicate"
        self.cluster.duplicate(copies)

    def do_stabilize(self, arguments: Arguments) -> None:
        """`stabilize [n1 n2]`: deliver, also the reactions, until these servers are silent."""
        self.cluster.deliver_among(self._chosen(arguments))

    def do_partition(self, arguments: Arguments) -> None:
        """`partition n1,n2 n3`: cut all links between these groups."""
        self.cluster.partition(*(group.split(",") for group in arguments.words))

    def do_heal(self, arguments: Arguments) -> None:
        """`heal`: all links work again."""
        self.cluster.heal()

    def do_crash(self, arguments: Arguments) -> None:
        """`crash n1 n2`: what their disks have not got is gone."""
        for server in arguments.words:
            self.cluster.crash(server)
            self.cluster.lines.append(f"{server} crashes")

    def do_restart(self, arguments: Arguments) -> None:
        """`restart n1`: start again from the disk."""
        for server in arguments.words:
            self.cluster.restart(server)
            raft = self.cluster.raft(server)
            line = f"{server} restarts: term={raft.current_term} vote={raft.voted_for or '-'}"
            line += f" last={raft.log.last_index}@{raft.log.last_term}"
            if raft.configuration is not None:
                line += f" configuration {configuration_text(raft.configuration)}"
            if raft.snapshot is not None:
                line += f" snapshot {snapshot_text(raft.snapshot.id)}"
            self.cluster.lines.append(line)

    # --- looking ---

    def _chosen(self, arguments: Arguments) -> list[str]:
        return arguments.words or sorted(self.cluster.servers)

    def do_status(self, arguments: Arguments) -> None:
        """`status [n1 n2]`: one line for each server, and what a leader knows of the others."""
        for server in self._chosen(arguments):
            if server in self.cluster.down:
                self.cluster.lines.append(f"{server} is down")
                continue
            status = self.cluster.raft(server).status()
            line = f"{server} {status.role} term={status.current_term}"
            line += f" leader={status.leader_id or '-'}"
            line += f" last={status.last_index}@{status.last_term} commit={status.commit_index}"
            if status.configuration is not None:
                line += f" configuration {configuration_text(status.configuration)}"
            self.cluster.lines.append(line)
            for peer in status.peers:
                line = f"  {peer.server} {peer.state} match={peer.match_index}"
                line += f" next={peer.next_index}"
                if peer.snapshot is not None:
                    line += f" has {peer.received_bytes} of snapshot {snapshot_text(peer.snapshot)}"
                line += " caught-up" * peer.caught_up + " departing" * peer.departing
                self.cluster.lines.append(line + " fenced" * peer.fenced)

    def do_log(self, arguments: Arguments) -> None:
        """`log [n1 n2]`: the terms of the entries, as the paper draws them.

        `|` stands after the last entry that the server knows to be committed; S, J, F and A mark
        simple, joint, final and abort configurations.
        """
        servers = self._chosen(arguments)
        width = max(map(len, [*servers, "index"]))
        last = max(self.cluster.raft(server).log.last_index for server in servers)
        header = "".join(f"{index:>3}  " for index in range(1, last + 1))
        self.cluster.lines.append(f"{'index':<{width}} {header}".rstrip())
        for server in servers:
            log = self.cluster.raft(server).log
            # Of what is compacted, nothing is left to be shown.
            cells = ["     "] * log.base_index
            for entry in log.entries(log.first_index, log.last_index):
                mark = " "
                if entry.kind is EntryKind.CONFIGURATION and entry.index > 1:
                    mark = decode_configuration(entry.data).kind[0].upper()
                bar = "|" if entry.index == log.commit_index else " "
                cells.append(f"{entry.term:>3}{mark}{bar}")
            self.cluster.lines.append(f"{server:<{width}} {''.join(cells)}".rstrip())

    def do_quorum(self, arguments: Arguments) -> None:
        """`quorum n1`: what the leader `n1` may commit, half by half."""
        (server,) = arguments.words
        status = self.cluster.raft(server).status()
        assert status.configuration is not None
        configuration = status.configuration.configuration
        matches = {peer.server: peer.match_index for peer in status.peers}
        matches[server] = status.durable_index
        halves = [("C_old", configuration.outgoing), ("C_new", configuration.voters)]
        for name, half in halves if configuration.is_joint else [("voters", configuration.voters)]:
            stored = " ".join(f"{voter}={matches.get(voter, 0)}" for voter in sorted(half))
            reached = committed_index(half, (), matches)
            self.cluster.lines.append(
                f"{name} has {stored}: {majority(len(half))} of {len(half)} have {reached}"
            )
        reached = committed_index(configuration.voters, configuration.outgoing, matches)
        self.cluster.lines.append(
            f"stored by every majority: {reached}, commit {status.commit_index}"
        )


def replay(text: str) -> str:
    """Run the transcript `text`; return it with what its commands print now."""
    script = Script()
    blocks = []
    for block in re.split(r"\n\n+", text.strip()):
        lines = block.partition("\n---")[0].splitlines()
        commands = [line for line in lines if not line.startswith("#")]
        assert lines[len(lines) - len(commands) :] == commands, f"prose after commands: {block}"
        if commands:
            with chunks_of(SNAPSHOT_CHUNK_BYTES, SNAPSHOT_INFLIGHT_BYTES_MAX):
                printed = script.run_all(commands)
            lines += ["---", *(printed or ["ok"])]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"
