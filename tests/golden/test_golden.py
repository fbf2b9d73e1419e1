"""Runs the transcripts beside this file.

A difference is a change of the protocol's behaviour. If it is meant, `pytest tests/golden
--update-golden` writes it down; commit it only if you understand every line of the diff.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.harness import replay

TRANSCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_cluster_behaves_as_written_down(path: Path, update_golden: bool) -> None:
    recorded = path.read_text()
    replayed = replay(recorded)
    if update_golden:
        path.write_text(replayed)
        return
    assert replayed == recorded


def test_transcript_that_differs_is_noticed() -> None:
    recorded = "(cluster n1)\ncampaign n1\n---\nn1 becomes candidate (term 2)\n"
    replayed = replay(recorded)
    assert "n1 becomes leader (term 2)" in replayed
    assert replayed != recorded
    assert replay(replayed) == replayed
