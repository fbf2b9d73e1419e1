"""What an exhibit of the bug museum is: a bug that others had, and what shows that we have not.

The stories stand in one module for each part.
"""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Exhibit:
    """One bug that other systems had."""

    number: int
    """1 to 92, without gaps."""
    title: str
    """What went wrong there, in a few words."""
    seen_in: tuple[str, ...]
    """Where: `project #number`, the thread or commit."""
    story: str
    """Setup, events, the wrong outcome and the right one, in two or three sentences."""
    shown_by: tuple[str, ...] = ()
    """The tests that show the right outcome, as pytest node ids below `tests/`
    (`museum/test_elections.py::test_040_...`), or golden transcripts (`golden/figure_8.txt`)."""
    cannot_apply: str = ""
    """Why this design cannot have the bug, if no test can show it."""
