"""A trap springs at the moment that it was set for, and not earlier."""

from __future__ import annotations

import pytest

from raftd.commands import BeginOperation, Command, Plan, Put, encode_command
from raftd.core.membership import (
    Configuration,
    ConfigurationEntry,
    ConfigurationKind,
    encode_configuration,
)
from raftd.core.messages import AppendEntries
from raftd.core.types import Entry, EntryKind
from tests.chaos.network import Trap
from tests.cluster.proxy import Fate, Passing

FLOOR = 10


def append_entries(*entries: Entry, leader_commit: int = FLOOR) -> AppendEntries:
    return AppendEntries(
        term=2,
        prev_log_index=entries[0].index - 1 if entries else FLOOR,
        prev_log_term=2,
        entries=entries,
        leader_commit=leader_commit,
        round=1,
    )


def configuration(index: int, kind: ConfigurationKind) -> Entry:
    entry = ConfigurationEntry(
        kind=kind, configuration=Configuration(voters=("n1/a", "n2/b")), operation="op-2"
    )
    return Entry(index, 2, EntryKind.CONFIGURATION, encode_configuration(entry))


def begin(index: int) -> Entry:
    plan = Plan(changes=(("voter", "n4/d"),), joint=True, configuration_index=7)
    body = BeginOperation(kind="add", author="test", reason="", time_ms=0, plan=plan)
    return Entry(index, 2, EntryKind.COMMAND, encode_command(Command(body, "s", 1, 1)))


def put(index: int) -> Entry:
    return Entry(index, 2, EntryKind.COMMAND, encode_command(Command(Put("a", b"1"), "s", 1, 1)))


MOMENTS = {
    "begin": append_entries(begin(12)),
    "learners": append_entries(configuration(12, ConfigurationKind.SIMPLE)),
    "joint": append_entries(put(11), configuration(12, ConfigurationKind.JOINT)),
    "final": append_entries(configuration(12, ConfigurationKind.FINAL)),
}


@pytest.mark.parametrize("phase", MOMENTS)
def test_a_trap_springs_at_its_own_moment_only(phase: str) -> None:
    for other, message in MOMENTS.items():
        trap = Trap(phase=phase, reach="nobody", floor=FLOOR)
        fate = trap(Passing("n1", "n2", message))
        assert trap.caught.is_set() == (other == phase)
        assert (fate is Fate.CUT) == (other == phase)
        assert trap.leader == ("n1" if other == phase else "")


@pytest.mark.parametrize("phase", MOMENTS)
def test_an_earlier_change_that_a_new_server_is_told_of_springs_no_trap(phase: str) -> None:
    trap = Trap(phase=phase, reach="nobody", floor=12)
    assert trap(Passing("n1", "n4", MOMENTS[phase])) is Fate.PASS
    assert not trap.caught.is_set()


@pytest.mark.parametrize("phase", ["joint", "final"])
def test_a_commit_springs_the_trap_when_the_leader_tells_of_it(phase: str) -> None:
    trap = Trap(phase=f"{phase}-committed", reach="nobody", floor=FLOOR)
    assert trap(Passing("n1", "n2", MOMENTS[phase])) is Fate.PASS
    assert trap(Passing("n1", "n2", append_entries(leader_commit=11))) is Fate.PASS
    assert not trap.caught.is_set()
    assert trap(Passing("n1", "n2", append_entries(leader_commit=12))) is Fate.CUT
    assert trap.caught.is_set()


@pytest.mark.parametrize(
    ("reach", "fates"),
    [
        ("nobody", [Fate.CUT, Fate.CUT, Fate.CUT]),
        ("one", [Fate.PASS, Fate.CUT, Fate.PASS]),
        ("all", [Fate.PASS, Fate.PASS, Fate.PASS]),
    ],
)
def test_the_moment_reaches_whom_it_should_and_the_leader_never_learns_of_it(
    reach: str, fates: list[Fate]
) -> None:
    trap = Trap(phase="joint", reach=reach, floor=FLOOR)
    message = MOMENTS["joint"]
    assert [trap(Passing("n1", dest, message)) for dest in ("n2", "n3", "n2")] == fates
    assert trap(Passing("n2", "n1", append_entries())) is Fate.CUT
    assert trap(Passing("n2", "n3", append_entries())) is Fate.PASS
