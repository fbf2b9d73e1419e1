"""Calls without sockets: a clock that a test moves, and servers that answer by a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from raftd.client.calls import Ask, Calls, FindSession, Pause, Step, Steps
from raftd.client.deadlines import Deadline
from raftd.client.errors import ConnectionProblem
from raftd.client.members import Members
from raftd.client.sessions import Session
from raftd.protocol import ErrorReply, Reply, Request

Value = TypeVar("Value")
Answer = Reply | ConnectionProblem | Callable[[Ask], Reply | ConnectionProblem]

ADDRESSES = ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class Script:
    """Drives calls: answers the questions one after the other, the last answer for ever."""

    def __init__(
        self,
        *answers: Answer,
        addresses: Sequence[str] = ADDRESSES,
        random: Callable[[], float] = lambda: 0.5,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.clock = Clock()
        self.members = Members(
            addresses, names={at: f"n{place}" for place, at in enumerate(addresses, 1)}
        )
        self.calls = Calls(self.members, clock=self.clock, random=random, notice=notice)
        self.asked: list[tuple[str, Request]] = []
        self.steps: list[Step] = []
        self.session: Session | None = None
        self._answers = list(answers)

    def deadline(self, timeout_ms: float = 1_000) -> Deadline:
        """Return the moment in `timeout_ms`."""
        return Deadline.after_ms(timeout_ms, self.clock)

    def then(self, *answers: Answer) -> None:
        """Answer so from now on."""
        self._answers = list(answers)

    def drive(self, steps: Steps[Value]) -> Value:
        """Take all steps and return what they come to."""
        try:
            while True:
                self._take(next(steps))
        except StopIteration as end:
            result: Value = end.value
            return result

    def _take(self, step: Step) -> None:
        self.steps.append(step)
        if isinstance(step, Pause):
            self.clock.now_s += step.deadline.or_after_ms(step.duration_ms).remaining_s() or 0
        elif isinstance(step, FindSession):
            if self.session is None or not self.session.usable:
                self.session = Session()
            step.session = self.session
        else:
            self._answer(step)

    def _answer(self, step: Ask) -> None:
        self.asked.append((step.address, step.request))
        self.clock.now_s += 0.001
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        found = answer(step) if callable(answer) else answer
        if isinstance(found, ConnectionProblem):
            step.problem = ConnectionProblem(step.address, found.kind, str(found), sent=found.sent)
            step.sent = found.sent
        else:
            step.sent, step.reply = True, found


REFUSED = ConnectionProblem("", "refused", "connection refused")
LOST = ConnectionProblem("", "lost", "the connection was lost before the answer", sent=True)
BLANK = ConnectionProblem("", "blank", "blank: it belongs to no cluster yet")
TOO_OLD = ConnectionProblem("", "too-old", "its release is too old")
UNAVAILABLE = ErrorReply(code="unavailable", message="an election is on")
UNKNOWN = ErrorReply(code="unknown-outcome", message="leadership was lost")
EXPIRED = ErrorReply(code="session-expired", message="the session was forgotten")


def follower(leader: str = "", leader_address: str = "") -> ErrorReply:
    """Return how a follower answers."""
    return ErrorReply(code="not-leader", message="no", leader=leader, leader_address=leader_address)
