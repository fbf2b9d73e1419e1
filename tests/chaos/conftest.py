"""A failed run tells what happened: its events, its summary and the folder with everything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.__main__ import run_once
from tests.chaos.run import Options, Report
from tests.chaos.summary import summary

Attack = Callable[[Options], Report]


@pytest.fixture
def attack(tmp_path: Path) -> Attack:
    """Return a function that does a run, fails unless every claim holds, and returns its report."""

    def run(options: Options) -> Report:
        report = run_once(options, tmp_path)
        if not report.ok:
            pytest.fail(f"everything is in {tmp_path}\n{summary(report)}", pytrace=False)
        return report

    return run
