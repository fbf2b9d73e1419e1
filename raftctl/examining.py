"""Asks all that `raftctl doctor` judges: every server how it is, and each to dial all the others.

First a survey, as for status. Then every server that has answered is visited in person, all at
once: some questions to take the time of, and one checkup, in which it dials the members itself.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from raftctl.client import Connection, ConnectionProblem, Deadline
from raftctl.endpoints import Endpoints
from raftctl.render import display_names, listed, natural_key
from raftctl.status import SETTLE_ATTEMPTS, SETTLE_MS_MAX, SETTLE_MS_MIN
from raftctl.survey import ANSWER_TIMEOUT_MS, survey
from raftd.cluster_status.answers import Answer
from raftd.cluster_status.view import ClusterView, view
from raftd.config import ClusterConfig
from raftd.config_values import format_duration
from raftd.core.types import ServerId, server_name
from raftd.protocol import (
    CHECKUP_ADDRESSES_MAX,
    CheckupReply,
    CheckupRequest,
    ErrorReply,
    OperationsReply,
    OperationsRequest,
    OperationView,
    ReachView,
    Reply,
    StatusReply,
    StatusRequest,
)

if TYPE_CHECKING:
    import ssl

ROUND_TRIPS = 3
"""Questions whose time is taken. The quickest tells of the network, the others also of whatever the
server was doing just then."""
CHECKUP_VERSION = 3
"""Servers that speak an older version of the wire format know no checkup."""
DIAL_TIMEOUT_MS = 2_000.0
"""For each server to reach another one: as long as `raftctl` itself gives them."""
GRACE_MS = 1_000.0
"""On top of it, until the answer of a checkup is here."""
BUSY_PAUSE_S = 0.3
"""A server that is busy with the checkups of others is asked again after this."""
SURVEY_SHARE = 0.4
"""Of `--timeout`, for finding out who answers; the rest is for the visits."""
DIAL_SHARE = 0.6
"""Of what is left then, for the servers to reach each other."""
LAST_WORDS_S = 0.1
"""After the end of all time-outs: until those who ran into them have said so."""
NOTICE_S = 0.7
"""Silence after which a person is told what is being waited for."""


@attrs.frozen(kw_only=True)
class Target:
    """Somebody whom every server should reach."""

    server: ServerId
    """Who should be there; empty where nobody knows."""
    name: str
    address: str


@attrs.frozen(kw_only=True)
class Visit:
    """What came of visiting one server."""

    server: ServerId
    """Who was expected."""
    address: str
    """Where it was visited."""
    status: StatusReply | None = None
    round_trip_ms: float | None = None
    """Of the quickest question."""
    clock_ahead_ms: float | None = None
    """How far its clock is ahead of ours, give or take half of the round trip; None if unknown."""
    reaches: tuple[ReachView, ...] | None = None
    """What it found at the addresses of all targets, in their order; None if it did not look."""
    problem: str = ""
    """Why it did not."""
    operations: tuple[OperationView, ...] = ()
    """Those that it knows, if it was asked."""


@attrs.frozen(kw_only=True)
class Examination:
    """All that was found out. Findings, text and document are made from this and nothing else."""

    cluster: ClusterView
    answers: tuple[Answer, ...] = ()
    targets: tuple[Target, ...] = ()
    visits: Mapping[ServerId, Visit] = attrs.field(factory=dict)
    """By who was expected, for those who answered."""
    config: ClusterConfig | None = None
    """The cluster file, if one says where to dial."""
    now_ms: float = 0
    """Milliseconds since 1970 by our clock."""

    @property
    def operations(self) -> tuple[OperationView, ...]:
        """The operations that run, as the leader tells them or whoever is furthest."""
        told = [operation for visit in self.visits.values() for operation in visit.operations]
        running = tuple(operation for operation in told if operation.record.running)
        if not running and self.cluster.operation is not None:
            return (self.cluster.operation,)
        return running


def examine(
    endpoints: Endpoints, *, timeout_ms: float, notice: Callable[[str], None]
) -> Examination:
    """Return what all servers say, within about `timeout_ms`.

    Args:
        endpoints: where to dial first.
        timeout_ms: for all of it; 0 means for ever, which is a few seconds.
        notice: told what is being waited for, if that is noticeable.
    """
    deadline = Deadline.after_ms(timeout_ms)
    answers, cluster = _look(endpoints, timeout_ms, deadline, notice)
    targets = targets_of(cluster)
    visits = _Visits(cluster, answers, targets, deadline, notice, endpoints.tls).run()
    return Examination(
        cluster=cluster,
        answers=tuple(answers),
        targets=targets,
        visits=visits,
        config=endpoints.config,
        now_ms=time.time() * 1000,
    )


def _look(
    endpoints: Endpoints, timeout_ms: float, deadline: Deadline, notice: Callable[[str], None]
) -> tuple[list[Answer], ClusterView]:
    """Return the answers of all servers; again where they differ as they do for a moment."""
    name, zones = "", {}
    if endpoints.config is not None:
        name = endpoints.config.cluster
        servers = endpoints.config.servers.values()
        zones = {server.id: server.zone for server in servers if server.zone}
    answer_timeout_ms = min(ANSWER_TIMEOUT_MS, SURVEY_SHARE * timeout_ms or ANSWER_TIMEOUT_MS)
    text = f"waiting for servers that do not answer, up to {format_duration(answer_timeout_ms)}"
    with _said_after(NOTICE_S, lambda: notice(text)):
        answers = survey(endpoints, answer_timeout_ms)
        cluster = view(answers, name, zones)
        for _ in range(SETTLE_ATTEMPTS):
            remaining_s = deadline.remaining_s()
            if not cluster.momentary or cluster.leader is None:
                break
            pause_ms = max(
                SETTLE_MS_MIN, min(2 * cluster.leader.heartbeat_interval_ms, SETTLE_MS_MAX)
            )
            if remaining_s is not None and remaining_s * 1000 < pause_ms + 2 * answer_timeout_ms:
                break
            time.sleep(pause_ms / 1000)
            answers = survey(endpoints, answer_timeout_ms)
            cluster = view(answers, name, zones)
    return answers, cluster


def targets_of(cluster: ClusterView) -> tuple[Target, ...]:
    """Return the members; where there is no configuration, everybody who was asked."""
    rows = [
        row for row in cluster.rows if row.address and (row.member or cluster.configuration is None)
    ][:CHECKUP_ADDRESSES_MAX]
    names = display_names(row.server for row in rows if row.server)
    return tuple(
        Target(server=row.server, name=names.get(row.server, row.name), address=row.address)
        for row in rows
    )


# --- visits -----------------------------------------------------------------------------------


class _Visits:
    """The threads that are on their way to the servers, and what they have brought."""

    def __init__(
        self,
        cluster: ClusterView,
        answers: Sequence[Answer],
        targets: Sequence[Target],
        deadline: Deadline,
        notice: Callable[[str], None],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._tls = tls
        self._targets = targets
        self._deadline = deadline
        self._notice = notice
        remaining_s = deadline.remaining_s()
        self._dial_timeout_ms = DIAL_TIMEOUT_MS
        if remaining_s is not None:
            self._dial_timeout_ms = min(DIAL_TIMEOUT_MS, max(1.0, DIAL_SHARE * remaining_s * 1000))
        self._source = cluster.source.server if cluster.source is not None else ""
        self._addresses = {
            target.server: address
            for target in targets
            for address in [_dialled(target, cluster, answers)]
            if target.server and address
        }
        """Where the servers that have answered can be visited."""
        self._latest = {
            server: Visit(server=server, address=address)
            for server, address in self._addresses.items()
        }
        """What is known of each visit so far."""
        self._ended: queue.SimpleQueue[ServerId] = queue.SimpleQueue()

    def run(self) -> dict[ServerId, Visit]:
        """Return a visit for each server that has answered, whatever came of it."""
        for server, address in self._addresses.items():
            # Daemons: one that hangs must not keep the command from ending.
            threading.Thread(target=self._run_one, args=(server, address), daemon=True).start()
        give_up = self._deadline.or_after_ms(ANSWER_TIMEOUT_MS + self._dial_timeout_ms + GRACE_MS)
        on_their_way = set(self._addresses)
        with _said_after(NOTICE_S, lambda: self._notice(self._waiting_text())):
            while on_their_way:
                # Whoever gives up at the same moment knows better why.
                patience_s = (give_up.remaining_s() or 0.0) + LAST_WORDS_S
                try:
                    on_their_way.remove(self._ended.get(timeout=patience_s))
                except queue.Empty:
                    break
        return {
            server: attrs.evolve(visit, problem="it did not answer in time")
            if server in on_their_way
            else visit
            for server, visit in self._latest.items()
        }

    def _waiting_text(self) -> str:
        names = listed(sorted(map(server_name, self._addresses), key=natural_key))
        have = "has" if len(self._addresses) == 1 else "have"
        return (
            f"waiting until {names} {have} dialled the others, "
            f"up to {format_duration(round(self._dial_timeout_ms))}"
        )

    def _run_one(self, server: ServerId, address: str) -> None:
        latest = self._latest
        try:
            deadline = self._deadline.or_after_ms(ANSWER_TIMEOUT_MS)
            connection = Connection.open(address, deadline, tls=self._tls)
            try:
                for visit in self._steps(latest[server], connection):
                    latest[server] = visit
            finally:
                connection.close()
        except ConnectionProblem as problem:
            latest[server] = attrs.evolve(latest[server], problem=str(problem))
        except Exception as error:
            # A thread that dies in silence would leave the others waiting for it.
            problem_words = f"{type(error).__name__}: {error}"
            latest[server] = attrs.evolve(latest[server], problem=problem_words)
        self._ended.put(server)

    def _steps(self, visit: Visit, connection: Connection) -> Iterator[Visit]:
        """Yield what is known after each step, so that a failure loses no earlier one."""
        quick = self._deadline.or_after_ms(ANSWER_TIMEOUT_MS)
        for _ in range(ROUND_TRIPS):
            visit = _timed(visit, connection, quick)
            yield visit
        if visit.server == self._source:
            reply = connection.ask(OperationsRequest(), quick)
            if isinstance(reply, OperationsReply):
                visit = attrs.evolve(visit, operations=reply.operations)
                yield visit
        status = visit.status
        if status is None or status.protocol_version_max < CHECKUP_VERSION:
            version = status.version if status is not None else "unknown"
            yield attrs.evolve(visit, problem=f"its version, {version}, knows no checkup")
            return
        yield self._checked_up(visit, connection)

    def _checked_up(self, visit: Visit, connection: Connection) -> Visit:
        request = CheckupRequest(
            addresses=tuple(target.address for target in self._targets),
            timeout_ms=self._dial_timeout_ms,
        )
        deadline = self._deadline.or_after_ms(self._dial_timeout_ms + GRACE_MS)
        reply: Reply = connection.ask(request, deadline)
        while isinstance(reply, ErrorReply) and reply.code == "unavailable":
            remaining_s = deadline.remaining_s()
            if remaining_s is not None and remaining_s < BUSY_PAUSE_S:
                break
            time.sleep(BUSY_PAUSE_S)
            reply = connection.ask(request, deadline)
        if isinstance(reply, CheckupReply):
            return attrs.evolve(visit, reaches=reply.reaches)
        refused = reply.cause or reply.message if isinstance(reply, ErrorReply) else ""
        return attrs.evolve(visit, problem=refused or f"it answered with a {type(reply).__name__}")


def _timed(visit: Visit, connection: Connection, deadline: Deadline) -> Visit:
    """Return the visit with one more question asked, if that was the quickest so far."""
    asked_ms = time.time() * 1000
    started_s = time.monotonic()
    reply = connection.ask(StatusRequest(), deadline)
    round_trip_ms = (time.monotonic() - started_s) * 1000
    if not isinstance(reply, StatusReply):
        return visit
    if visit.round_trip_ms is not None and visit.round_trip_ms <= round_trip_ms:
        return attrs.evolve(visit, status=reply)
    ahead_ms = reply.wall_clock_ms - (asked_ms + round_trip_ms / 2) if reply.wall_clock_ms else None
    return attrs.evolve(visit, status=reply, round_trip_ms=round_trip_ms, clock_ahead_ms=ahead_ms)


def _dialled(target: Target, cluster: ClusterView, answers: Sequence[Answer]) -> str:
    """Return the address at which a target has answered us, empty if it has not."""
    row = next((row for row in cluster.rows if row.server == target.server), None)
    if row is None or row.reply is None:
        return ""
    found = [
        answer.address
        for answer in answers
        if answer.reply is not None and answer.reply.server == row.reply.server
    ]
    return min(found, key=lambda address: address != target.address, default="")


@contextmanager
def _said_after(seconds: float, say: Callable[[], None]) -> Iterator[None]:
    """Call `say` unless the body ends before."""
    timer = threading.Timer(seconds, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
