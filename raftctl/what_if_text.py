"""What `raftctl what-if` prints: a prediction in words, and as a document."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from raftctl.errors import dialling
from raftctl.render import (
    COLUMN_GAP,
    display_names,
    duration,
    listed,
    natural_key,
    printable,
    table,
    width_of,
)
from raftctl.status_text import (
    Layout,
    labelled,
    lacking,
    names_of_helpers,
    survival,
)
from raftctl.what_if import Assumption, Outcome, Phase, Prediction
from raftd.cluster_status.notes import RECOVER_WORDS, has_no_majority
from raftd.cluster_status.view import ClusterView, Half
from raftd.core.availability import count_fatal_sets, fatal_sets
from raftd.core.types import ServerId, server_name

WORDS_COLUMNS_MIN = 12
"""Of what happens if one is lost, however narrow the terminal is."""
FORMAT = "1.0"
"""Version of the document. Within 1.x fields are only added."""
_COLORS = {
    Outcome.GOES_ON: "green",
    Outcome.ELECTION: "yellow",
    Outcome.CATCH_UP: "yellow",
    Outcome.STOPS: "red",
    Outcome.REFUSED: "red",
}


# --- words ---------------------------------------------------------------------------------------


def text(
    prediction: Prediction, each: Sequence[Prediction], cluster: ClusterView, layout: Layout
) -> list[str]:
    """Return all lines of `raftctl what-if`.

    Args:
        prediction: for what was asked.
        each: the loss of each server and zone by itself, to be listed; may be empty.
        cluster: as it is now.
        layout: room and colours.
    """
    lines = labelled("WHAT IF", _assumed(prediction.assumption, cluster), layout)
    head, rest = _result(prediction, cluster)
    result = labelled("RESULT", f"{head}{rest}", layout)
    # Only now, so that the colour does not count for the width.
    result[0] = result[0].replace(head, layout.paint(head, _COLORS[prediction.outcome]), 1)
    lines += result
    facts = [("LEADER", _leaders(prediction, cluster.names))] if prediction.goes_on else []
    if prediction.joint is not None:
        facts.append(("CHANGE", f"while joint: {_quorum(prediction.joint, cluster)}"))
    if prediction.outcome is not Outcome.REFUSED:
        facts += _after(prediction, cluster)
    facts += [("NOTE", note) for note in notes(prediction, cluster)]
    for label, words in facts:
        lines += labelled(label, words, layout)
    return [*lines, "", *_each_lines(each, cluster, layout)] if each else lines


def _assumed(assumption: Assumption, cluster: ClusterView) -> str:
    parts = []
    if assumption.removed:
        names = _marked(assumption.removed, cluster)
        parts.append(f"{listed(names)} {'is' if len(names) == 1 else 'are'} removed")
    if assumption.lost:
        names = _marked(assumption.lost, cluster)
        parts.append(f"{listed(names)} {'is' if len(names) == 1 else 'are'} lost")
        if assumption.lost_zones:
            zones = "zone" if len(assumption.lost_zones) == 1 else "zones"
            parts[-1] += f" ({zones} {listed(assumption.lost_zones)})"
    return ", then ".join(parts) or "nothing fails: this is how it is now"


def _marked(servers: Iterable[ServerId], cluster: ClusterView) -> list[str]:
    """Return the names in order, with the leader marked."""
    leader = cluster.leader.server if cluster.leader is not None else ""
    names = cluster.names
    return [
        f"{names[server]} (leader)" if server == leader else names[server]
        for server in sorted(servers, key=natural_key)
    ]


def _result(prediction: Prediction, cluster: ClusterView) -> tuple[str, str]:
    """Return what becomes of writes: the head, which is coloured, and the rest."""
    names = cluster.names
    match prediction.outcome:
        case Outcome.REFUSED:
            assert prediction.joint is not None
            helpers = names_of_helpers(cluster)
            short = "; ".join(
                lacking(half, helpers) for half in prediction.joint.halves if half.spare < 0
            )
            return "THE REMOVAL WOULD BE REFUSED", f": {short}"
        case Outcome.STOPS:
            short = "; ".join(_alive(half) for half in prediction.phase.halves if half.spare < 0)
            return "WRITES STOP", f": {short}"
        case Outcome.CATCH_UP:
            waits = listed((names[server] for server in prediction.waits_for), "or")
            lag = "has to catch up first"
            return "WRITES WAIT", f"{_delay(prediction)}: a majority needs {waits}, which {lag}"
        case Outcome.ELECTION:
            return "WRITES GO ON", f" after an election{_delay(prediction)}"
        case _ if prediction.hands_over:
            assert cluster.leader is not None
            leader = server_name(cluster.leader.server)
            return "WRITES GO ON", f"; {leader} leads until it is removed, then hands over"
        case _:
            return "WRITES GO ON", f", {names[prediction.leader]} leads"


def _delay(prediction: Prediction) -> str:
    if prediction.delay_ms is None:
        return " for a time that nobody can say yet"
    about = "at least" if prediction.delay_is_minimum else "about"
    return f", {about} {duration(prediction.delay_ms)}" if prediction.delay_ms else ""


def _alive(half: Half) -> str:
    voters = f"{half.which} voters" if half.which else "voters"
    is_or_are = "is" if len(half.alive) == 1 else "are"
    needed = "is" if half.needed == 1 else "are"
    return (
        f"{len(half.alive) or 'none'} of {len(half.voters)} {voters} {is_or_are} alive, "
        f"{half.needed} {needed} needed"
    )


def _leaders(prediction: Prediction, names: dict[ServerId, str]) -> str:
    others = [names[server] for server in prediction.could_lead if server != prediction.leader]
    if prediction.leader:
        stays = f"{names[prediction.leader]} goes on leading"
        return f"{stays}; {listed(others, 'or')} could take over" if others else stays
    if not others:
        return "nobody that is left can be elected"
    return f"{listed(others, 'or')} can be elected"


def _quorum(phase: Phase, cluster: ClusterView) -> str:
    halves = " and ".join(f"{half.needed} of {{{' '.join(half.voters)}}}" for half in phase.halves)
    words = survival(phase.quorums, phase.dead, cluster.names, cluster.zones)
    return f"needs {halves}; {words}"


def _after(prediction: Prediction, cluster: ClusterView) -> list[tuple[str, str]]:
    phase = prediction.phase
    if prediction.outcome is Outcome.STOPS:
        gone = {cluster.names[server] for server in cluster.dead - cluster.helpers}
        short = [half for half in phase.halves if half.spare < 0]
        hopeless = sorted({name for half in short for name in gone & {*half.dead}}, key=natural_key)
        if any(-half.spare > len({*half.dead} - gone) for half in short):
            run = "runs" if len(hopeless) == 1 else "run"
            return [("AFTER", f"it cannot go on: {listed(hopeless)} {run} without the data")]
        return [("AFTER", f"it goes on once {'; '.join(_comeback(half, gone) for half in short)}")]
    quorum = "; ".join(map(_alive, phase.halves))
    after = survival(phase.quorums, phase.dead, cluster.names, cluster.zones)
    if not prediction.assumption.removed and not prediction.assumption.lost:
        return [("QUORUM", quorum), ("NOW", after)]
    facts = [("QUORUM", quorum), ("AFTER", after)]
    if cluster.leader is not None:
        now = survival(cluster.quorums, cluster.dead, cluster.names, cluster.zones)
        facts.append(("NOW", now))
    return facts


def _comeback(half: Half, gone: Collection[str]) -> str:
    """Return who has to come back; those in `gone` are there already, and are no help."""
    short = -half.spare
    dead = [name for name in half.dead if name not in gone]
    data = f" with {'its' if short == 1 else 'their'} data" if len(dead) < len(half.dead) else ""
    if short == len(dead):
        return f"{listed(dead)} {'is' if short == 1 else 'are'} back{data}"
    if short == 1:
        return f"{listed(dead, 'or')} is back{data}"
    return f"{short} of {' '.join(dead)} are back{data}"


def notes(prediction: Prediction, cluster: ClusterView) -> list[str]:
    """Return what else whoever asks this should know, one sentence each."""
    assumption, names = prediction.assumption, cluster.names
    found = []
    gone = sorted(assumption.lost & cluster.dead, key=natural_key)
    if gone:
        do = "does" if len(gone) == 1 else "do"
        found.append(f"{listed(names[server] for server in gone)} {do} not count now either")
    rows = {row.server: row for row in cluster.members}
    learners = [server for server in assumption.lost if rows[server].vote == "learner"]
    if learners:
        known = listed(sorted((names[server] for server in learners), key=natural_key))
        found.append(f"{known} {'has' if len(learners) == 1 else 'have'} no vote")
    if assumption.removed and cluster.operation is not None:
        found.append(
            f"{cluster.operation.record.id} runs: a removal has to wait until it has ended"
        )
    voters = len(prediction.phase.halves[-1].voters)
    if prediction.joint is not None and prediction.goes_on and voters % 2 == 0:
        found.append(f"{voters} voters survive no more failures than {voters - 1}")
    if prediction.rolls_back:
        found.append(
            "the leader rolls the change back by itself where it still can, and the old voters go "
            "on alone"
        )
    living = sorted({name for half in prediction.phase.halves for name in half.alive})
    if prediction.outcome is Outcome.STOPS and living:
        answer = "answers" if len(living) == 1 else "answer"
        found.append(
            f"linearizable reads stop too; {listed(living)} still {answer} `raftctl get --stale`"
        )
    if has_no_majority(cluster):
        found.append(f"no majority can be reached even now; {RECOVER_WORDS}")
    return [dialling(note, cluster.command) for note in found]


def _each_lines(each: Sequence[Prediction], cluster: ClusterView, layout: Layout) -> list[str]:
    headers = ("IF LOST", "SURVIVES", "THEN")
    found = []
    for prediction in each:
        zones = prediction.assumption.lost_zones
        who = f"zone {zones[0]}" if zones else _marked(prediction.assumption.lost, cluster)[0]
        found.append((printable(who), prediction))
    before = max(width_of(cell) for cell in (headers[0], *(who for who, _ in found)))
    before += len(headers[1]) + 2 * len(COLUMN_GAP)
    rows = []
    for who, prediction in found:
        left = str(prediction.phase.tolerance) if prediction.goes_on else "-"
        # What does not fit the last column goes on beneath.
        words = textwrap.wrap(
            _in_short(prediction, cluster),
            max(WORDS_COLUMNS_MIN, layout.width - before),
            break_long_words=False,
        )
        for line in words:
            rows.append((who, left, layout.paint(line, _COLORS[prediction.outcome])))
            who = left = ""
    return table(headers, rows, right={"SURVIVES"}).splitlines()


def _in_short(prediction: Prediction, cluster: ClusterView) -> str:
    match prediction.outcome:
        case Outcome.GOES_ON:
            return "goes on"
        case Outcome.ELECTION:
            return f"goes on after an election{_delay(prediction)}"
        case Outcome.CATCH_UP:
            waits = listed((cluster.names[server] for server in prediction.waits_for), "or")
            return f"waits for {waits}{_delay(prediction)}"
        case _:
            return "writes stop"


# --- the document --------------------------------------------------------------------------------


def document(
    prediction: Prediction, each: Sequence[Prediction], cluster: ClusterView
) -> dict[str, Any]:
    """Return the document of `raftctl what-if -o json`."""
    names = cluster.names

    def named(servers: Iterable[ServerId]) -> list[str]:
        return sorted((names[server] for server in servers), key=natural_key)

    assumption, phase = prediction.assumption, prediction.phase
    return {
        "format": FORMAT,
        "lost": named(assumption.lost),
        "lost_zones": list(assumption.lost_zones),
        "removed": named(assumption.removed),
        "outcome": prediction.outcome.value,
        "goes_on": prediction.goes_on,
        "delay_ms": prediction.delay_ms,
        "delay_is_minimum": prediction.delay_is_minimum,
        "waits_for": named(prediction.waits_for),
        "leader": names[prediction.leader] if prediction.leader else None,
        "could_lead": named(prediction.could_lead),
        **_phase_document(phase, cluster),
        "joint": _phase_document(prediction.joint, cluster) if prediction.joint else None,
        "notes": notes(prediction, cluster),
        "now": {
            "failure_tolerance": cluster.failure_tolerance,
            "leader": server_name(cluster.leader.server) if cluster.leader else None,
            "configuration_index": cluster.configuration.index if cluster.configuration else None,
        },
        "each": [
            {
                "lost": named(one.assumption.lost),
                "zone": one.assumption.lost_zones[0] if one.assumption.lost_zones else None,
                "outcome": one.outcome.value,
                "delay_ms": one.delay_ms,
                "failure_tolerance": max(0, one.phase.tolerance),
            }
            for one in each
        ],
    }


def _phase_document(phase: Phase, cluster: ClusterView) -> dict[str, Any]:
    names = display_names(server for half in phase.quorums for server in half)
    has_quorum = phase.tolerance >= 0
    sets = fatal_sets(phase.quorums, phase.dead) if has_quorum else ()
    zones = fatal_sets(phase.quorums, phase.dead, cluster.zones) if has_quorum else ()
    return {
        "quorums": [
            {
                "half": half.which or None,
                "voters": list(half.voters),
                "alive": list(half.alive),
                "needed": half.needed,
            }
            for half in phase.halves
        ],
        "failure_tolerance": max(0, phase.tolerance),
        "fatal_sets": [
            sorted((names[server] for server in members), key=natural_key) for members in sets
        ],
        "fatal_set_count": count_fatal_sets(phase.quorums, phase.dead) if has_quorum else 0,
        "fatal_zones": [sorted(members, key=natural_key) for members in zones],
    }
