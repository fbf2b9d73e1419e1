"""A short attack of every ordinary test run; the long ones are `pytest -m chaos`."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Attack
from tests.chaos.run import Options
from tests.chaos.schedule import HALVES, KILL, PAUSE, REPLACE, WIPE

SHORT = Options(seed=310, seconds=9, servers=5, clients=3)
TIMEOUT_S = 300
"""It takes a tenth of that; a machine that is busy with other things is no failure."""
VERDICTS = 10
"""Of a run that converges; a judge that is not asked finds nothing."""


def test_the_short_attack_has_a_bit_of_everything() -> None:
    kinds = {action.kind for action in SHORT.schedule}
    assert kinds >= {KILL, PAUSE, HALVES, REPLACE, WIPE}
    assert "--seed 310 --seconds 9 --servers 5 --network proxy" in SHORT.command


@pytest.mark.timeout(TIMEOUT_S)
def test_a_cluster_under_attack_keeps_every_promise(attack: Attack) -> None:
    report = attack(SHORT)
    assert report.faults[KILL]
    assert report.faults[PAUSE]
    assert report.faults[HALVES]
    assert sum(report.commands.values())
    # Nothing was judged on an empty history, and no judge was left out.
    assert report.operations.ok >= report.options.clients
    assert len(report.verdicts) == VERDICTS
