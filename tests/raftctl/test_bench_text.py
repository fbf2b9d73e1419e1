"""What a benchmark shows people: tables and pictures that fit, at every width."""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftctl.bench import FILLING, MEASURING, WARMING_UP, Options, Progress, Result
from raftctl.bench_clients import GET, PUT, Errors
from raftctl.bench_document import progress_document, result_document
from raftctl.bench_keys import ReadBack
from raftctl.bench_servers import ServerUse
from raftctl.bench_text import latency, picture, progress_line, result_text
from raftctl.latencies import Latencies
from raftctl.render import Style, width_of
from raftctl.status_text import Layout
from tests.raftctl.documented import problem_of

WIDTHS = (40, 60, 80, 120, 200)
OPTIONS = Options(
    read_fraction=0.5,
    clients=64,
    pipeline=4,
    value_bytes=1024,
    keys=1_000_000,
    prefix="raftctl-bench/",
    stale=False,
    duration_ms=10_000.0,
    warm_up_ms=1_000.0,
    timeout_ms=30_000.0,
    verify=True,
)


def use(name: str, **fields: object) -> ServerUse:
    known = ServerUse(
        name=name,
        role="follower",
        reachable=True,
        restarted=False,
        cpu_ms=2_100,
        cpu_fraction=0.21,
        rss_bytes=66 << 20,
        rss_anon_bytes=41 << 20,
        rss_anon_max_bytes=43 << 20,
    )
    return attrs.evolve(known, **fields)


def measured(*pairs: tuple[int, int]) -> Latencies:
    """Return latencies given in microseconds, each with how often it came."""
    found = Latencies()
    for microseconds, count in pairs:
        for _ in range(count):
            found.add(microseconds * 1000)
    return found


def quiet() -> tuple[Result, ReadBack | None]:
    """One second of nothing but writes, without a trouble."""
    options = attrs.evolve(OPTIONS, read_fraction=0.0, clients=1, pipeline=1, keys=1, value_bytes=0)
    result = Result(
        options=options,
        seconds=1.0,
        interrupted=False,
        latencies={PUT: measured((640, 900), (910, 80), (2_400, 19), (14_000, 1))},
        errors=Errors(),
        unresolved=0,
        missed=0,
        refusal="",
        longest_gap_ms=14.2,
        leaders=((0.0, "n1"),),
        servers=(use("n1", role="leader", cpu_fraction=0.93), use("n2"), use("n10")),
        generator_fraction=0.31,
    )
    return result, None


def failover() -> tuple[Result, ReadBack | None]:
    """The leader died and came back; some writes are not known; the generator was too slow."""
    common = ((1_300, 400), (1_800, 2_500), (2_700, 900), (7_300, 180), (1_150_000, 64))
    result = Result(
        options=OPTIONS,
        seconds=6.2,
        interrupted=True,
        latencies={PUT: measured(*common), GET: measured(*common, (90, 3))},
        errors=Errors(redirected=64, not_applied=31, unknown=128, refused=2),
        unresolved=3,
        missed=12,
        refusal="writes are refused, the disk is nearly full: on n2: 200 MiB left",
        longest_gap_ms=981.0,
        leaders=((0.0, "n1"), (4.21, "n2")),
        servers=(
            use("n1", role="follower", restarted=True),
            use("n2", role="leader", cpu_fraction=1.02),
            use("n3", reachable=False, cpu_ms=None, cpu_fraction=None, rss_anon_bytes=None),
        ),
        generator_fraction=0.97,
    )
    lost = ("raftctl-bench/bench-0000017: 3 puts acknowledged, not there",)
    return result, ReadBack(keys=1_000_000, lost=lost, lost_count=2)


SITUATIONS = (quiet, failover)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_result_looks_as_it_should(
    situation: Callable[[], tuple[Result, ReadBack | None]],
    columns: int,
    golden: Callable[[str, str], None],
) -> None:
    result, verified = situation()
    lines = result_text(result, verified, Layout(width=columns))
    golden(f"bench_{situation.__name__}_{columns}", "\n".join(lines))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_no_line_is_longer_than_the_terminal_and_colours_change_nothing_else(
    situation: Callable[[], tuple[Result, ReadBack | None]], width: int
) -> None:
    result, verified = situation()
    plain = result_text(result, verified, Layout(width=width))
    assert [line for line in plain if width_of(line) > width] == []
    assert "\x1b" not in "".join(plain)
    colored = result_text(result, verified, Layout(width=width, paint=Style(True)))
    assert "\x1b[32m" in "".join(colored)
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in colored] == plain


@given(
    st.lists(st.tuples(st.integers(0, 10**8), st.integers(1, 50)), min_size=1, max_size=30),
    st.sampled_from(WIDTHS),
)
def test_a_picture_counts_every_latency_once_and_fits(
    pairs: list[tuple[int, int]], width: int
) -> None:
    latencies = measured(*pairs)
    title, *lines = picture("LATENCIES", latencies, Layout(width=width))
    assert title == "LATENCIES"
    assert all(width_of(line) <= width for line in lines)
    rows = [re.search(r"([0-9,]+) +[0-9.]+%", line) for line in lines]
    counts = [int(row[1].replace(",", "")) for row in rows if row is not None]
    assert sum(counts) == latencies.count
    # A row without any latency is empty, any other one is seen.
    assert all(
        bool(re.search(r"[▏▎▍▌▋▊▉█]", line)) == (not re.search(r" 0 +0\.0%", line))
        for line in lines
        if "%" in line
    )


def test_the_longest_bar_is_that_of_what_came_most_often() -> None:
    lines = picture("x", measured((1_200, 10), (2_500, 40), (6_000, 20)), Layout(width=80))
    bars = [line.count("█") for line in lines[1:]]
    labels = [line.partition("< ")[2].split()[0] for line in lines[1:]]
    assert labels == ["1.5ms", "2ms", "3ms", "5ms", "7ms"]
    assert max(bars) == bars[2] > 0
    assert [round(4 * bar / bars[2]) for bar in bars] == [1, 0, 4, 0, 2]


def test_a_gap_in_the_picture_is_one_line() -> None:
    lines = picture("x", measured((100, 5), (900_000, 5)), Layout(width=80))
    assert len(lines) == 4
    assert lines[2].strip() == "..."


@pytest.mark.parametrize(
    ("latency_ns", "words"),
    [
        (0, "0us"),
        (87_400, "87us"),
        (999_400, "999us"),
        (999_600, "1.00ms"),
        (9_994_000, "9.99ms"),
        (9_996_000, "10.0ms"),
        (99_960_000, "100ms"),
        (1_234_000_000, "1.23s"),
        (6_000_000_000_000, "6,000s"),
    ],
)
def test_a_latency_has_three_digits(latency_ns: int, words: str) -> None:
    assert latency(latency_ns) == words


# --- while it runs ----------------------------------------------------------------------------

PROGRESS = Progress(
    phase=MEASURING,
    seconds=3.0,
    total_seconds=10.0,
    done=30_000,
    total=None,
    latest=measured((640, 900), (2_400, 100)),
    latest_seconds=1.0,
    errors=Errors(redirected=3),
    leader="",
)


def test_a_line_of_progress_says_how_it_goes() -> None:
    line = progress_line(PROGRESS)
    assert line.startswith("   3s     1,000/s  p50  647us  p99 2.40ms  max 2.40ms")
    assert line.endswith("3 redirected  no leader")
    filling = attrs.evolve(PROGRESS, phase=FILLING, done=512, total=1_000, leader="n1")
    assert progress_line(filling) == "   3s  filling: 512 of 1,000"
    warming_up = attrs.evolve(PROGRESS, phase=WARMING_UP, leader="n1")
    assert progress_line(warming_up) == "   3s  warming up"


def test_nothing_in_a_second_is_shown_as_nothing() -> None:
    line = progress_line(attrs.evolve(PROGRESS, latest=Latencies(), errors=Errors(), leader="n1"))
    assert line.split() == ["3s", "0/s", "p50", "-", "p99", "-", "max", "-"]


# --- for programs -----------------------------------------------------------------------------


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_result_obeys_its_schema(
    situation: Callable[[], tuple[Result, ReadBack | None]],
) -> None:
    result, verified = situation()
    for keys_removed in (None, 17):
        document = result_document(result, verified, keys_removed)
        assert problem_of(document, "raftctl bench") == ""
    empty = attrs.evolve(result, latencies={PUT: Latencies(), GET: Latencies()}, seconds=0.0)
    assert problem_of(result_document(empty, None, None), "raftctl bench") == ""


def test_a_line_of_progress_obeys_its_schema() -> None:
    assert problem_of(progress_document(PROGRESS), "raftctl bench") == ""
    nothing = attrs.evolve(PROGRESS, latest=Latencies(), total_seconds=None)
    assert problem_of(progress_document(nothing), "raftctl bench") == ""
