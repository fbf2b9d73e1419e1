"""SCAN, KEYS and DBSIZE: every key is found, however the keys and the servers change meanwhile."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd.commands import (
    KEY_BYTES_MAX,
    BeginOperation,
    Command,
    OpenSession,
    Plan,
    encode_command,
)
from raftd.network import redis_cursors, redis_scan
from raftd.network.redis_actions import CommandError
from raftd.network.redis_cursors import Cursors
from raftd.network.redis_scan import PATTERN_BYTES_MAX, SCAN_COUNT_MAX, literal_prefix, matcher
from raftd.storage.key_scan import count_keys
from tests.network.redis_console import Console

KEY = st.text("ab:é\0\U0010ffff", min_size=1, max_size=6)


def scanned(console: Console, options: str = "", cursor: bytes = b"0") -> list[bytes]:
    """Return all that a scan finds, from a cursor on."""
    found: list[bytes] = []
    for _ in range(10_000):
        cursor, keys = console.ask([b"SCAN", cursor, *options.encode().split()])
        found += keys
        if cursor == b"0":
            return found
        assert 0 < int(cursor) < 2**63
    raise AssertionError("it does not end")


@given(st.sets(KEY, max_size=30), st.integers(1, 12))
def test_a_scan_finds_every_key_once(keys: set[str], count: int) -> None:
    console = Console()
    for key in keys:
        console.ask([b"SET", key.encode(), b"1"])
    expected = sorted(key.encode() for key in keys)
    assert scanned(console, f"COUNT {count}") == expected
    assert sorted(console.ask("KEYS *")) == expected
    assert console.ask("DBSIZE") == len(keys)


@given(st.sets(KEY, min_size=8, max_size=40), st.integers(1, 6), st.integers(0, 20), st.randoms())
def test_a_scan_goes_on_at_another_server_and_while_keys_come_and_go(
    keys: set[str], count: int, gone: int, random: object
) -> None:
    console = Console()
    surroundings = console.world.surroundings
    for key in keys:
        console.ask([b"SET", key.encode(), b"1"])
    leaving = sorted(keys)[:: gone + 1]
    staying = {key.encode() for key in keys if key not in leaving}
    found: list[bytes] = []
    cursor, turn = b"0", 0
    while True:
        cursor, page = console.ask([b"SCAN", cursor, b"COUNT", b"%d" % count])
        found += page
        if cursor == b"0":
            break
        turn += 1
        if leaving:
            console.ask([b"DEL", leaving.pop().encode()])
        console.ask([b"SET", b"c%d" % turn, b"1"] if turn < 20 else b"PING".split())
        if turn == 3:
            # The leader has changed: the new one remembers no position.
            surroundings.cursors = Cursors()
        assert turn < 1_000, "it does not end"
    assert staying <= set(found)


def test_a_position_that_nobody_remembers_is_found_by_its_first_bytes() -> None:
    console = Console()
    console.ask("MSET " + " ".join(f"{letter * 4}{n} x" for letter in "abc" for n in range(10)))
    cursor, found = console.ask("SCAN 0 COUNT 15")
    assert found[-1] == b"bbbb4"
    console.world.surroundings.cursors = Cursors()
    _, again = console.ask([b"SCAN", cursor, b"COUNT", b"100"])
    assert again[0] == b"bbbb0"
    assert len(again) == 20


def test_a_cursor_leads_back_to_its_position() -> None:
    cursors = Cursors()
    positions = [b"key:%d\0" % number for number in range(1_000)] + [b"\0", b"\0\0\0", b"x" * 481]
    known = {cursors.remember(position): position for position in positions}
    assert len(known) == len(positions)
    assert 0 not in known
    assert max(known) < 2**63
    for cursor, position in known.items():
        assert cursors.position(cursor) == position
        assert Cursors().position(cursor) <= position
    assert cursors.position(0) == b""
    assert Cursors().position(2**64 - 1) <= b"\xff\xff\xff"


def test_positions_that_are_remembered_are_bounded_and_the_last_ones() -> None:
    cursors = Cursors()
    first = cursors.remember(b"first")
    for number in range(redis_cursors.CURSORS_MAX - 1):
        cursors.remember(b"%d" % number)
        cursors.remember(b"first")
    cursors.remember(b"one more")
    assert cursors.position(first) == b"first"
    assert len(cursors._positions) == redis_cursors.CURSORS_MAX


def test_two_positions_never_have_one_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_cursors, "_HASH_BITS", 2)
    cursors = Cursors()
    first, second = cursors.remember(b"abc1"), cursors.remember(b"abc2")
    assert len({first, second, cursors.remember(b"abc3")}) == 3
    assert (cursors.position(first), cursors.position(second)) == (b"abc1", b"abc2")


def test_a_scan_looks_at_a_bounded_number_of_keys_and_returns_those_that_fit() -> None:
    console = Console()
    console.ask("MSET " + " ".join(f"k{n:05} x" for n in range(SCAN_COUNT_MAX + 500)))
    cursor, found = console.ask("SCAN 0 COUNT 1000000")
    assert len(found) == SCAN_COUNT_MAX
    assert cursor != b"0"
    assert console.ask("SCAN 0")[1] == [b"k%05d" % n for n in range(10)]
    cursor, found = console.ask("SCAN 0 MATCH *7 COUNT 20")
    assert (cursor == b"0", found) == (False, [b"k00007", b"k00017"])
    # Where a pattern says how its keys begin, no others are looked at.
    assert console.ask("SCAN 0 MATCH k0123? COUNT 20") == [
        b"0",
        [b"k%05d" % n for n in range(1230, 1240)],
    ]
    assert console.ask("SCAN 0 TYPE hash COUNT 1000")[1] == []
    assert len(scanned(console, "TYPE string COUNT 300")) == SCAN_COUNT_MAX + 500


def test_keys_and_dbsize_say_where_they_would_take_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_scan, "KEYS_MAX", 10)
    console = Console()
    console.ask("MSET " + " ".join(f"a{n} x b{n} x" for n in range(8)))
    assert "use SCAN" in console.refused("KEYS *")
    assert "use SCAN" in console.refused("KEYS ?1")
    assert console.ask("KEYS a*1") == [b"a1"]
    assert console.ask("KEYS a1") == [b"a1"]
    assert console.ask("DBSIZE") == 16


def test_patterns_that_are_slow_to_compare_do_not_hold_up_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_scan, "SCAN_WORK_MAX", 4 * 3 * KEY_BYTES_MAX)
    monkeypatch.setattr(redis_scan, "KEYS_WORK_MAX", 4 * 3 * 8)
    console = Console()
    console.ask("MSET " + " ".join(f"a{n:03} x" for n in range(9)))
    # What comes before the first star is looked up and not compared.
    assert len(console.ask("SCAN 0 MATCH a0* COUNT 100")[1]) == 9
    cursor, found = console.ask("SCAN 0 MATCH a0*0* COUNT 100")
    assert (cursor != b"0", len(found)) == (True, 4)
    assert len(scanned(console, "MATCH a0*0* COUNT 100")) == 9
    assert "too long" in console.refused("KEYS a0*0*")
    assert len(console.ask("KEYS a0**")) == 9
    # No cost would cover that many patterns.
    assert "at most" in console.refused("CONFIG GET " + "*a " * 200)


def test_what_is_not_keys_is_not_counted() -> None:
    console = Console()
    for name in ("one", "two"):
        console.world.apply(encode_command(Command(OpenSession(), name)))
    for number in range(3):
        plan = Plan(changes=(), joint=False, configuration_index=number)
        body = BeginOperation(kind="add", author="", reason="", time_ms=0, plan=plan)
        console.world.apply(encode_command(Command(body)))
    console.all("SETEX a 100 1", "SETEX b 100 1", "SET c 1", "PERSIST b")
    assert console.ask("DBSIZE") == 3
    console.ask("DEL a c")
    assert console.ask("DBSIZE") == 1
    assert count_keys(console.world.state.store, 0, 0, 0) is None


# --- patterns -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        (b"*", [b"", b"a", b"\n\xff"], []),
        (b"", [b""], [b"a"]),
        (b"a*", [b"a", b"ab\nc"], [b"", b"ba"]),
        (b"*a", [b"a", b"ba"], [b"ab"]),
        (b"a*b*c", [b"abc", b"aXbXc", b"abbc"], [b"ab", b"acb", b"abcX"]),
        (b"a**b", [b"ab", b"aXb"], [b"a"]),
        (b"h?llo", [b"hello", b"h\nllo"], [b"hllo", b"heello"]),
        (b"h[ae]llo", [b"hello", b"hallo"], [b"hillo"]),
        (b"h[^e]llo", [b"hallo"], [b"hello"]),
        (b"h[a-c]llo", [b"hbllo"], [b"hdllo"]),
        (b"h[c-a]llo", [b"hbllo"], [b"hdllo"]),
        (b"[-a\\]]x", [b"]x", b"ax", b"-x"], [b"\\x", b"bx"]),
        (b"[]x", [], [b"x", b"]x"]),
        (b"[^]x", [b"ax", b"^x"], [b"x"]),
        (b"[ab", [b"a", b"b"], [b"[ab"]),
        (b"\\*\\?", [b"*?"], [b"ab"]),
        (b"\\", [b"\\"], [b""]),
        (b"a.c+(x)$", [b"a.c+(x)$"], [b"abc"]),
        (b"\xff*", [b"\xff1"], [b"1"]),
    ],
)
def test_a_pattern_fits_as_it_does_in_redis(
    pattern: bytes, fits: list[bytes], fits_not: list[bytes]
) -> None:
    matches = matcher(pattern)
    assert [key for key in fits if not matches(key)] == []
    assert [key for key in fits_not if matches(key)] == []


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_stars_and_question_marks_are_those_of_a_shell(pattern: str, key: str) -> None:
    expected = fnmatch.fnmatchcase(key, pattern)
    assert bool(matcher(pattern.encode())(key.encode())) is expected
    if expected:
        assert key.encode().startswith(literal_prefix(pattern.encode()))


def test_a_pattern_takes_no_time_that_grows_without_bound() -> None:
    # With a search that goes back over every star this would take longer than the universe lasts.
    assert not matcher(b"*a" * 200 + b"*b")(b"a" * 480)
    with pytest.raises(CommandError, match="at most 1024 bytes"):
        matcher(b"x" * (PATTERN_BYTES_MAX + 1))
