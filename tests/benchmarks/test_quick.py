"""The measurements of snapshots and catch-up, with a small state. Prints tables; judges nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.__main__ import QUICK, measure


@pytest.mark.benchmark
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", QUICK)
def test_quick_measurement(name: str, tmp_path: Path) -> None:
    print()
    tables = measure([name], quick=True, rounds=1, folder=tmp_path)
    assert all(table.rows for table in tables)
