"""What a client does until it has an answer, as steps that a driver takes.

A call is a generator. It yields steps, each to be taken before the next is asked for, and returns
the answer. It has neither sockets nor waiting, and its clock and its randomness are handed in, so
that blocking sockets and trio drive the very same rules.

What a lost answer means decides everything here. A request that changes something carries a
session and a serial, so it may be sent again, to any server, as often as needed: the cluster does
it once (dissertation section 6.3). When time runs out before an answer came, the outcome is
unknown, and the error says so instead of guessing.
"""

from __future__ import annotations

import functools
import os
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import TypeAlias, TypeVar

import attrs

from raftd.client.deadlines import Deadline
from raftd.client.errors import (
    CertificateRefused,
    ClientClosed,
    ClientError,
    ConnectionProblem,
    NoCluster,
    NoLeader,
    OutcomeUnknown,
    Refused,
    ServerTooOld,
    SessionExpired,
    Unavailable,
    UnexpectedReply,
    Unreachable,
    WriteInterrupted,
    error_of,
    unknown_of,
)
from raftd.client.judging import (
    ANSWERED,
    SILENT,
    Failure,
    Judge,
    answered_by_blank_servers,
    judge_leader,
    judge_status,
    may_be_repeated,
    only_reads,
    says_nothing_of_before,
    version_min,
)
from raftd.client.members import Members
from raftd.client.sessions import Session
from raftd.config_values import format_duration
from raftd.protocol import (
    REVISION_GONE,
    ErrorReply,
    OpenSessionRequest,
    Reply,
    Request,
    StatusReply,
    StatusRequest,
    WatchRequest,
    Welcome,
)

CONNECT_TIMEOUT_MS = 2_000.0
"""To connect and be welcomed. A machine that is gone must not use up the time of the others."""
REPLY_TIMEOUT_MS = 5_000.0
"""For one answer. Longer than any election; a server that is stopped is then left for the next."""
RETRY_MS_MIN = 10.0
"""The first pause between two rounds over all servers; it doubles."""
RETRY_MS_MAX = 100.0
"""The longest pause: half of it is lost by a call that waits for a leader, which takes between a
few milliseconds and some election timeouts; and a round costs each server little."""
RETRY_SPREAD = 0.25
"""A pause is up to so much shorter or longer, so that many clients do not come back at once."""
NOTICE_MS = 2_000.0
"""Silence after which a person is told what is being waited for."""

Value = TypeVar("Value")


@attrs.define(kw_only=True, repr=False, eq=False)
class Ask:
    """A step: ask the server at `address`, over a connection that is there or a new one."""

    address: str
    request: Request
    deadline: Deadline
    connect_timeout_ms: float
    """At most so long to connect and be welcomed."""
    reply_timeout_ms: float
    """At most so long from then on for the reply."""
    sent: bool = False
    """Set by the driver: from here on the request may have reached the server."""
    reply: Reply | None = None
    """Set by the driver, or `problem` is."""
    problem: ConnectionProblem | None = None


@attrs.define(kw_only=True, repr=False, eq=False)
class Pause:
    """A step: let time pass before the servers are asked again, but not beyond `deadline`."""

    duration_ms: float
    deadline: Deadline


@attrs.define(kw_only=True, repr=False, eq=False)
class FindSession:
    """A step: have a session that takes a write. The driver opens one if there is none."""

    deadline: Deadline
    session: Session | None = None
    """Set by the driver."""


Step: TypeAlias = Ask | Pause | FindSession
Steps: TypeAlias = Generator[Step, None, Value]


def random_fraction() -> float:
    """Return a number from 0 up to 1, without what the module `random` costs at the start."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


class Calls:
    """All calls of one client: what they have in common, and how each begins.

    Args:
        members: whom to ask.
        clock: seconds that never go back.
        random: returns a number from 0 up to 1, to spread repetitions over time.
        notice: told, once in a call, what is being waited for.
    """

    def __init__(
        self,
        members: Members,
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_fraction,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.members = members
        self.clock = clock
        self.random = random
        self.notice = notice

    def ask(
        self,
        request: Request,
        deadline: Deadline,
        *,
        reply_timeout_ms: float = REPLY_TIMEOUT_MS,
        judge: Judge = judge_leader,
        sent_before: bool = False,
    ) -> Steps[Reply]:
        """Return the leader's reply to `request`, which is never an `ErrorReply`.

        Tries all addresses, follows what servers say about the leader, also to servers that it was
        not given, and goes on while there is no leader until `deadline`. A request that every
        server answers (status, operations, stale reads) is answered by the first one asked.

        Args:
            request: what to ask.
            deadline: when to give up.
            reply_timeout_ms: after which a server that does not answer is left for the next one.
            judge: says which replies count.
            sent_before: whether it may have happened already.

        Raises:
            NotApplied: it was not done, see its subclasses.
            OutcomeUnknown: it was sent, and no answer came in time.
            WriteInterrupted: Ctrl-C, and it may have happened.
        """
        call = _Call(self, request, deadline, reply_timeout_ms, judge)
        call.may_have_happened = sent_before
        try:
            reply = yield from call.run()
        except KeyboardInterrupt:
            if call.is_open:
                raise WriteInterrupted from None
            raise
        except ClientClosed:
            if call.is_open:
                raise call.unknown() from None
            raise
        return reply

    def leader_status(self, deadline: Deadline) -> Steps[StatusReply]:
        """Return the status of the leader, as a leader that a quorum has confirmed gives it.

        Its `configuration` is not None.

        Raises:
            Unavailable: there was no such leader before `deadline`.
            UnexpectedReply: what answers as the leader cannot be one.
        """
        status = yield from self.ask(StatusRequest(), deadline, judge=judge_status)
        if not isinstance(status, StatusReply):
            raise UnexpectedReply(f"a {type(status).__name__} instead of a StatusReply")
        if status.configuration is None:
            raise UnexpectedReply(
                "the leader does not know its configuration",
                cause=f"{status.server} answers as the leader of term {status.term} without one",
            )
        return status

    def open_session(self, deadline: Deadline) -> Steps[Session]:
        """Return a new session of the cluster. It is durable on a majority by then.

        Raises:
            NotApplied: there is none.
        """
        session = Session()
        yield from self.ask(OpenSessionRequest(session=session.id), deadline)
        return session

    def write(
        self,
        build: Callable[[str, int, int], Request],
        deadline: Deadline,
        *,
        reply_timeout_ms: float = REPLY_TIMEOUT_MS,
    ) -> Steps[Reply]:
        """Do exactly once what `build(session, serial, lowest_unacknowledged)` asks for.

        A lost connection or an unknown outcome is followed by the same request with the same
        session and serial, until the cluster answers. It is durable on a majority by then.

        Raises:
            As `ask`.
        """
        for is_last in (False, True):
            found = FindSession(deadline=deadline)
            yield found
            session = found.session
            assert session is not None
            serial = session.take()
            keep = False
            try:
                request = build(session.id, serial, session.lowest)
                return (yield from self.ask(request, deadline, reply_timeout_ms=reply_timeout_ms))
            except Refused as error:
                if error.code != "session-expired":
                    raise
                session.expired = True
                # Not executed, since this was its first and only answer: a new session is safe.
                if is_last:
                    raise
            except SessionExpired:
                session.expired = True
                raise
            except OutcomeUnknown as error:
                # Whoever settles it needs the answer that the cluster keeps.
                error.release = functools.partial(session.answered, serial)
                keep = True
                raise
            finally:
                if not keep:
                    session.answered(serial)
        raise AssertionError("unreachable")


class _Call:
    """One request on its way to whoever can answer it."""

    def __init__(
        self,
        calls: Calls,
        request: Request,
        deadline: Deadline,
        reply_timeout_ms: float,
        judge: Judge,
    ) -> None:
        self._calls = calls
        self._members = calls.members
        self._request = request
        self._deadline = deadline
        self._reply_timeout_ms = reply_timeout_ms
        self._judge = judge
        self._failures: dict[str, Failure] = {}
        self._started_s = calls.clock()
        self._noticed = False
        self._asking: Ask | None = None
        self.may_have_happened = False
        """Whether the request changes something and may have reached a leader's log, by what those
        have answered or not answered whose turn is over."""

    @property
    def is_open(self) -> bool:
        """Whether it may have happened, the server included that is being asked just now."""
        asking = self._asking is not None and self._asking.sent
        return self.may_have_happened or (asking and not only_reads(self._request))

    def run(self) -> Steps[Reply]:
        """Return the first reply that passes the judge."""
        pause_ms = RETRY_MS_MIN
        while True:
            reply = yield from self._round()
            if reply is not None:
                return reply
            if self._deadline.expired or self._is_hopeless():
                raise self._give_up()
            self._maybe_notice()
            spread = 1 + RETRY_SPREAD * (2 * self._calls.random() - 1)
            yield Pause(duration_ms=pause_ms * spread, deadline=self._deadline)
            pause_ms = min(2 * pause_ms, RETRY_MS_MAX)

    def _round(self) -> Steps[Reply | None]:
        """Ask each server at most once, the supposed leader and those pointed at first."""
        members = self._members
        waiting = deque(members.leader_first())
        asked: set[str] = set()
        while waiting and not self._deadline.expired:
            address = waiting.popleft()
            if address in asked:
                continue
            asked.add(address)
            reply = yield from self._try(address, others=len(set(waiting) - asked))
            if reply is not None:
                members.remember_leader(address)
                return reply
            members.forget_leader(address)
            pointed_at = self._failures[address].leader_address
            if pointed_at in members.addresses:
                waiting.appendleft(pointed_at)
        return None

    def _try(self, address: str, others: int) -> Steps[Reply | None]:
        """Return a reply that passes the judge, or None with the failure noted."""
        ask = self._asking = self._step(address, others)
        yield ask
        self._asking = None
        if ask.problem is not None:
            problem = ask.problem
            if problem.sent and not only_reads(self._request):
                self.may_have_happened = True
            hurried = ask.connect_timeout_ms < CONNECT_TIMEOUT_MS and not problem.sent
            self._note(address, Failure(reason=str(problem), kind=problem.kind), hurried=hurried)
            self._give_up_unless_repeatable()
            return None
        reply = ask.reply
        assert reply is not None
        self._members.learn_from(reply)
        failure = self._judge(reply)
        if failure is not None:
            if isinstance(reply, ErrorReply) and reply.code == "unknown-outcome":
                self.may_have_happened = not only_reads(self._request)
            self._note(address, failure)
            self._give_up_unless_repeatable()
            return None
        if isinstance(reply, ErrorReply):
            # A refusal says that this attempt changed nothing; an earlier one still may have.
            raise self._refused(reply)
        return reply

    def _step(self, address: str, others: int) -> Ask:
        """Return the question to the server at `address`; `others` have not had their turn."""
        connect_timeout_ms = CONNECT_TIMEOUT_MS
        remaining_s = self._deadline.remaining_s()
        if remaining_s is not None:
            # Everybody gets a turn: whoever reads the error must learn about each server.
            connect_timeout_ms = min(connect_timeout_ms, 1000 * remaining_s / (others + 1))
        return Ask(
            address=address,
            request=self._request,
            deadline=self._deadline,
            connect_timeout_ms=connect_timeout_ms,
            reply_timeout_ms=self._reply_timeout_ms,
        )

    def _give_up_unless_repeatable(self) -> None:
        if self.may_have_happened and not may_be_repeated(self._request):
            raise self.unknown()

    def _note(self, address: str, failure: Failure, *, hurried: bool = False) -> None:
        # What was seen before the time was over says more than that it is over.
        is_over = failure.kind == "expired" or (hurried and failure.kind == "timed-out")
        if not is_over or address not in self._failures:
            self._failures[address] = failure

    def _is_hopeless(self) -> bool:
        """Whether waiting cannot help: every server says that there is no cluster, is too old to
        know what is asked, or does not have it any more (one that does not run has no more)."""
        kinds = {
            self._failures[address].kind if address in self._failures else ""
            for address in self._members.addresses
        }
        if REVISION_GONE in kinds and kinds <= {REVISION_GONE, "refused"}:
            return True
        return kinds in ({"blank"}, {"too-old"}, {"certificate"})

    def _maybe_notice(self) -> None:
        if not self._noticed and self._calls.clock() - self._started_s >= NOTICE_MS / 1000:
            self._noticed = True
            wanted = "a server" if isinstance(self._request, WatchRequest) else "a leader"
            self._calls.notice(f"waiting for {wanted}: {self._describe_failures()}")

    def _describe_failures(self) -> str:
        """Return how each server failed, on one line."""
        return "; ".join(
            f"{self._members.label(address)}: {self._describe(address)}"
            for address in self._members.addresses
        )

    def _describe(self, address: str) -> str:
        failure = self._failures.get(address)
        if failure is None:
            return "not asked in time"
        of_leader = self._failures.get(failure.leader_address)
        if of_leader is not None and of_leader.kind in SILENT:
            return f"{failure.reason}, but {failure.leader or 'that one'} does not answer"
        return failure.reason

    def _give_up(self) -> ClientError:
        if self.may_have_happened:
            return self.unknown()
        for failure in self._failures.values():
            if failure.reply is not None:
                return error_of(failure.reply)
        kinds = {failure.kind for failure in self._failures.values()}
        cause = self._describe_failures()
        if kinds == {"blank"}:
            return NoCluster("there is no cluster yet: every server is blank", cause=cause)
        if kinds == {"certificate"}:
            return CertificateRefused("no server agrees to the connection", cause=cause)
        if kinds == {"too-old"}:
            return ServerTooOld("no server is of a release that knows this request", cause=cause)
        waited_s = self._calls.clock() - self._started_s
        waited = format_duration(max(1, round(waited_s * 1000, -2)))
        was_to_write = not only_reads(self._request) or isinstance(
            self._request, OpenSessionRequest
        )
        nothing = " (nothing was changed)" if was_to_write else ""
        answered = not kinds.isdisjoint(ANSWERED)
        kind: type[Unavailable] = NoLeader if answered else Unreachable
        who = "leader" if answered else "server"
        return kind(f"no {who} answered within {waited}{nothing}", cause=cause)

    def _refused(self, reply: ErrorReply) -> ClientError:
        if not self.may_have_happened:
            return error_of(reply, self._request)
        if reply.code == "session-expired":
            return unknown_of(reply, self._request)
        if not says_nothing_of_before(self._request, reply):
            return error_of(reply, self._request)
        # The refusal speaks of the cluster as it is now, perhaps because the change was started.
        return OutcomeUnknown(
            "no answer came to the first attempt, and the repetition was refused: the change may "
            "have been started or not",
            request=self._request,
            cause=f"{reply.message}: {reply.cause}",
            operation=reply.operation,
            refused_later=True,
        )

    def unknown(self) -> OutcomeUnknown:
        """Return the error for a request that was sent and is not answered."""
        return OutcomeUnknown(
            "it was sent, but no answer came: it may or may not have taken effect",
            request=self._request,
            cause=self._describe_failures(),
        )


def check_before_asking(
    address: str, welcome: Welcome, request: Request
) -> ConnectionProblem | None:
    """Return why `request` makes no sense to the server that said `welcome`, if it makes none."""
    if not welcome.cluster_id and not answered_by_blank_servers(request):
        return ConnectionProblem(address, "blank", "blank: it belongs to no cluster yet")
    needed = version_min(request)
    if welcome.version < needed:
        reason = (
            f"its release is too old: it speaks version {welcome.version} of the protocol, this "
            f"needs {needed}"
        )
        return ConnectionProblem(address, "too-old", reason)
    return None
