"""The latest events of the log, as they are kept for those who look."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

import raftd.event_log
from raftd.chronicle import _KIND_OF, NOTICES_MAX, TEXT_CHARACTERS_MAX, Chronicle
from raftd.event_log import tell
from tests.node.world import World, drop, new

logger = logging.getLogger("raftd.test")


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="raftd")


def test_a_replacement_after_the_death_of_a_leader_is_told_as_the_log_tells_it():
    world = World()
    world.form(3)
    with Chronicle() as chronicle:
        world.leader().kill()
        world.leader()
        world.boot("n4")
        dead = next(name for name in ("n1", "n2", "n3") if world[name].node is None)
        world.finish(world.started(world.change("replace", drop(dead), new("n4"))))
    kinds = [notice.kind for notice in chronicle.notices]
    assert {"election", "leader", "configuration"} <= set(kinds)
    texts = [notice.text for notice in chronicle.notices]
    assert any(text.startswith("leads in term ") for text in texts)
    assert any("(joint) is committed" in text for text in texts)


def test_only_events_are_kept_and_only_while_somebody_listens():
    with Chronicle() as chronicle:
        logger.warning("no event")
        tell(logger, "leader", "leads in term %d", 7)
    tell(logger, "leader", "leads in term 8")
    assert [(notice.kind, notice.text) for notice in chronicle.notices] == [
        ("leader", "leads in term 7")
    ]


def test_the_latest_are_kept_and_none_is_long():
    with Chronicle() as chronicle:
        for number in range(2 * NOTICES_MAX):
            tell(logger, "refused", "%d %s", number, "x" * 10_000)
    assert len(chronicle.notices) == NOTICES_MAX
    assert chronicle.notices[0].text.startswith(f"{NOTICES_MAX} x")
    assert {len(notice.text) for notice in chronicle.notices} == {TEXT_CHARACTERS_MAX}
    assert {notice.kind for notice in chronicle.notices} == {"warning"}


def test_every_event_that_has_a_kind_of_its_own_is_one_of_the_log():
    table = raftd.event_log.__doc__ or ""
    assert set(_KIND_OF) <= set(re.findall(r"`([a-z-]+)`", table))
    source = "".join(file.read_text() for file in Path(raftd.__path__[0]).rglob("*.py"))
    for event in _KIND_OF:
        assert f'"{event}"' in source
