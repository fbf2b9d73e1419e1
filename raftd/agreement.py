"""Do the servers make the same of the log? Asked about once a second, answered by one number.

Raft makes logs equal. A bug, a flipped bit in memory or a disk that lies can still make the states
different, and nobody would notice: every server answers from its own. So the state machine keeps a
hash over what its entries have done (`raftd.storage.state`), and the leader compares.

| message | from | meaning |
|---|---|---|
| `StateCheck` | leader to members | which hash have you after the entry at this index? |
| `StateCheckResponse` | member to leader | this one; sent once the entry is applied |
| `StateVerdict` | leader to members | these agree and those differ, or nobody does any more |

Who is right is decided by a majority of the voters, of both halves while joint: a hash that such a
majority has is the state of the cluster, and whoever has another one stops. Without a majority for
any hash everybody reports it, and nobody guesses.

A message counts only from the leader of the current term, as the receiver knows it, or to it. A
verdict stops a server only if it names a majority of the configuration that this server has, and
if this server finds its own hash at that index different; so a late, stray or wrong one does no
harm.

Nothing here is part of Raft or durable; it may be lost, repeated and reordered. What was applied
never changes, so that a difference that was found once stays true: what is missed by one check is
found by the next one.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping

import attrs

from raftd.core.membership import Configuration
from raftd.core.messages import Envelope, StateCheck, StateCheckResponse, StateMessage, StateVerdict
from raftd.core.quorum import VoteResult, vote_result
from raftd.core.types import Index, ServerId, Term, server_name

CHECK_INTERVAL_MS = 1_000.0
"""Between two checks: a difference is found within seconds, and the messages are too few and too
small to be seen beside the heartbeats."""
CHECK_PATIENCE_MS = 3_000.0
"""How long one check waits for answers: long enough for a member that is a little behind, and
short enough that a member that is away does not keep the others from being compared again."""


@attrs.frozen(kw_only=True)
class Standing:
    """Where a server stands at the moment of a call."""

    now: int
    """Ticks since any fixed moment; never goes back."""
    term: Term
    """The current one."""
    leads: bool
    """Whether this server is the leader of `term`."""
    leader: ServerId | None
    """Who that is, as far as it is known here."""
    configuration: Configuration
    """The latest one of the log."""
    applied_index: Index
    hash_at: Callable[[Index], int | None]
    """`StateMachine.hash_at`."""
    address: str = "HOST:PORT"
    """Where that configuration has this server; else what people read as an address."""


@attrs.frozen(kw_only=True)
class Divergence:
    """Servers have not made the same of the entries up to `index`."""

    index: Index
    agreeing: tuple[ServerId, ...]
    """The servers that have the hash of a majority; empty if none has one."""
    differing: tuple[ServerId, ...]
    """Who has another one; everybody who answered, if there is no majority."""
    hashes: Mapping[ServerId, int]
    """The hash of each server at `index`, as far as it is known here."""

    def __str__(self) -> str:
        """Say it in one sentence, with the names of the servers."""
        if not self.agreeing:
            return (
                f"no majority of the voters had the same state after entry {self.index}; "
                f"in doubt: {_names(self.differing)}"
            )
        return (
            f"{_names(self.differing)} made something else of the log up to entry {self.index} "
            f"than {_names(self.agreeing)}"
        )


@attrs.define
class _Check:
    """A check that its leader collects answers for."""

    term: Term
    index: Index
    started: int
    """In ticks, as all times."""
    repeat: int
    """When to ask those again who have not answered."""
    answers: dict[ServerId, int]
    verdict: StateVerdict | None = None
    """What was found so far, if that is a difference."""


class Agreement:
    """Compares states: as a member it answers, as a leader it asks and judges.

    The driver calls `on_message` for each `StateMessage` and `advance` at least once a tick and
    after entries were applied, sends what they return, and looks at `stop` afterwards.

    Invariants: a leader collects answers for at most one check; a member remembers at most one
    check that it cannot answer yet; each server is in at most one of `divergences` as differing.
    """

    def __init__(self, server: ServerId, *, interval_ticks: int, patience_ticks: int) -> None:
        """Begin without any finding.

        Args:
            server: this one.
            interval_ticks: `CHECK_INTERVAL_MS` in ticks, at least 1.
            patience_ticks: `CHECK_PATIENCE_MS` in ticks, at least `interval_ticks`.
        """
        assert 1 <= interval_ticks <= patience_ticks
        self.stop: str | None = None
        """Why this server has to end with the exit code of a storage fault, once it has to: its
        state is wrong. Whatever `advance` or `on_message` returned with it is to be sent first."""
        self.agreed_index: Index = 0
        """The newest entry after which all members were found to be equal; 0 if none."""
        self._server = server
        self._interval = interval_ticks
        self._patience = patience_ticks
        self._divergences: tuple[Divergence, ...] = ()
        self._judged: tuple[Term, Index] = (0, 0)
        """Of the newest verdict that was heeded: older ones come late."""
        self._asked: tuple[ServerId, StateCheck] | None = None
        """The newest check that waits for its entry to be applied here."""
        self._led_term: Term = 0
        """The term of the fields below."""
        self._check: _Check | None = None
        self._next_check = 0
        self._settled_index: Index = 0
        """All members had the same after this entry: no need to ask before there is another one."""

    @property
    def divergences(self) -> tuple[Divergence, ...]:
        """What is known to differ, the newest finding first.

        A server is taken out when a later check finds that it agrees with the majority, and when it
        is no member any more.
        """
        return self._divergences

    @property
    def wrong(self) -> tuple[ServerId, ...]:
        """Who differs from a majority, each once and in order."""
        found = {server for each in self._divergences if each.agreeing for server in each.differing}
        return tuple(sorted(found))

    def advance(self, standing: Standing) -> list[Envelope]:
        """Do what is due now: answer a check that has waited, begin, repeat or end one.

        Returns:
            Messages to send, in this order.
        """
        if self.stop is not None:
            return []
        if self._divergences:
            self._forget(standing.configuration, frozenset())
        messages = self._answer(standing)
        if not standing.leads:
            self._check = None
            return messages
        if standing.term != self._led_term:
            self._led_term = standing.term
            self._check = None
            self._settled_index = 0
            self._next_check = standing.now + self._interval
        return messages + self._lead(standing)

    def on_message(self, envelope: Envelope, standing: Standing) -> list[Envelope]:
        """Take in a `StateMessage`; every other message is a bug of the caller.

        Returns:
            Messages to send, in this order.
        """
        message = envelope.message
        assert isinstance(message, StateMessage), f"no business of the agreement: {message}"
        # A term that is new here is first heard of by the protocol itself; then it comes again.
        if self.stop is not None or message.term != standing.term:
            return []
        if isinstance(message, StateCheckResponse):
            return self._on_response(envelope.source, message, standing)
        if envelope.source != standing.leader:
            return []
        if isinstance(message, StateCheck):
            return self._on_check(envelope.source, message, standing)
        self._on_verdict(message, standing)
        return []

    # --- a member ---

    def _on_check(self, source: ServerId, check: StateCheck, standing: Standing) -> list[Envelope]:
        if self._asked is not None:
            _, newest = self._asked
            # The older one of two has come late, and nobody waits for its answer.
            if (check.term, check.index) < (newest.term, newest.index):
                return []
        self._asked = (source, check)
        return self._answer(standing)

    def _answer(self, standing: Standing) -> list[Envelope]:
        """Answer the check that waits, once its entry is applied and unless it is out of date."""
        if self._asked is None:
            return []
        source, check = self._asked
        index = check.index
        if check.term == standing.term and index > standing.applied_index:
            return []
        self._asked = None
        state_hash = standing.hash_at(index)
        if check.term != standing.term or state_hash is None:
            return []
        response = StateCheckResponse(check.term, index, state_hash)
        return [Envelope(self._server, source, response)]

    def _on_verdict(self, verdict: StateVerdict, standing: Standing) -> None:
        index, agreeing = verdict.index, verdict.agreeing
        own = standing.hash_at(index)
        if not _is_proven(verdict, self._server, own, standing.configuration):
            return
        hashes = dict.fromkeys(agreeing, verdict.state_hash)
        if self._server in verdict.differing:
            if agreeing:
                assert own is not None
                self.stop = self._reason(verdict, own, standing)
            if own is not None:
                hashes[self._server] = own
        if (verdict.term, index) < self._judged:
            return
        self._judged = (verdict.term, index)
        self._note(verdict, hashes, standing.configuration)

    # --- a leader ---

    def _lead(self, standing: Standing) -> list[Envelope]:
        check = self._check
        messages: list[Envelope] = []
        if check is not None:
            if standing.now - check.started >= self._patience:
                messages = self._judge(check, standing, final=True)
            elif standing.now >= check.repeat:
                check.repeat = standing.now + self._interval
                # Members may have come and gone since the last answer.
                messages = self._judge(check, standing, final=False, repeat=True)
                if self._check is check:
                    messages += self._questions(check, standing)
        if self._check is None and self.stop is None and standing.now >= self._next_check:
            messages += self._begin(standing)
        return messages

    def _begin(self, standing: Standing) -> list[Envelope]:
        """Ask all members for their hash at our applied index, unless we know it already."""
        index = standing.applied_index
        state_hash = standing.hash_at(index)
        others = standing.configuration.members - {self._server}
        if not others or index <= self._settled_index or state_hash is None:
            return []
        now = standing.now
        self._next_check = now + self._interval
        self._check = check = _Check(
            term=standing.term,
            index=index,
            started=now,
            repeat=now + self._interval,
            answers={self._server: state_hash},
        )
        return self._questions(check, standing)

    def _questions(self, check: _Check, standing: Standing) -> list[Envelope]:
        question = StateCheck(check.term, check.index, check.answers[self._server])
        silent = standing.configuration.members - check.answers.keys()
        return [Envelope(self._server, server, question) for server in sorted(silent)]

    def _on_response(
        self, source: ServerId, response: StateCheckResponse, standing: Standing
    ) -> list[Envelope]:
        check = self._check
        if check is None or not standing.leads or standing.term != check.term:
            return []
        if (response.term, response.index) != (check.term, check.index):
            return []
        if source in check.answers or source not in standing.configuration.members:
            return []
        check.answers[source] = response.state_hash
        return self._judge(check, standing, final=False)

    def _judge(
        self, check: _Check, standing: Standing, *, final: bool, repeat: bool = False
    ) -> list[Envelope]:
        """Draw from the answers what is certain, and tell everybody what is new.

        Args:
            check: the open one.
            standing: now.
            final: nobody is waited for any longer.
            repeat: tell also what was told before.
        """
        configuration = standing.configuration
        members = configuration.members
        answers = {
            server: state_hash
            for server, state_hash in sorted(check.answers.items())
            # A leader that is about to leave is no member, and has a state like any other.
            if server in members or server == self._server
        }
        complete = members <= answers.keys()
        verdict = _verdict(check, configuration, answers, final=final or complete)
        if complete or final:
            self._check = None
            if complete and len(set(answers.values())) == 1:
                self._settled_index = self.agreed_index = check.index
        # A verdict that everybody agrees is worth sending only once nobody can differ any more.
        if verdict is None or not (verdict.differing or complete or final):
            return []
        if verdict == check.verdict and not repeat:
            return []
        check.verdict = verdict
        self._note(verdict, answers, configuration)
        if verdict.agreeing and self._server in verdict.differing:
            own = answers[self._server]
            self.stop = self._reason(verdict, own, standing)
        return [
            Envelope(self._server, server, verdict) for server in sorted(members - {self._server})
        ]

    # --- findings ---

    def _note(
        self, verdict: StateVerdict, hashes: Mapping[ServerId, int], configuration: Configuration
    ) -> None:
        """Replace what was found before about the servers that `verdict` speaks of."""
        self._forget(configuration, frozenset((*verdict.agreeing, *verdict.differing)))
        if verdict.differing:
            finding = Divergence(
                index=verdict.index,
                agreeing=verdict.agreeing,
                differing=verdict.differing,
                hashes=dict(hashes),
            )
            self._divergences = (finding, *self._divergences)
        elif not configuration.members - set(verdict.agreeing):
            self.agreed_index = max(self.agreed_index, verdict.index)

    def _forget(self, configuration: Configuration, settled: frozenset[ServerId]) -> None:
        """Take out of the findings who is settled and who is no member."""
        kept = []
        for finding in self._divergences:
            differing = tuple(
                server
                for server in finding.differing
                if server in configuration.members and server not in settled
            )
            if differing:
                kept.append(attrs.evolve(finding, differing=differing))
        self._divergences = tuple(kept)

    def _reason(self, verdict: StateVerdict, own: int, standing: Standing) -> str:
        name = server_name(self._server)
        return (
            f"the state of {self._server} is wrong: after entry {verdict.index} it has the hash "
            f"{own:016x}, while a majority ({', '.join(verdict.agreeing)}) has "
            f"{verdict.state_hash:016x}. "
            "To get the server back, empty its data directory, start it again and run "
            f"`raftctl replace {name} {shlex.quote(f'{name}={standing.address}')}`"
        )


def _verdict(
    check: _Check, configuration: Configuration, answers: Mapping[ServerId, int], *, final: bool
) -> StateVerdict | None:
    """Return what `answers` prove; None if they prove nothing yet.

    Majorities overlap, so at most one hash has one.
    """
    voters, outgoing = configuration.voters, configuration.outgoing
    for state_hash in sorted(set(answers.values())):
        votes = {server: answer == state_hash for server, answer in answers.items()}
        if vote_result(voters, outgoing, votes) is VoteResult.WON:
            return StateVerdict(
                check.term,
                check.index,
                state_hash,
                agreeing=tuple(server for server, agrees in votes.items() if agrees),
                differing=tuple(server for server, agrees in votes.items() if not agrees),
            )
    decided = final or configuration.all_voters <= answers.keys()
    if decided and len(set(answers.values())) > 1:
        return StateVerdict(check.term, check.index, 0, agreeing=(), differing=tuple(answers))
    return None


def _is_proven(
    verdict: StateVerdict, server: ServerId, own: int | None, configuration: Configuration
) -> bool:
    """Return whether `server` may believe a verdict, as far as it can see itself.

    Args:
        own: its hash at the index of the verdict; None if it does not know it.
        configuration: the latest one that it has. If that of the leader is another one, it has it
            soon, and the leader says it again.
    """
    agreeing, differing = frozenset(verdict.agreeing), frozenset(verdict.differing)
    if agreeing & differing:
        return False
    if not agreeing:
        return True
    votes = dict.fromkeys(agreeing, True)
    if vote_result(configuration.voters, configuration.outgoing, votes) is not VoteResult.WON:
        return False
    if server in differing:
        return own is not None and own != verdict.state_hash
    return server not in agreeing or own in (None, verdict.state_hash)


def _names(servers: tuple[ServerId, ...]) -> str:
    return ", ".join(server_name(server) for server in servers)
