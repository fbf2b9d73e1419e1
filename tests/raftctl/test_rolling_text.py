"""Words about rolling operations."""

from __future__ import annotations

import pytest

from raftctl.rolling_text import without_numbers


@pytest.mark.parametrize(
    ("words", "others", "same"),
    [
        ("n2 runs for 59.3s", "n2 runs for 1m 02s", True),
        ("n2 runs for 999ms: as before", "n2 runs for 2h 01m: as before", True),
        ("n2 is 1,204 entries behind", "n2 is 7 entries behind", True),
        ("n2 runs for 2s", "n3 runs for 2s", False),
        ("op-1 has to end first", "op-2 has to end first", False),
        ("n2 does not answer yet", "n2 still runs as before", False),
    ],
)
def test_words_are_compared_without_their_numbers(words: str, others: str, same: bool) -> None:
    assert (without_numbers(words) == without_numbers(others)) is same
