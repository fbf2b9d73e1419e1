"""What a change would do: a plan as people read it, as a document, and the difference alone.

The leader works out the plan. Here it is only told: what becomes of each server, which phases the
change goes through, who has to agree in each of them, and what that survives.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import IO, Any

import attrs

from raftctl.render import (
    Style,
    configuration_document,
    display_names,
    duration,
    members_of,
    natural_key,
    plural,
    printable,
    table,
    terminal_width,
)
from raftd.cluster_status.words import size
from raftd.core.quorum import majority
from raftd.core.types import ServerId, server_name
from raftd.protocol import ConfigurationView, PlanPhase, PlanView, Quorum

PHASE_NAMES = {
    "settled": "now",
    "joining": "joining",
    "catching-up": "catching up",
    "joint": "joint",
    "final": "after",
}
"""The phases of a plan in the words of the table."""
HEADERS = ("PHASE", "HAS TO AGREE", "SURVIVES", "TAKES", "WHAT HAPPENS")
WIDTH_WITHOUT_TERMINAL = 80
QUORUM_COLUMNS_MIN = 24
"""However narrow the terminal is: a quorum of three and its names."""
WORDS_COLUMNS_MIN = 36
"""A column for the sentences, if there is so much room; narrower they are hard to read."""
WORDS_COLUMNS_MAX = 60
TABLE_GAPS = 8
"""Columns between the five of the table."""
_COLORS = {"add": "green", "remove": "red", "role": "yellow", "address": "yellow"}


# --- the difference -----------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Member:
    """A server of a configuration, or of a file that describes one."""

    name: str
    role: str
    """voter or learner."""
    address: str


@attrs.frozen(kw_only=True)
class Difference:
    """One thing that is not the same before and after."""

    change: str
    """add, remove, role or address."""
    name: str
    before: Member | None = None
    """None for a server that comes."""
    after: Member | None = None
    """None for a server that goes."""
    is_new_incarnation: bool = False
    """Another server of the same name goes."""

    def text(self) -> str:
        """Return it as a line of a diff, such as `~ n2 voter -> learner`."""
        before, after = self.before, self.after
        if before is None:
            assert after is not None
            fresh = " (new incarnation)" if self.is_new_incarnation else ""
            return f"+ {self.name} {after.address} {after.role}{fresh}"
        if after is None:
            return f"- {self.name}"
        if self.change == "role":
            return f"~ {self.name} {before.role} -> {after.role}"
        return f"~ {self.name} address {before.address} -> {after.address}"

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "change": self.change,
            "id": self.name,
            "before": _member_document(self.before),
            "after": _member_document(self.after),
        }


def _member_document(member: Member | None) -> dict[str, str] | None:
    return None if member is None else {"role": member.role, "address": member.address}


def members_by_id(view: ConfigurationView) -> dict[ServerId, Member]:
    """Return the members of a configuration; while joint, those that stay, as they will be."""
    roles = dict.fromkeys((*view.learners, *view.learners_next), "learner")
    roles |= dict.fromkeys(view.voters, "voter")
    return {
        server: Member(name=server_name(server), role=role, address=view.addresses.get(server, ""))
        for server, role in roles.items()
    }


def members_by_name(view: ConfigurationView) -> dict[str, Member]:
    """Return the members of a configuration by name, to compare them with those of a file.

    Of two incarnations the one that votes counts: the other one is about to take its place.
    """
    found = members_by_id(view).values()
    return {member.name: member for member in sorted(found, key=lambda member: member.role)}


def differences(before: Mapping[str, Member], after: Mapping[str, Member]) -> list[Difference]:
    """Return what is not the same: who comes, who goes, then who changes; n2 before n10.

    Args:
        before, after: the members, each under what tells it from all others.
    """
    gone = {before[key].name for key in before.keys() - after.keys()}
    found = [
        Difference(
            change="add",
            name=after[key].name,
            after=after[key],
            is_new_incarnation=after[key].name in gone,
        )
        for key in after.keys() - before.keys()
    ]
    found += [
        Difference(change="remove", name=before[key].name, before=before[key])
        for key in before.keys() - after.keys()
    ]
    for key in before.keys() & after.keys():
        old, new = before[key], after[key]
        for change, same in (
            ("role", old.role == new.role),
            ("address", _is_same_address(old.address, new.address)),
        ):
            if not same:
                found.append(Difference(change=change, name=new.name, before=old, after=new))
    order = list(_COLORS)
    return sorted(found, key=lambda one: (order.index(one.change), natural_key(one.name)))


def _is_same_address(first: str, second: str) -> bool:
    """Return whether two spellings mean the same place, as the leader compares them."""
    from raftd.config_values import normalise_host, parse_address

    if first == second:
        return True
    try:
        places = [parse_address(address) for address in (first, second)]
    except ValueError:
        return False
    (host, port), (other_host, other_port) = places
    return (normalise_host(host), port) == (normalise_host(other_host), other_port)


def plan_differences(plan: PlanView) -> list[Difference]:
    """Return what the plan changes."""
    return differences(members_by_id(plan.before), members_by_id(plan.after))


def differences_text(
    found: Iterable[Difference], style: Style, *, width: int | None = None
) -> list[str]:
    """Return a line for each difference; more where `width` columns are too few."""
    lines = []
    for one in found:
        pieces = [one.text()] if width is None else _wrapped(one.text(), width, "    ")
        lines += [style(piece, _COLORS[one.change]) for piece in pieces]
    return lines


def _wrapped(text: str, width: int, later: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )


def plan_width(stream: IO[str]) -> int:
    """Return how wide a plan may be on `stream`."""
    return terminal_width(stream) or WIDTH_WITHOUT_TERMINAL


def takes_away(plan: PlanView) -> bool:
    """Return whether the plan removes a server or takes its vote from one that stays."""
    votes_lost = set(plan.before.voters).difference(plan.after.voters)
    return bool(votes_lost or set(members_of(plan.before)).difference(members_of(plan.after)))


# --- for people ---------------------------------------------------------------------------------


def plan_text(plan: PlanView, style: Style, *, width: int) -> str:
    """Return the difference, the phases with their quorums, what is copied, and the warnings.

    Args:
        width: columns of the terminal. A quorum that does not fit goes on in the next line; the
            sentences about the phases are left out where there is no room for them.
    """
    lines = differences_text(plan_differences(plan), style, width=width)
    how = "one joint change" if plan.joint else "one change without a joint phase"
    origin = f"from configuration {plan.before.index}" if plan.before.index else "from one server"
    lines += ["", *_wrapped(f"{how}, {origin}:", width)]
    lines += _phases_table(plan, style, width)
    lines += _notes(plan, style, width)
    return "\n".join(lines)


def _phases_table(plan: PlanView, style: Style, width: int) -> list[str]:
    names = display_names([*members_of(plan.before), *members_of(plan.after)])
    phases = phases_of(plan)
    labels = [PHASE_NAMES.get(phase.name, phase.name) for phase in phases]
    survivals = [_survives(phase.tolerance) for phase in phases]
    times = [_about(phase.expected_ms) for phase in phases]
    columns = ((HEADERS[0], labels), (HEADERS[2], survivals), (HEADERS[3], times))
    # A column without content is not there, and neither is its header.
    narrow = sum(max(map(len, [header, *cells])) for header, cells in columns if any(cells))
    narrow += TABLE_GAPS
    if narrow + QUORUM_COLUMNS_MIN > width:
        return _phases_list(phases, labels, names, style, width)
    quorum_room = width - narrow
    whole = [_quorum_lines(phase.quorums, names, quorum_room) for phase in phases]
    words_room = width - narrow - max(len(line) for lines in whole for line in lines)
    sentences: list[list[str]] = [[] for _ in phases]
    if words_room >= WORDS_COLUMNS_MIN:
        room = min(words_room, WORDS_COLUMNS_MAX)
        sentences = [textwrap.wrap(printable(phase.words), room) for phase in phases]
    rows: list[tuple[str, ...]] = []
    for label, lines, survives, phase, takes, words in zip(
        labels, whole, survivals, phases, times, sentences, strict=True
    ):
        painted = style(survives, "yellow") if phase.tolerance <= 0 else survives
        for number in range(max(len(lines), len(words))):
            first = (label, painted, takes) if number == 0 else ("", "", "")
            rows.append((first[0], _line(lines, number), first[1], first[2], _line(words, number)))
    return table(HEADERS, rows).splitlines()


def _phases_list(
    phases: Sequence[PlanPhase],
    labels: Sequence[str],
    names: Mapping[ServerId, str],
    style: Style,
    width: int,
) -> list[str]:
    """Return the phases one beneath the other, for a terminal that is too narrow for a table."""
    lines = []
    for phase, label in zip(phases, labels, strict=True):
        survives = f"survives {_survives(phase.tolerance)}"
        facts = [f"{label}: {survives}", *filter(None, [_about(phase.expected_ms)])]
        for line in _wrapped(", ".join(facts), width, "  "):
            painted = style(survives, "yellow") if phase.tolerance <= 0 else survives
            lines.append(line.replace(survives, painted))
        lines += [f"  {line}" for line in _quorum_lines(phase.quorums, names, width - 2)]
    return lines


def _line(lines: Sequence[str], number: int) -> str:
    return lines[number] if number < len(lines) else ""


def _quorum_lines(quorums: Sequence[Quorum], names: Mapping[ServerId, str], room: int) -> list[str]:
    """Return the quorums of a phase: one line, or more where they are two or long."""
    lines = []
    for number, quorum in enumerate(quorums):
        text = quorum_text(quorum, names)
        if number < len(quorums) - 1:
            text += " and"
        lines += textwrap.wrap(text, room, subsequent_indent="  ", break_long_words=False)
    return lines or [""]


def quorum_text(quorum: Quorum, names: Mapping[ServerId, str]) -> str:
    """Return how many of whom have to agree, and who of them cannot: `2 of 3 (n1 n2 n3)`."""
    text = f"{quorum.needed} of {len(quorum.voters)} ({_listed(quorum.voters, names)})"
    down = [server for server in quorum.voters if server not in quorum.alive]
    if down:
        text += f", {_listed(down, names)} {'is' if len(down) == 1 else 'are'} down"
    return text


def _listed(servers: Collection[ServerId], names: Mapping[ServerId, str]) -> str:
    return " ".join(sorted((names.get(server, server) for server in servers), key=natural_key))


def _survives(tolerance: int) -> str:
    return plural(tolerance, "failure") if tolerance > 0 else "no failure"


def _about(milliseconds: int | None) -> str:
    return "" if milliseconds is None else f"about {duration(milliseconds)}"


def _notes(plan: PlanView, style: Style, width: int) -> list[str]:
    """Return what is copied and how long all of it takes, what cannot be taken back, warnings."""
    facts = []
    if plan.bytes_to_copy:
        facts.append(f"about {size(plan.bytes_to_copy)} to copy")
    if plan.expected_ms is not None:
        facts.append(f"{_about(plan.expected_ms)} in all")
    notes = [("", ", ".join(facts), "")] if facts else []
    gone = set(members_of(plan.before)).difference(members_of(plan.after))
    if gone:
        names = _listed(gone, {server: server_name(server) for server in gone})
        words = "is removed for good: it stops, and never comes back with its data"
        if len(gone) > 1:
            words = "are removed for good: they stop, and never come back with their data"
        notes.append(("note: ", f"{names} {words}", ""))
    notes += [("warning: ", printable(warning), "yellow") for warning in plan.warnings]
    lines = []
    for label, text, color in notes:
        wrapped = textwrap.wrap(
            label + text, width, subsequent_indent=" " * len(label), break_long_words=False
        )
        lines += [style(line, color) if color else line for line in wrapped]
    return ["", *lines] if lines else []


def phases_of(plan: PlanView) -> tuple[PlanPhase, ...]:
    """Return the phases of a plan; a leader of an older release says only what they survive."""
    if plan.phases:
        return plan.phases
    before, after = _quorum(plan.before.voters), _quorum(plan.after.voters)
    phases = [
        PlanPhase(name="settled", words="", quorums=(before,), tolerance=plan.tolerance_before)
    ]
    if plan.joint:
        phases.append(
            PlanPhase(
                name="joint", words="", quorums=(before, after), tolerance=plan.tolerance_during
            )
        )
    phases.append(
        PlanPhase(name="final", words="", quorums=(after,), tolerance=plan.tolerance_after)
    )
    return tuple(phases)


def _quorum(voters: tuple[ServerId, ...]) -> Quorum:
    return Quorum(voters=voters, needed=majority(len(voters)), alive=voters)


# --- for programs -------------------------------------------------------------------------------


def plan_document(plan: PlanView, *, command: str) -> dict[str, Any]:
    """Return the whole plan as JSON has it.

    Args:
        command: what does exactly this, as long as the configuration has not moved.
    """
    names = display_names([*members_of(plan.before), *members_of(plan.after)])
    return {
        "configuration_index": plan.before.index,
        "differences": [one.document() for one in plan_differences(plan)],
        "changes": list(plan.changes),
        "joint": plan.joint,
        "before": configuration_document(plan.before),
        "after": configuration_document(plan.after),
        "phases": [
            {
                "phase": phase.name,
                "words": phase.words,
                "quorums": [
                    {
                        "voters": [names[server] for server in quorum.voters],
                        "needed": quorum.needed,
                        "alive": [names[server] for server in quorum.alive],
                    }
                    for quorum in phase.quorums
                ],
                "tolerance": phase.tolerance,
                "expected_ms": phase.expected_ms,
            }
            for phase in phases_of(plan)
        ],
        "tolerance_before": plan.tolerance_before,
        "tolerance_during": plan.tolerance_during,
        "tolerance_after": plan.tolerance_after,
        "bytes_to_copy": plan.bytes_to_copy,
        "expected_ms": plan.expected_ms,
        "warnings": list(plan.warnings),
        "command": command,
    }
