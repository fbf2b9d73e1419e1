"""`raftctl bench` against servers that do what a test says."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

from raftctl.bench import Bench
from raftctl.bench_clients import Errors
from raftctl.cli import main
from raftctl.render import width_of
from raftd.protocol import (
    DeleteRequest,
    ErrorReply,
    GetRequest,
    ListRequest,
    OpenSessionRequest,
    PutRequest,
    Refusal,
    Request,
    StatusReply,
    StatusRequest,
)
from tests.raftctl.benched import BenchedCluster, unavailable
from tests.raftctl.documented import problem_of
from tests.raftctl.golden_files import Terminal
from tests.raftctl.speaking_servers import (
    LOSE,
    SILENCE,
    Answer,
    SpeakingServer,
    closed_address,
    configuration,
    speaking_servers,
    status_of,
)

pytestmark = pytest.mark.usefixtures("no_surroundings")

QUICK = ("--duration", "100ms", "--warm-up", "0", "--keys", "20")


@pytest.fixture
def cluster() -> Iterator[BenchedCluster]:
    with speaking_servers("n1/a", "n2/b", "n3/c") as servers:
        yield BenchedCluster(*servers)


class Command:
    """Runs `raftctl bench` on a cluster and keeps what it has said."""

    def __init__(self, cluster: BenchedCluster, capsys: pytest.CaptureFixture[str]) -> None:
        self.cluster = cluster
        self._capsys = capsys
        self.stdout = self.stderr = ""
        self.until: Callable[[Errors], bool] = lambda errors: True
        """It measures on until this holds of what it has counted."""
        self.is_measuring = False
        """Whether what is sent from now on counts."""

    def __call__(self, *words: str) -> int:
        self._capsys.readouterr()
        self.is_measuring = False
        code = main(["bench", "-e", self.cluster.endpoints, *words])
        self.stdout, self.stderr = self._capsys.readouterr()
        return code

    def measure(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Run it quickly and return its result."""
        assert self(*QUICK, "-o", "json", *words) == code, self.stderr
        result: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        assert problem_of(result, "raftctl bench") == ""
        return result

    @property
    def error(self) -> dict[str, str]:
        """The error, as programs read it."""
        found: dict[str, str] = json.loads(self.stderr.splitlines()[-1])["error"]
        return found


@pytest.fixture
def bench(
    cluster: BenchedCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """The command; it measures until it has counted something, however slow the machine is."""
    command = Command(cluster, capsys)
    is_measured = Bench.is_measured

    def is_measured_and_seen(bench: Bench, now_ns: int) -> bool:
        command.is_measuring = True
        if not is_measured(bench, now_ns):
            return False
        has_counted = all(each.count for each in bench.result().latencies.values())
        return has_counted and command.until(bench.errors)

    monkeypatch.setattr(Bench, "is_measured", is_measured_and_seen)
    return command


class Moment:
    """Comes with one request of a kind, so late that those which follow each other count.

    The load begins before it is measured, for as long as the servers take to say what they use.
    """

    def __init__(self, bench: Command, kind: type[Request] = PutRequest) -> None:
        self._bench, self._kind = bench, kind
        self._requests = 0
        self.has_come = False

    def comes_with(self, request: Request) -> bool:
        """Return True once."""
        if not self._bench.is_measuring or not isinstance(request, self._kind):
            return False
        self._requests += 1
        comes = self._requests == 50
        self.has_come |= comes
        return comes


# --- what it does -----------------------------------------------------------------------------


def test_a_mixed_load_is_measured_and_leaves_nothing_behind(
    bench: Command, cluster: BenchedCluster
) -> None:
    found = bench.measure("--clients", "3")
    assert found["puts"]["count"] > 0
    assert found["gets"]["count"] > 0
    assert found["count"] == found["puts"]["count"] + found["gets"]["count"]
    assert found["errors"] == dict.fromkeys(("redirected", "not_applied", "unknown", "refused"), 0)
    assert (found["missed"], found["unresolved"], found["refusal"]) == (0, 0, None)
    assert found["leaders"] == [{"seconds": 0.0, "id": "n1"}]
    assert sorted(server["id"] for server in found["servers"]) == ["n1", "n2", "n3"]
    assert found["keys_removed"] == 20
    assert cluster.touched == {f"raftctl-bench/bench-{number:07d}" for number in range(20)}
    assert cluster.state == {}


@pytest.mark.parametrize(
    ("words", "puts", "gets"),
    [
        (["--workload", "put"], True, False),
        (["--workload", "get"], False, True),
        (["--reads", "100%"], False, True),
        (["--reads", "0%", "--workload", "mixed"], True, False),
        (["--reads", "30"], True, True),
    ],
)
def test_the_workload_says_what_is_asked_for(
    words: list[str], puts: bool, gets: bool, bench: Command
) -> None:
    found = bench.measure("--clients", "2", *words)
    assert (found["puts"] is not None, found["gets"] is not None) == (puts, gets)
    assert found["count"] > 0


def test_the_buckets_hold_every_request_and_percentiles_are_in_order(bench: Command) -> None:
    found = bench.measure("--clients", "2")["puts"]
    assert sum(bucket["count"] for bucket in found["buckets"]) == found["count"]
    edges = [edge for bucket in found["buckets"] for edge in (bucket["from_ms"], bucket["to_ms"])]
    assert edges == sorted(edges)
    percentiles = [found[name] for name in ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms")]
    assert percentiles == sorted(percentiles)
    assert found["buckets"][0]["from_ms"] <= found["p50_ms"]
    assert found["max_ms"] < found["buckets"][-1]["to_ms"]


def test_each_client_has_a_session_and_its_serials_have_no_gap(
    bench: Command, cluster: BenchedCluster
) -> None:
    bench.measure("--clients", "4", "--pipeline", "8", "--workload", "put")
    assert cluster.asked["OpenSessionRequest"] == 4
    assert len(cluster.writes) == 4
    for serials in cluster.writes.values():
        assert serials == list(range(1, len(serials) + 1))


def test_a_session_is_told_what_its_client_has_not_had_an_answer_to(
    bench: Command, cluster: BenchedCluster
) -> None:
    unanswered: dict[str, set[int]] = {}
    spread = [0]

    def watch(server: SpeakingServer, request: Request) -> None:
        if isinstance(request, PutRequest | DeleteRequest):
            waiting = unanswered.setdefault(request.session, set())
            # Answered at once: what was asked for before, and is not lower than this, may wait.
            waiting.add(request.serial)
            assert request.lowest_unacknowledged <= request.serial
            spread[0] = max(spread[0], request.serial - request.lowest_unacknowledged)

    cluster.trouble = watch
    bench.measure("--clients", "1", "--pipeline", "4", "--workload", "put")
    # The removal has more requests on their way than the pipeline.
    assert 3 <= spread[0] < 16


def test_stale_reads_go_to_every_server(bench: Command, cluster: BenchedCluster) -> None:
    found = bench.measure("--clients", "3", "--workload", "get", "--stale")
    assert found["stale"] is True
    assert set(cluster.asked_of) == {"n1/a", "n2/b", "n3/c"}
    assert found["errors"]["redirected"] == 0


def test_reads_of_the_leader_go_to_nobody_else(bench: Command, cluster: BenchedCluster) -> None:
    bench.measure("--clients", "3", "--workload", "get")
    assert set(cluster.asked_of) == {"n1/a"}


def test_keep_leaves_the_keys_and_clean_removes_them(
    bench: Command, cluster: BenchedCluster
) -> None:
    found = bench.measure("--clients", "2", "--keep", "--prefix", "mine/", "--value-size", "5B")
    assert found["keys_removed"] is None
    assert sorted(cluster.state) == [f"mine/bench-{number:07d}" for number in range(20)]
    assert {entry.value for entry in cluster.state.values()} == {b"raftc"}
    cluster.apply(PutRequest(session="s", serial=1, lowest_unacknowledged=1, key="a", value=b""))
    assert bench("--clean", "--prefix", "mine/", "-o", "json") == 0
    assert json.loads(bench.stdout.splitlines()[-1]) == {"keys_removed": 20}
    assert list(cluster.state) == ["a"]
    assert bench("--clean") == 0
    assert bench.stdout == "removed 0 keys below raftctl-bench/\n"


# --- what goes wrong with requests ------------------------------------------------------------


def sometimes(cluster: BenchedCluster, kind: type[Request], answer: Answer) -> list[Request]:
    """Answer every tenth request of a kind so; return those requests, as they come."""
    met: list[Request] = []
    count = [0]

    def trouble(server: SpeakingServer, request: Request) -> Answer | None:
        if isinstance(request, kind) and server is cluster.leader:
            count[0] += 1
            if count[0] % 10 == 0:
                met.append(request)
                return answer
        return None

    cluster.trouble = trouble
    return met


LOAD = ("--clients", "2", "--workload", "put", "--verify")


def test_a_write_whose_answer_is_lost_is_unknown_and_done_once(
    bench: Command, cluster: BenchedCluster
) -> None:
    done = []

    def trouble(server: SpeakingServer, request: Request) -> Answer | None:
        if isinstance(request, PutRequest) and request.serial % 10 == 0:
            if cluster.attempts[request.session, request.serial] > 1:
                return None
            done.append(request)
            cluster.apply(request)
            return LOSE
        return None

    cluster.trouble = trouble
    bench.until = lambda errors: errors.unknown >= 2
    found = bench.measure(*LOAD)
    assert found["unresolved"] == 0
    assert found["verified"] == {"keys": 20, "lost": [], "lost_count": 0}
    assert all(cluster.attempts[each.session, each.serial] == 2 for each in done)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (unavailable(), "not_applied"),
        (ErrorReply(code="unknown-outcome", message="leadership was lost"), "unknown"),
    ],
)
def test_a_write_that_was_not_taken_is_asked_for_again_under_its_serial(
    answer: ErrorReply, kind: str, bench: Command, cluster: BenchedCluster
) -> None:
    met = sometimes(cluster, PutRequest, answer)
    # Two clients: one of them has gone on after one of these at least.
    bench.until = lambda errors: getattr(errors, kind) > 5
    found = bench.measure(*LOAD)
    assert sum(found["errors"].values()) == found["errors"][kind]
    assert found["verified"]["lost_count"] == 0
    # Its time goes on until it is answered: the pause before it is asked for again counts.
    assert found["puts"]["max_ms"] >= 20
    for request in met:
        assert isinstance(request, PutRequest)
        assert cluster.attempts[request.session, request.serial] > 1
    assert all(
        sorted(set(each)) == list(range(1, max(each) + 1)) for each in cluster.writes.values()
    )


def test_a_read_without_an_answer_is_not_unknown(bench: Command, cluster: BenchedCluster) -> None:
    sometimes(cluster, GetRequest, LOSE)
    bench.until = lambda errors: errors.not_applied > 0
    found = bench.measure("--clients", "2", "--workload", "get")
    assert found["errors"]["unknown"] == 0


def test_clients_follow_a_leader_that_moves(bench: Command, cluster: BenchedCluster) -> None:
    moment = Moment(bench)

    def move(server: SpeakingServer, request: Request) -> None:
        if moment.comes_with(request):
            cluster.leader = cluster.servers[1]

    cluster.trouble = move
    bench.until = lambda errors: errors.redirected > 0
    found = bench.measure(*LOAD)
    assert found["errors"]["unknown"] == found["errors"]["not_applied"] == 0
    assert [leader["id"] for leader in found["leaders"]][-1] == "n2"
    assert found["verified"]["lost_count"] == 0


def test_clients_go_on_when_the_leader_dies(bench: Command, cluster: BenchedCluster) -> None:
    moment = Moment(bench)

    def die(server: SpeakingServer, request: Request) -> Answer | None:
        if moment.comes_with(request):
            cluster.leader = cluster.servers[2]
        return LOSE if server is cluster.servers[0] and server is not cluster.leader else None

    cluster.trouble = die
    bench.until = lambda errors: errors.unknown > 0
    found = bench.measure(*LOAD)
    assert found["verified"]["lost_count"] == 0
    assert found["leaders"][-1]["id"] == "n3"
    gone = next(server for server in found["servers"] if server["id"] == "n1")
    assert gone["reachable"] is False


def test_what_was_refused_is_counted_and_ends_in_an_error(
    bench: Command, cluster: BenchedCluster
) -> None:
    full = ErrorReply(code="disk-full", message="writes are refused", cause="on n1", hint="-")
    sometimes(cluster, PutRequest, full)
    bench.until = lambda errors: errors.refused > 0
    found = bench.measure("--clients", "2", "--workload", "put", code=1)
    assert found["refusal"] == "writes are refused: on n1"
    assert bench.error["code"] == "refused"
    assert "writes are refused: on n1" in bench.error["cause"]
    assert found["keys_removed"] == len(cluster.touched)
    assert cluster.state == {}


def test_a_write_that_was_lost_is_found(bench: Command, cluster: BenchedCluster) -> None:
    lost = f"raftctl-bench/bench-{7:07d}"

    def lose(server: SpeakingServer, request: Request) -> None:
        # The read-back comes in pages; no other list asks for more than one key.
        if isinstance(request, ListRequest) and request.limit > 1:
            cluster.state.pop(lost, None)
            twice = cluster.state.get(f"raftctl-bench/bench-{8:07d}")
            if twice is not None:
                twice.version += 1

    cluster.trouble = lose
    found = bench.measure("--clients", "2", "--verify", code=1)
    assert found["verified"]["lost_count"] == 2
    assert any(words.startswith(f"{lost}: ") for words in found["verified"]["lost"])
    assert bench.error["code"] == "lost-writes"


def test_verify_begins_without_the_keys_of_others(bench: Command, cluster: BenchedCluster) -> None:
    bench.measure("--clients", "2", "--keep")
    found = bench.measure("--clients", "2", "--verify", "--workload", "put")
    assert found["verified"]["lost_count"] == 0


# --- where it cannot go on --------------------------------------------------------------------


def test_a_cluster_that_falls_silent_leaves_writes_of_which_nobody_knows(
    bench: Command, cluster: BenchedCluster
) -> None:
    moment = Moment(bench)

    def fall_silent(server: SpeakingServer, request: Request) -> Answer | None:
        is_late = moment.comes_with(request) or moment.has_come
        return SILENCE if is_late and not isinstance(request, StatusRequest) else None

    cluster.trouble = fall_silent
    words = ("--clients", "3", "--workload", "put", "--duration", "1m", "--timeout", "300ms")
    found = bench.measure(*words, code=5)
    assert found["unresolved"] == 3
    assert found["keys_removed"] is None
    assert found["puts"]["count"] > 0
    assert "no request was answered for 300ms" in bench.error["cause"]
    assert "bench --clean" in bench.error["hint"]
    # What nobody has answered is the longest gap so far.
    assert found["longest_gap_ms"] >= 300


def test_reads_that_nobody_answers_any_more_end_as_a_cluster_that_is_not_there(
    bench: Command, cluster: BenchedCluster
) -> None:
    moment = Moment(bench, GetRequest)

    def fall_silent(server: SpeakingServer, request: Request) -> Answer | None:
        is_late = moment.comes_with(request) or moment.has_come
        return SILENCE if is_late and not isinstance(request, StatusRequest) else None

    cluster.trouble = fall_silent
    words = ("--clients", "2", "--workload", "get", "--duration", "1m", "--timeout", "300ms")
    assert bench.measure(*words, code=3)["count"] > 0
    assert bench.error["code"] == "no-leader"
    assert "its keys are still there" in bench.error["cause"]


def test_without_a_cluster_nothing_is_sent(
    bench: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "-e", closed_address(), "--timeout", "100ms"]) == 3
    assert "nobody" in (error := capsys.readouterr().err) or "no server answered" in error


def test_a_server_without_room_for_the_clients_is_named(
    bench: Command, cluster: BenchedCluster
) -> None:
    busy = Refusal(code="busy", message="too many connections, 512 at most; try again later")

    def crowd(server: SpeakingServer, request: Request) -> None:
        if isinstance(request, ListRequest):
            server.refusal = busy

    cluster.trouble = crowd
    assert bench(*QUICK, "--clients", "600") == 1
    assert "there is no room for 600 clients" in bench.stderr
    assert "512 at most" in bench.stderr
    assert "bench --clients 300" in bench.stderr
    assert cluster.touched == set()


def test_a_prefix_with_keys_of_somebody_else_is_refused(
    bench: Command, cluster: BenchedCluster
) -> None:
    for key in ("orders/17", "orders/zzz"):
        cluster.state.clear()
        put = PutRequest(session=key, serial=1, lowest_unacknowledged=1, key=key, value=b"1")
        cluster.apply(put)
        assert bench(*QUICK, "--prefix", "orders/") == 1
        assert f"such as {key}" in bench.stderr
        assert list(cluster.state) == [key]
    assert cluster.asked["PutRequest"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_asks_it_to_end_it_shows_what_was_measured_and_removes_its_keys(
    number: signal.Signals, bench: Command, cluster: BenchedCluster
) -> None:
    handlers, moment = signal.getsignal(number), Moment(bench)

    def press(server: SpeakingServer, request: Request) -> None:
        if moment.comes_with(request):
            os.kill(os.getpid(), number)

    cluster.trouble = press
    found = bench.measure("--clients", "1", "--workload", "put", "--duration", "1m", code=130)
    assert found["interrupted"] is True
    assert found["puts"]["count"] > 20
    assert found["keys_removed"] > 0
    assert cluster.state == {}
    assert bench.error["code"] == "interrupted"
    assert signal.getsignal(number) is handlers


@pytest.mark.parametrize("timeout", ["0s", "30s"])
def test_ctrl_c_while_nobody_lets_it_in_is_no_failure_of_the_cluster(
    timeout: str, bench: Command, cluster: BenchedCluster
) -> None:
    def press(server: SpeakingServer, request: Request) -> Answer | None:
        if not isinstance(request, OpenSessionRequest):
            return None
        os.kill(os.getpid(), signal.SIGINT)
        return SILENCE

    cluster.trouble = press
    assert bench(*QUICK, "--clients", "1", "--timeout", timeout) == 130
    assert "interrupted; nothing was measured yet" in bench.stderr
    assert cluster.state == {}


def test_a_second_ctrl_c_leaves_the_keys_and_says_so(
    bench: Command, cluster: BenchedCluster
) -> None:
    moment = Moment(bench)

    def press(server: SpeakingServer, request: Request) -> Answer | None:
        if moment.comes_with(request):
            os.kill(os.getpid(), signal.SIGINT)
        if isinstance(request, DeleteRequest):
            if request.serial == max(map(max, cluster.writes.values())):
                os.kill(os.getpid(), signal.SIGINT)
            return SILENCE
        return None

    cluster.trouble = press
    words = ("--clients", "1", "--workload", "put", "--duration", "1m")
    assert bench(*QUICK, *words) == 130
    assert "interrupted" in bench.stdout
    assert "its keys are still there: `raftctl -e" in bench.stderr
    assert cluster.state


def test_ctrl_c_before_anything_was_measured_says_that(
    bench: Command, cluster: BenchedCluster
) -> None:
    def press(server: SpeakingServer, request: Request) -> None:
        if isinstance(request, PutRequest) and request.serial == 1:
            os.kill(os.getpid(), signal.SIGINT)

    cluster.trouble = press
    assert bench(*QUICK, "--clients", "1") == 130
    assert bench.stdout == ""
    assert "nothing was measured yet" in bench.stderr
    assert cluster.state == {}


# --- what the servers use ---------------------------------------------------------------------


def test_cpu_is_what_was_used_meanwhile_and_memory_what_there_is(
    bench: Command, cluster: BenchedCluster
) -> None:
    asked = [0]

    def measured(server: SpeakingServer, request: Request) -> StatusReply | None:
        if not isinstance(request, StatusRequest) or server is not cluster.leader:
            return None
        asked[0] += 1
        view = status_of(server, role="leader", leader=server)
        return attrs.evolve(
            view,
            configuration=configuration(*cluster.servers),
            uptime_ms=100_000 + 1000 * asked[0],
            cpu_ms=5_000 + 250 * asked[0],
            rss_bytes=90 << 20,
            rss_anon_bytes=(40 - asked[0]) << 20,
        )

    cluster.trouble = measured
    found = {server["id"]: server for server in bench.measure("--clients", "1")["servers"]}
    n1, n2 = found["n1"], found["n2"]
    assert n1["cpu_fraction"] == 0.25
    assert n1["cpu_ms"] % 250 == 0
    assert 0 < n1["cpu_ms"] < 250 * asked[0]
    assert n1["rss_bytes"] == 90 << 20
    assert n1["rss_anon_bytes"] < n1["rss_anon_max_bytes"] < 40 << 20
    # One of an older release.
    assert (n2["cpu_ms"], n2["cpu_fraction"], n2["rss_bytes"]) == (None, None, None)


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--clients 0", "1<=x<=1024"),
        ("--clients 1025", "1<=x<=1024"),
        ("--pipeline 129", "1<=x<=128"),
        ("--keys 0", "1<=x<=1000000"),
        ("--value-size 2MiB", "0B to 1MiB"),
        ("--value-size 256", "did you mean 256B?"),
        ("--value-size 0.3B", "whole number of bytes"),
        ("--duration 10", "did you mean 10s?"),
        ("--duration 500", "did you mean 500ms?"),
        ("--warm-up 3", "did you mean 3s?"),
        ("--timeout 5", "did you mean 5s?"),
        ("--duration 50ms", "within 100ms to 24h"),
        ("--duration 25h", "within 100ms to 24h"),
        ("--duration 0", "within 100ms to 24h"),
        ("--warm-up 61m", "within 0ms to 1h"),
        ("--reads 101%", "0% to 100%"),
        ("--reads 1/2", "0% to 100%"),
        ("--reads -1", "0% to 100%"),
        ("--workload write", "'put', 'get', 'mixed'"),
        ("--workload put --reads 10%", "exclude each other"),
        ("--workload put --stale", "there are no reads"),
        ("--reads 0% --stale", "there are no reads"),
        ("--clean --verify", "--clean and --verify exclude each other"),
        ("--clean --keep", "--clean and --keep exclude each other"),
        ("--clean --stale --keep", "--clean and --keep, --stale exclude each other"),
        ("--prefix=", "1 to 467 bytes"),
        (f"--prefix {'p' * 468}", "1 to 467 bytes"),
        ("--keys 1,025 --value-size 1MiB", "1GiB is what it may write in all"),
        ("--clients 257 --value-size 1MiB", "256MiB is what the leader may have to hold"),
        ("--clients 1 --pipeline 17 --value-size 1MiB", "16MiB is what a server keeps"),
    ],
)
def test_bad_input_is_refused_with_its_bounds_and_nothing_is_sent(
    words: str, named: str, bench: Command, cluster: BenchedCluster
) -> None:
    assert bench(*words.split()) == 2
    assert named in bench.stderr
    assert "nothing was sent" in bench.stderr
    assert cluster.asked == {}


def test_more_clients_than_open_files_are_allowed_are_refused(
    bench: Command, cluster: BenchedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[tuple[int, int]] = [(256, 600)]
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: limits.append(pair))
    assert bench("--clients", "473", *QUICK) == 2
    assert "600 open files" in bench.stderr
    assert "bench --clients 472" in bench.stderr
    assert bench("--clients", "237", "--stale", *QUICK) == 2
    assert "474 connections" in bench.stderr
    assert cluster.asked == {}
    assert bench("--clients", "472", "--clean") == 0
    assert limits[-1] == (600, 600)


def test_the_command_that_is_proposed_for_too_large_amounts_is_within_them(
    bench: Command, cluster: BenchedCluster
) -> None:
    assert bench("--clients", "512", "--value-size", "1MiB", "-o", "json") == 2
    words = bench.error["hint"].split()
    assert words[:2] == ["raftctl", "-e"]
    assert bench(*words[4:], *QUICK, "--clean") == 0


# --- for people -------------------------------------------------------------------------------


def test_people_are_told_once_a_second_how_far_it_is(
    bench: Command, cluster: BenchedCluster
) -> None:
    words = ("--clients", "2", "--duration", "1100ms", "--warm-up", "0", "--keys", "5")
    assert bench(*words) == 0
    lines = [line for line in bench.stderr.splitlines() if "/s  p50 " in line]
    assert len(lines) == 1
    assert lines[0].startswith("   1s  ")
    assert "puts" in bench.stdout
    assert "LATENCY OF GETS" in bench.stdout
    assert "\x1b" not in bench.stdout + bench.stderr


def test_on_a_terminal_the_progress_is_drawn_over_and_gone_at_the_end(
    bench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    stdout, stderr = Terminal(), Terminal()
    monkeypatch.setattr("sys.stdout", stdout)
    monkeypatch.setattr("sys.stderr", stderr)
    bench("--clients", "2", "--duration", "1100ms", "--warm-up", "0", "--keys", "5")
    before, *drawn, after = stderr.getvalue().split("\r\x1b[J")
    assert (before, after) == ("", "")
    assert any("/s  p50" in line for line in drawn)
    assert max(map(width_of, drawn)) < 40
    assert "\n" not in stderr.getvalue()
    assert "\x1b[32m" in stdout.getvalue()
    assert max(map(width_of, stdout.getvalue().splitlines())) <= 40
