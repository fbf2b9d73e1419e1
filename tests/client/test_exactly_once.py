"""Whatever happens to messages, leaders and sessions: what a call says of its write is true.

Several calls of one client run at the same time, step by step in any order. A model of a cluster
answers them, or does not; messages that seem lost may arrive later, also when the call is over.
"""

from __future__ import annotations

from collections import Counter

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from raftd.client.calls import Ask, Calls, FindSession, Pause, Steps
from raftd.client.deadlines import Deadline
from raftd.client.errors import (
    ClientError,
    ConnectionProblem,
    NotApplied,
    OutcomeUnknown,
    SessionExpired,
)
from raftd.client.keys import KeyCalls
from raftd.client.members import Members
from raftd.client.results import WriteResult
from raftd.client.sessions import Session
from raftd.protocol import (
    DoneReply,
    ErrorReply,
    OpenSessionRequest,
    PutRequest,
    Reply,
    Request,
    WriteReply,
)
from tests.client.scripts import ADDRESSES, Clock

CALLS = 5
STEPS_MAX = 400


@attrs.define
class Kept:
    """What the cluster keeps of a session."""

    lowest: int = 1
    results: dict[int, Reply] = attrs.field(factory=dict)


class World:
    """The replicated state, and messages that are on their way to it."""

    def __init__(self) -> None:
        self.sessions: dict[str, Kept] = {}
        self.gone: set[str] = set()
        self.executed: Counter[str] = Counter()
        self.on_the_way: list[Request] = []

    def apply(self, request: Request) -> Reply:
        if isinstance(request, OpenSessionRequest):
            if request.session in self.gone:
                return ErrorReply(code="session-expired", message="gone")
            self.sessions.setdefault(request.session, Kept())
            return DoneReply()
        assert isinstance(request, PutRequest)
        kept = self.sessions.get(request.session)
        if kept is None:
            return ErrorReply(code="session-expired", message="gone")
        kept.lowest = max(kept.lowest, request.lowest_unacknowledged)
        kept.results = {n: reply for n, reply in kept.results.items() if n >= kept.lowest}
        if request.serial < kept.lowest:
            return ErrorReply(code="session-expired", message="not applied: stale-serial")
        if request.serial not in kept.results:
            self.executed[request.key] += 1
            kept.results[request.serial] = WriteReply(applied=True, revision=len(self.executed))
        return kept.results[request.serial]

    def evict(self) -> None:
        self.gone |= self.sessions.keys()
        self.sessions.clear()


FATES = (
    *("serve",) * 6,
    *("refuse connection", "not leader", "unavailable"),
    *("lose it", "lose the answer", "arrive later"),
    *("unknown, done", "unknown, not done", "unknown, done later"),
    "evict",
)


class Client:
    """Drives several calls, as `AsyncClient` does, with fates from `data`."""

    def __init__(self, world: World, data: st.DataObject) -> None:
        self.world = world
        self.data = data
        self.clock = Clock()
        self.calls = Calls(Members(ADDRESSES), clock=self.clock, random=lambda: 0.5)
        self.keys = KeyCalls(self.calls)
        self.session: Session | None = None
        self.healthy = False

    def put(self, key: str) -> Steps[WriteResult]:
        timeout_ms = self.data.draw(st.sampled_from((2, 20, 200)))
        deadline = Deadline.after_ms(timeout_ms, self.clock)
        return self.keys.put(key, b"v", deadline, if_absent=False, if_revision=None, ttl_ms=None)

    def take(self, step: object) -> None:
        if isinstance(step, Pause):
            self.clock.now_s += step.duration_ms / 1000
        elif isinstance(step, FindSession):
            if self.session is None or not self.session.usable:
                self.session = self.drive(self.calls.open_session(step.deadline))
            step.session = self.session
        else:
            assert isinstance(step, Ask)
            self.clock.now_s += 0.001
            self.meet_fate(step)

    def drive(self, steps: Steps[object]) -> object:
        try:
            while True:
                self.take(next(steps))
        except StopIteration as end:
            return end.value

    def meet_fate(self, step: Ask) -> None:
        world = self.world
        fate = "serve" if self.healthy else self.data.draw(st.sampled_from(FATES))
        late = world.on_the_way
        if late and not self.healthy and self.data.draw(st.booleans()):
            world.apply(late.pop(self.data.draw(st.integers(0, len(late) - 1))))
        if fate == "refuse connection":
            step.problem = ConnectionProblem(step.address, "refused", "refused")
        elif fate in ("lose it", "lose the answer", "arrive later"):
            if fate == "lose the answer":
                world.apply(step.request)
            elif fate == "arrive later":
                late.append(step.request)
            step.sent = True
            step.problem = ConnectionProblem(step.address, "lost", "lost", sent=True)
        elif fate in ("not leader", "unavailable"):
            code = fate.replace(" ", "-")
            step.sent, step.reply = True, ErrorReply(code=code, message=fate)
        elif fate.startswith("unknown"):
            if fate.endswith(", done"):
                world.apply(step.request)
            elif fate.endswith("later"):
                late.append(step.request)
            step.sent, step.reply = True, ErrorReply(code="unknown-outcome", message=fate)
        else:
            if fate == "evict":
                world.evict()
            step.sent, step.reply = True, world.apply(step.request)


def run_all(client: Client, keys: list[str]) -> dict[str, WriteResult | ClientError]:
    """Run a put of each key, in steps of any order; return how each has ended."""
    ended: dict[str, WriteResult | ClientError] = {}
    running = {key: client.put(key) for key in keys}
    waiting: dict[str, object] = {}
    for _ in range(STEPS_MAX):
        if not running:
            break
        key = client.data.draw(st.sampled_from(sorted(running)))
        steps = running[key]
        try:
            if key in waiting:
                client.take(waiting.pop(key))
            waiting[key] = next(steps)
        except StopIteration as end:
            ended[key] = end.value
            del running[key]
        except ClientError as error:
            ended[key] = error
            del running[key]
    for steps in running.values():
        steps.close()
    return ended


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_a_write_says_of_itself_is_true(data: st.DataObject) -> None:
    world = World()
    client = Client(world, data)
    keys = [f"k{place}" for place in range(CALLS)]
    ended = run_all(client, keys)
    client.healthy = True
    # What it acknowledges must leave alone what is still to be settled.
    client.drive(client.put("another"))
    for key, how in ended.items():
        if isinstance(how, OutcomeUnknown) and not isinstance(how, SessionExpired):
            try:
                deadline = Deadline.after_ms(100, client.clock)
                ended[key] = client.drive(client.keys.settle(how, deadline))
            except SessionExpired as expired:
                ended[key] = expired
    client.drive(client.put("one more"))
    for request in world.on_the_way:
        world.apply(request)
    for key in keys:
        how = ended.get(key)
        if isinstance(how, WriteResult):
            assert world.executed[key] == 1
        elif isinstance(how, NotApplied):
            assert world.executed[key] == 0
        else:
            # Nobody asked, or nobody can tell any more; it is never done twice.
            assert how is None or (isinstance(how, SessionExpired) and how.session in world.gone)
            assert world.executed[key] <= 1
