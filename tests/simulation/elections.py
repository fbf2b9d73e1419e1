"""Elections alone, many of them: cores with delays between them and disks that take their time.

The runs of `tests.simulation.run` are about safety and attack everything at once; here servers do
nothing but lose leaders and elect new ones, so that a thousand elections take seconds and their
distribution can be looked at. Time is counted in ticks; each server's ticks fall at moments of its
own, messages and syncs take a fraction of a tick. Everything follows from the seed.

    python -m tests.simulation.elections --runs 200
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Callable, Sequence
from random import Random
from statistics import fmean, median
from typing import Any

import attrs

from raftd.core.leader import Leader
from raftd.core.log import RaftLog
from raftd.core.messages import AppendEntries, Envelope
from raftd.core.options import Options
from raftd.core.raft import Candidate, PreCandidate, Raft
from raftd.core.types import Entry, HardState, ServerId, Term
from tests.core.harness import founding_entry

TICKS_MAX = 4_000.0
"""A run that takes so long has no end."""
COMMANDS = 5
"""What the servers that lag behind lack."""


@attrs.frozen(kw_only=True)
class Setting:
    """What an election takes place in. Durations are in ticks, each drawn from its range."""

    voters: int = 3
    heartbeat_ticks: int = 2
    election_ticks: int = 20
    """A heartbeat of 10 ms and an election timeout of 100 ms, with half a heartbeat to a tick."""
    delay_ticks: tuple[float, float] = (0.02, 0.1)
    """Of each message."""
    sync_ticks: tuple[float, float] = (0.05, 0.2)
    """Of each write that has to be durable."""
    loss: float = 0.0
    """Share of the messages that get lost once the leader is dead."""
    lagging: int = 0
    """So many of the others lack entries that a majority has, and always time out early."""
    also_die: int = 0
    """So many of those that lack nothing die together with the leader."""
    uneven: bool = False
    """The leader has died with entries on their way: every server has another last one."""


class Drawn(Random):
    """Draws for one server: those of its time-outs can be restricted to the earliest."""

    early_share = 1.0

    def randrange(self, start: int, *arguments: Any, **named: Any) -> int:
        return super().randrange(max(1, round(start * self.early_share)), *arguments, **named)


class Voter:
    """One server: its core, and what it does at the moment."""

    def __init__(self, name: ServerId, founding: Entry, options: Options, seed: str) -> None:
        self.name = name
        self.random = Drawn(f"{seed}/{name}")
        self.phase = self.random.random()
        self.inbox: list[Envelope] = []
        self.tick_due = False
        self.busy_until = 0.0
        self.turn_at = -1.0
        self.is_up = True
        self.lags = False
        self.raft = Raft(
            server=name,
            log=RaftLog([founding]),
            hard_state=HardState(current_term=1),
            options=options,
            random=self.random,
        )


@attrs.frozen(kw_only=True)
class Outcome:
    """How one leader was succeeded."""

    ticks: float
    """From its death to the first commit of the next leader."""
    first_timeout_ticks: float
    """From its death until the first server that is up noticed."""
    terms: int
    """Terms in which somebody campaigned; 1 if the first one was decided."""
    split: int
    """Terms in which more than one server campaigned and nobody won."""
    pre_rounds: int
    """How often somebody became a pre-candidate."""
    deposed: int
    """Leaders that others have pushed out before they could commit anything."""
    winner_lagged: bool
    """Whether the new leader is one of those that lacked entries."""


class Election:
    """A group of voters in one thread."""

    def __init__(self, setting: Setting, seed: object) -> None:
        self.setting = setting
        self.random = Random(f"{seed} of {setting}")
        self.now = 0.0
        self.dead: set[ServerId] = set()
        self.drops: Callable[[Envelope], bool] = lambda envelope: False
        self.candidates: dict[Term, set[ServerId]] = {}
        self.pre_rounds = 0
        self.deposed = 0
        self.first_timeout: float | None = None
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._pushed = 0
        self._last_arrival: dict[tuple[ServerId, ServerId], float] = {}
        names = [f"n{number}/1" for number in range(1, setting.voters + 1)]
        founding = founding_entry(names)
        options = Options(
            heartbeat_ticks=setting.heartbeat_ticks,
            election_ticks=setting.election_ticks,
            joint_timeout_ticks=1_000,
            departing_ticks=1_000,
        )
        self.voters = {
            name: Voter(name, founding, options, f"{seed} of {setting}") for name in names
        }
        for voter in self.voters.values():
            self._at(voter.phase, self._tick, voter)

    # --- time ---

    def _at(self, at: float, action: Callable[..., None], *arguments: Any) -> None:
        self._pushed += 1
        heapq.heappush(self._events, (at, self._pushed, action, arguments))

    def run_until(self, done: Callable[[], bool]) -> None:
        """Let time pass until `done`, which is asked after each event."""
        while not done():
            self.now, _, action, arguments = heapq.heappop(self._events)
            assert self.now < TICKS_MAX, "no end"
            action(*arguments)

    def run_for(self, ticks: float) -> None:
        """Let `ticks` pass."""
        end = self.now + ticks
        self.run_until(lambda: self._events[0][0] > end)
        self.now = end

    # --- servers ---

    def up(self) -> list[Voter]:
        return [voter for voter in self.voters.values() if voter.is_up]

    def leader(self) -> Voter | None:
        """Return the leader of the highest term that has committed something in it."""
        leaders = [
            voter
            for voter in self.up()
            if isinstance(voter.raft.role, Leader) and voter.raft.role.has_committed_in_term
        ]
        return max(leaders, key=lambda voter: voter.raft.current_term, default=None)

    def _tick(self, voter: Voter) -> None:
        self._at(self.now + 1.0, self._tick, voter)
        voter.tick_due = True
        self._wake(voter)

    def _wake(self, voter: Voter) -> None:
        at = max(self.now, voter.busy_until)
        if voter.turn_at < 0:
            voter.turn_at = at
            self._at(at, self._turn, voter)

    def _turn(self, voter: Voter) -> None:
        voter.turn_at = -1.0
        if not voter.is_up:
            return
        if voter.busy_until > self.now:
            self._wake(voter)
            return
        raft = voter.raft
        was = (type(raft.role), raft.current_term)
        batch, voter.inbox = voter.inbox, []
        for envelope in batch:
            raft.step(envelope)
        self._note(voter, was)
        was = (type(raft.role), raft.current_term)
        if voter.tick_due:
            voter.tick_due = False
            raft.tick()
        self._note(voter, was)
        self.work(voter)

    def _note(self, voter: Voter, was: tuple[type, Term]) -> None:
        raft = voter.raft
        if was == (type(raft.role), raft.current_term):
            return
        if issubclass(was[0], Leader):
            self.deposed += 1
        if isinstance(raft.role, PreCandidate):
            self.pre_rounds += 1
            if self.first_timeout is None:
                self.first_timeout = self.now
        elif isinstance(raft.role, Candidate):
            self.candidates.setdefault(raft.current_term, set()).add(voter.name)

    def work(self, voter: Voter) -> None:
        """Do what the core asks for; a sync keeps the server busy."""
        raft, at = voter.raft, self.now
        while (ready := raft.take_ready()) is not None:
            self._send(ready.early_messages, at)
            if ready.hard_state is not None or ready.entries:
                at += voter.random.uniform(*self.setting.sync_ticks)
            was = (type(raft.role), raft.current_term)
            raft.persisted(ready)
            self._note(voter, was)
            self._send(ready.messages, at)
        voter.busy_until = at

    def _send(self, envelopes: Sequence[Envelope], at: float) -> None:
        for envelope in envelopes:
            if self.drops(envelope):
                continue
            way = (envelope.source, envelope.dest)
            arrival = at + self.random.uniform(*self.setting.delay_ticks)
            # As on a TCP connection nothing overtakes.
            arrival = max(arrival, self._last_arrival.get(way, 0.0))
            self._last_arrival[way] = arrival
            self._at(arrival, self._arrive, envelope)

    def _arrive(self, envelope: Envelope) -> None:
        voter = self.voters[envelope.dest]
        if voter.is_up:
            voter.inbox.append(envelope)
            self._wake(voter)

    # --- the story ---

    def elect_first(self) -> Voter:
        """Wait for the first leader and until everybody follows it."""
        self.run_until(lambda: self.leader() is not None)
        self.run_for(3.0 * self.setting.heartbeat_ticks)
        leader = self.leader()
        assert leader is not None
        return leader

    def let_lag(self, leader: Voter) -> None:
        """Let some followers fall behind, in ways that the setting asks for."""
        followers = [voter for voter in self.up() if voter is not leader]
        self.random.shuffle(followers)
        behind = followers[: self.setting.lagging]
        for voter in behind:
            voter.lags = True
            voter.random.early_share = 0.2
        lagging = {voter.name for voter in behind}

        def drops(envelope: Envelope) -> bool:
            message = envelope.message
            return (
                isinstance(message, AppendEntries)
                and bool(message.entries)
                and envelope.dest in lagging
            )

        self.drops = drops
        for number in range(COMMANDS if lagging else 0):
            leader.raft.propose(b"%d" % number)
            self.work(leader)
            self.run_for(1.0)
        self.run_for(2.0 * self.setting.heartbeat_ticks)

    def leave_uneven(self, leader: Voter) -> None:
        """Let the leader propose, and each entry reach one follower less than the one before."""
        followers = [voter.name for voter in self.up() if voter is not leader]
        self.random.shuffle(followers)
        for count in range(len(followers) - 1, 0, -1):
            heard_by = set(followers[:count])
            self.drops = lambda envelope, heard_by=heard_by: (  # type: ignore[misc]
                isinstance(envelope.message, AppendEntries)
                and bool(envelope.message.entries)
                and envelope.dest not in heard_by
            )
            leader.raft.propose(b"uneven")
            self.work(leader)
        self.run_for(0.2)

    def succeed(self) -> Outcome:
        """Kill the leader at a random moment; return how it was succeeded."""
        leader = self.leader()
        assert leader is not None
        self.let_lag(leader)
        self.run_for(self.random.random() * 2 * self.setting.heartbeat_ticks)
        if self.setting.uneven:
            self.leave_uneven(leader)
        followers = [voter for voter in self.up() if voter is not leader and not voter.lags]
        for voter in (leader, *followers[: self.setting.also_die]):
            voter.is_up = False
        died = self.now
        self.candidates.clear()
        self.pre_rounds = self.deposed = 0
        self.first_timeout = None
        loss = self.setting.loss
        self.drops = (lambda envelope: self.random.random() < loss) if loss else lambda _: False
        self.run_until(lambda: self.leader() is not None)
        new = self.leader()
        assert new is not None
        assert self.first_timeout is not None
        terms = [term for term in self.candidates if term <= new.raft.current_term]
        return Outcome(
            ticks=self.now - died,
            first_timeout_ticks=self.first_timeout - died,
            terms=len(terms),
            split=sum(
                len(self.candidates[term]) > 1 and term != new.raft.current_term for term in terms
            ),
            pre_rounds=self.pre_rounds,
            deposed=self.deposed,
            winner_lagged=new.lags,
        )


def succession(setting: Setting, seed: object) -> Outcome:
    """Return how one leader is succeeded in a group of its own."""
    election = Election(setting, seed)
    election.elect_first()
    return election.succeed()


# --- measuring -------------------------------------------------------------------------------

LATE = {"delay_ticks": (0.3, 1.2), "sync_ticks": (0.2, 1.0)}
"""Links and disks as slow as the time-outs allow."""
KINDS: dict[str, dict[str, Any]] = {
    "caught up": {},
    "one lags": {"lagging": 1},
    "two lag": {"lagging": 2},
    "two lag, one of the others is dead": {"lagging": 2, "also_die": 1},
    "uneven": {"uneven": True},
    "short": {"election_ticks": 10},
    "late": LATE,
    "late short": {**LATE, "election_ticks": 10},
    "loss": {"loss": 0.1},
}


KIND_WIDTH = max(map(len, KINDS))
HEAD = (
    "median    p90    p99    max | median   mean    p99 | splits worst terms deposed asked behind"
)


def report(setting: Setting, outcomes: Sequence[Outcome]) -> str:
    """Return a line about many successions, under `HEAD`."""
    unit, count = setting.election_ticks, len(outcomes)
    whole = sorted(outcome.ticks / unit for outcome in outcomes)
    lost = sorted((outcome.ticks - outcome.first_timeout_ticks) / unit for outcome in outcomes)
    high, highest = int(count * 0.9), int(count * 0.99)
    share = sum(outcome.split > 0 for outcome in outcomes) / count
    return (
        f"{median(whole):6.3f} {whole[high]:6.3f} {whole[highest]:6.3f} {whole[-1]:6.3f} | "
        f"{median(lost):6.3f} {fmean(lost):6.3f} {lost[highest]:6.3f} | "
        f"{share:6.1%} {max(outcome.split for outcome in outcomes):5d} "
        f"{max(outcome.terms for outcome in outcomes):5d} "
        f"{sum(outcome.deposed for outcome in outcomes):7d} "
        f"{fmean(outcome.pre_rounds for outcome in outcomes):5.2f} "
        f"{sum(outcome.winner_lagged for outcome in outcomes):6d}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--voters", type=int, action="append")
    arguments = parser.parse_args()
    print("from the death of a leader to the first commit of the next, in election timeouts;")
    print("without the time until the first server noticed; and what it took")
    print(f"{'':>{KIND_WIDTH}}   {HEAD}")
    for kind in arguments.kind or KINDS:
        for voters in arguments.voters or (3, 5, 7):
            setting = Setting(voters=voters, **KINDS[kind])
            if setting.lagging > (voters - 1) // 2:
                # Then what they lack would not be committed.
                continue
            outcomes = [succession(setting, seed) for seed in range(arguments.runs)]
            print(f"{kind:>{KIND_WIDTH}} {voters} {report(setting, outcomes)}", flush=True)


if __name__ == "__main__":
    main()
