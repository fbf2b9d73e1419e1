"""Who reaches whom: the matrix of `raftctl doctor`, and what it says about the network.

Pure functions on an `Examination`. A row stands for who dials, a column for who should be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs

from raftctl.examining import Examination, Target, Visit
from raftctl.findings import Finding, Result
from raftctl.render import duration, listed, plural
from raftd.cluster_status.notes import readdressing
from raftd.config_values import parse_address
from raftd.core.types import ServerId
from raftd.protocol import ReachView, StatusRequest

REACHABILITY = "reachability"
ROUND_TRIPS = "round-trips"
RAFTCTL = "raftctl"
"""The row of the machine on which doctor runs."""
PAIRS_SHOWN_MAX = 3
"""Slow pairs that are named; of a slow network all would be."""


@attrs.frozen(kw_only=True)
class Cell:
    """What one of them has found where another one should be."""

    source: str
    """The name of a server, or `RAFTCTL`."""
    target: Target
    found: ServerId = ""
    """Who answered; empty if nobody did."""
    cluster_id: str = ""
    round_trip_ms: float | None = None
    problem: str = ""
    """Why nobody did, in words."""

    @property
    def answered(self) -> bool:
        """Whether a raftd answered there, the right one or not."""
        return bool(self.found) and not self.problem

    @property
    def ok(self) -> bool:
        """Whether exactly the right server answered."""
        return self.answered and self.found == (self.target.server or self.found)


@attrs.frozen(kw_only=True)
class Matrix:
    """All cells, and who has none because it did not look."""

    targets: tuple[Target, ...]
    cells: Mapping[tuple[str, str], Cell]
    """By the names of who dialled and of who should be there; nobody dials itself."""
    blind: Mapping[str, str]
    """Servers that did not look, and why not."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The rows: raftctl, then every server, also those that did not look."""
        return (RAFTCTL, *(target.name for target in self.targets))

    def column(self, target: Target) -> list[Cell]:
        """Return what everybody who looked has found where `target` should be."""
        found = (self.cells.get((source, target.name)) for source in self.sources)
        return [cell for cell in found if cell is not None]


def matrix(examination: Examination) -> Matrix:
    """Return who reaches whom."""
    cells: dict[tuple[str, str], Cell] = {}
    blind: dict[str, str] = {}
    for target in examination.targets:
        cells[RAFTCTL, target.name] = _own_cell(target, examination)
    for target in examination.targets:
        visit = examination.visits.get(target.server) if target.server else None
        if visit is None or visit.reaches is None:
            blind[target.name] = visit.problem if visit is not None else "it does not answer"
            continue
        for other, reach in zip(examination.targets, visit.reaches, strict=False):
            if other is not target:
                cells[target.name, other.name] = _cell(target.name, other, reach)
    return Matrix(targets=examination.targets, cells=cells, blind=blind)


def _own_cell(target: Target, examination: Examination) -> Cell:
    """Return what we have found ourselves."""
    answer = next(
        (answer for answer in examination.answers if answer.address == target.address), None
    )
    if answer is None or answer.reply is None:
        problem = answer.failure if answer is not None else "not asked"
        return Cell(source=RAFTCTL, target=target, problem=problem)
    visit = examination.visits.get(target.server)
    timed = visit is not None and visit.address == target.address
    return Cell(
        source=RAFTCTL,
        target=target,
        found=answer.reply.server,
        cluster_id=answer.reply.cluster_id,
        round_trip_ms=visit.round_trip_ms if visit is not None and timed else None,
    )


def _cell(source: str, target: Target, reach: ReachView) -> Cell:
    return Cell(
        source=source,
        target=target,
        found=reach.server,
        cluster_id=reach.cluster_id,
        round_trip_ms=reach.round_trip_ms,
        problem=_without_address(reach.problem, target.address),
    )


def _without_address(problem: str, address: str) -> str:
    """Return what a server says of its attempt; the address stands in every sentence anyway."""
    step, known, what = problem.partition(f"{address}: ")
    if not known:
        step, known, what = problem.partition(f"{address} to answer {StatusRequest.__name__}: ")
    if not known or step == "connecting to ":
        return what or problem
    return f"connected, but {what}" if what.startswith("no answer") else what


# --- reachability -----------------------------------------------------------------------------


def check_reachability(examination: Examination) -> list[Finding]:
    """Judge whether every server reaches every other one, and finds the right one there."""
    found = matrix(examination)
    findings = [finding for target in found.targets for finding in _judge_column(found, target)]
    findings += _broken_links(examination, found)
    findings += [
        Finding(
            check=REACHABILITY,
            result=Result.SKIP,
            finding=f"{name} did not dial the others: {why}",
            servers=(name,),
        )
        for name, why in found.blind.items()
        if found.cells[RAFTCTL, name].answered
    ]
    if any(finding.result in (Result.WARN, Result.FAIL) for finding in findings):
        return findings
    return [_whole(found, examination), *findings]


def _whole(found: Matrix, examination: Examination) -> Finding:
    """Return the finding where nobody reaches less than the others do."""
    nobody_there = [target.name for target in found.targets if _is_dead(found, target)]
    alive = [target.name for target in found.targets if target.name not in nobody_there]
    if not alive:
        return _nobody(nobody_there, examination)
    dead = f"; nobody reaches {listed(nobody_there)}" if nobody_there else ""
    if len(alive) == 1:
        text = f"{alive[0]} is the only server{' that answers' if dead else ''}"
    else:
        text = f"{listed(alive)} reach each other"
    return Finding(check=REACHABILITY, result=Result.PASS, finding=f"{text}{dead}")


def _nobody(names: list[str], examination: Examination) -> Finding:
    """Return the finding where no address of the configuration leads anywhere."""
    cluster = examination.cluster
    moved = cluster.relocated if cluster.leader is not None else ()
    text = f"nobody reaches {listed(names, 'or')} at the addresses of the configuration"
    elsewhere = [name for name, _, _ in cluster.relocated]
    if elsewhere:
        text += f"; {listed(elsewhere)} {'answers' if len(elsewhere) == 1 else 'answer'} "
        text += "where the cluster file says"
    return Finding(
        check=REACHABILITY,
        result=Result.FAIL,
        finding=text,
        remedy="take them to their new addresses with"
        if moved
        else "start them there, or bring up the network",
        command=readdressing(moved) if moved else "",
        servers=tuple(names),
    )


def _is_dead(found: Matrix, target: Target) -> bool:
    return not any(cell.answered for cell in found.column(target))


def _judge_column(found: Matrix, target: Target) -> Iterator[Finding]:
    column = found.column(target)
    yield from _judge_answers(target, column)
    failing = [cell for cell in column if not cell.answered]
    reaching = [cell.source for cell in column if cell.answered]
    # That it answers nobody is no matter of the network: see the members.
    if not failing or not reaching:
        return
    servers = [cell for cell in failing if cell.source != RAFTCTL]
    if not servers:
        yield Finding(
            check=REACHABILITY,
            result=Result.WARN,
            finding=f"raftctl does not reach {target.name} at {target.address} "
            f"({failing[0].problem}), but {listed(reaching)} "
            f"{'does' if len(reaching) == 1 else 'do'}: the cluster does not suffer from it",
            remedy=f"look at the way from here to {target.address}",
            servers=(target.name,),
        )
        return
    for problem in dict.fromkeys(cell.problem for cell in servers):
        sources = [cell.source for cell in servers if cell.problem == problem]
        yield _one_way(found, target, sources, problem, reaching)


def _one_way(
    found: Matrix, target: Target, sources: list[str], problem: str, reaching: list[str]
) -> Finding:
    """Return the finding for servers that do not reach one that others do reach."""
    verb, do = ("does", "does") if len(sources) == 1 else ("do", "do")
    do = "does" if len(reaching) == 1 else "do"
    text = (
        f"{listed(sources)} {verb} not reach {target.name} at {target.address}: "
        f"{problem}; {listed(reaching)} {do}"
    )
    back = [
        source
        for source in sources
        for cell in [found.cells.get((target.name, source))]
        if cell is not None and cell.answered
    ]
    if back:
        text += f", and {target.name} reaches {listed(back)}: one direction is blocked"
    host, port = parse_address(target.address)
    machine = "machine" if len(sources) == 1 else "machines"
    return Finding(
        check=REACHABILITY,
        result=Result.FAIL,
        finding=text,
        remedy=f"look at firewalls, routes and host names on the {machine} of {listed(sources)}, "
        f"with `nc -vz {host} {port}`",
        servers=(*sources, target.name),
    )


def _judge_answers(target: Target, column: Sequence[Cell]) -> Iterator[Finding]:
    """Judge who answers where `target` should be, if not everybody finds the same."""
    wrong = [cell for cell in column if cell.answered and not cell.ok]
    if len({cell.found for cell in column if cell.answered}) < 2:
        # Everybody finds the same server; if it is the wrong one, see the members.
        return
    for found in dict.fromkeys(cell.found for cell in wrong):
        cells = [cell for cell in wrong if cell.found == found]
        sources = [cell.source for cell in cells]
        finds = "finds" if len(sources) == 1 else "find"
        of_cluster = f" of cluster {cells[0].cluster_id}" if cells[0].cluster_id else ", blank"
        yield Finding(
            check=REACHABILITY,
            result=Result.FAIL,
            finding=f"{listed(sources)} {finds} another server at {target.address}, the address of "
            f"{target.name}: {found}{of_cluster}; others do not",
            remedy=f"let {target.address} mean the same machine everywhere: compare the host names "
            f"and routes of {listed(sources)} with those of the others",
            servers=(*(source for source in sources if source != RAFTCTL), target.name),
        )


def _broken_links(examination: Examination, found: Matrix) -> Iterator[Finding]:
    """Judge connections that are down between servers that can dial each other."""
    names = {target.server: target.name for target in found.targets if target.server}
    for server, visit in examination.visits.items():
        for link in visit.status.links if visit.status is not None else ():
            cell = found.cells.get((names.get(server, ""), names.get(link.server, "")))
            if link.connected or cell is None or not cell.ok:
                continue
            yield Finding(
                check=REACHABILITY,
                result=Result.WARN,
                finding=f"{cell.source} can dial {cell.target.name}, but its own connection to it "
                f"is down: {link.problem}",
                remedy="look again in a few seconds; if it stays so, look into the log of "
                f"{cell.source}",
                servers=(cell.source, cell.target.name),
            )


# --- round trips ------------------------------------------------------------------------------


def check_round_trips(examination: Examination) -> list[Finding]:
    """Judge how long servers take to answer each other, by heartbeats and elections.

    Over the heartbeat interval a follower hears of each commit a heartbeat late; over half of the
    election timeout two lost answers in a row depose the leader.
    """
    found = matrix(examination)
    pairs = [
        (cell.round_trip_ms, cell.source, cell.target.name)
        for cell in found.cells.values()
        if cell.source != RAFTCTL and cell.ok and cell.round_trip_ms is not None
    ]
    limits = _limits(examination.visits)
    if not pairs or limits is None:
        return [
            Finding(
                check=ROUND_TRIPS,
                result=Result.SKIP,
                finding="no two servers have answered each other"
                if len(found.targets) > 1
                else "there is only one server",
            )
        ]
    heartbeat_ms, election_ms = limits
    pairs.sort(reverse=True)
    slowest_ms, source, target = pairs[0]
    if slowest_ms <= heartbeat_ms:
        return [
            Finding(
                check=ROUND_TRIPS,
                result=Result.PASS,
                finding=f"{_fine(slowest_ms)} at most ({source} to {target}), within the heartbeat "
                f"interval of {duration(heartbeat_ms)}",
            )
        ]
    slow = [pair for pair in pairs if pair[0] > heartbeat_ms]
    named = [f"{one} to {other} {_fine(ms)}" for ms, one, other in slow[:PAIRS_SHOWN_MAX]]
    more = f" and {plural(len(slow) - len(named), 'more pair')}" if len(slow) > len(named) else ""
    fails = slowest_ms > election_ms / 2
    limit = (
        f"over half of the election timeout of {duration(election_ms)}"
        if fails
        else f"over the heartbeat interval of {duration(heartbeat_ms)}"
    )
    return [
        Finding(
            check=ROUND_TRIPS,
            result=Result.FAIL if fails else Result.WARN,
            finding=f"{limit}: {', '.join(named)}{more}",
            remedy="set heartbeat_interval to more than the slowest round trip and "
            "election_timeout to ten times that, in the file of every server, and restart them "
            "one at a time",
            servers=tuple(dict.fromkeys(name for pair in slow for name in pair[1:])),
        )
    ]


def _limits(visits: Mapping[ServerId, Visit]) -> tuple[float, float] | None:
    """Return the shortest heartbeat interval and election timeout of any server."""
    known = [
        visit.status
        for visit in visits.values()
        if visit.status is not None and visit.status.heartbeat_interval_ms
    ]
    if not known:
        return None
    return (
        min(status.heartbeat_interval_ms for status in known),
        min(status.election_timeout_ms for status in known),
    )


def _fine(milliseconds: float) -> str:
    """Return a short time with one digit more than `duration` has below 10 ms."""
    return f"{milliseconds:.1f}ms" if milliseconds < 10 else duration(milliseconds)


# --- for people and programs ------------------------------------------------------------------

_SHORT = (
    ("refused", "refused"),
    ("no answer", "silent"),
    ("no connection within", "silent"),
    ("resolved", "no name"),
    ("name or service", "no name"),
    ("no address", "no name"),
    ("unreachable", "no route"),
    ("no route", "no route"),
    ("closed", "closed"),
    ("reset", "closed"),
    ("broken", "closed"),
    ("raftd", "no raftd"),
)


def short(cell: Cell) -> str:
    """Return a cell in one or two short words: its round trip, or what failed."""
    if cell.ok:
        return _fine(cell.round_trip_ms) if cell.round_trip_ms is not None else "ok"
    if cell.answered:
        return "wrong"
    problem = cell.problem.lower()
    return next((word for part, word in _SHORT if part in problem), "failed")


def document(found: Matrix) -> list[dict[str, object]]:
    """Return the matrix as JSON has it, one object for each cell."""
    return [
        {
            "from": cell.source,
            "to": cell.target.name,
            "address": cell.target.address,
            "ok": cell.ok,
            "round_trip_ms": None if cell.round_trip_ms is None else round(cell.round_trip_ms, 3),
            "found": cell.found or None,
            "problem": cell.problem,
        }
        for cell in found.cells.values()
    ]
