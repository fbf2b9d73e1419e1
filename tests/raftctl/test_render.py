"""Tables, numbers, durations: what people read."""

from __future__ import annotations

import pytest

from raftctl.render import (
    Style,
    bar,
    configuration_document,
    cut,
    display_names,
    duration,
    natural_key,
    number,
    plural,
    printable,
    table,
    width_of,
)
from raftd.protocol import ConfigurationView


def test_columns_are_as_wide_as_their_widest_cell_and_numbers_stand_right() -> None:
    text = table(("ID", "LAG", "ROLE"), [("n1", "0", "voter"), ("n10", "1,204", "")], right={"LAG"})
    assert text.splitlines() == ["ID     LAG  ROLE", "n1       0  voter", "n10  1,204"]


def test_a_column_that_is_empty_everywhere_is_left_out() -> None:
    assert table(("A", "B", "C"), [("1", "", "2"), ("3", "", "4")]).splitlines()[0] == "A  C"


def test_a_table_without_rows_has_all_its_headers() -> None:
    assert table(("A", "B"), []) == "A  B"


def test_colours_take_no_width() -> None:
    red = Style(True)("n1", "red")
    assert width_of(red) == 2
    assert table(("ID", "X"), [(red, "1"), ("n10", "2")]).splitlines()[1].endswith(" 1")


def test_a_style_that_is_off_changes_nothing() -> None:
    assert Style(False)("n1", "red") == "n1"


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 4, "abc…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("\x1b[31mabcdef\x1b[0m", 3, "\x1b[31mab…\x1b[0m"),
    ],
)
def test_a_line_is_cut_by_columns_and_not_by_characters(text: str, width: int, shown: str) -> None:
    assert cut(text, width) == shown
    assert width_of(shown) <= width


def test_what_could_drive_a_terminal_is_escaped() -> None:
    assert printable("a\x1b[2J\n\u202eb ü") == "a\\x1b[2J\\n\\u202eb ü"


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0ms"),
        (0.25, "0.2ms"),
        (12.4, "12ms"),
        (3_400, "3.4s"),
        (125_000, "2m 05s"),
        (11_400_000, "3h 10m"),
        (180_000_000, "2d 2h"),
    ],
)
def test_durations_have_the_precision_that_people_want(milliseconds: float, text: str) -> None:
    assert duration(milliseconds) == text


def test_numbers_are_grouped_and_counted() -> None:
    assert number(91204) == "91,204"
    assert plural(1, "failure") == "1 failure"
    assert plural(2, "entry", "entries") == "2 entries"


@pytest.mark.parametrize(("fraction", "filled"), [(-1, 0), (0, 0), (0.5, 4), (1, 8), (2, 8)])
def test_a_bar_stays_within_its_width(fraction: float, filled: int) -> None:
    assert bar(fraction, 8) == "█" * filled + "░" * (8 - filled)


def test_n2_comes_before_n10() -> None:
    assert sorted(["n10", "n2", "a", "n1"], key=natural_key) == ["a", "n1", "n2", "n10"]


def test_names_lose_their_incarnation_unless_a_name_is_there_twice() -> None:
    assert display_names(["n1/a", "n2/b", "n2/c"]) == {
        "n1/a": "n1",
        "n2/b": "n2/b",
        "n2/c": "n2/c",
    }


def test_a_joint_configuration_shows_both_halves() -> None:
    view = ConfigurationView(
        index=5,
        committed=False,
        joint=True,
        voters=("n1/a", "n2/new"),
        outgoing=("n1/a", "n2/old"),
        learners=("n5/e",),
    )
    assert configuration_document(view) == {
        "index": 5,
        "committed": False,
        "joint": True,
        "voters": ["n1", "n2/new"],
        "outgoing": ["n1", "n2/old"],
        "learners": ["n5"],
    }
