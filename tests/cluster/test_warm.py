"""Copies of a warm process: they are what `python -m` starts, only sooner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.processes import COMMAND_TIMEOUT_S, WAIT_S, Outcome, free_port, wait_for
from tests.cluster.warm import Copy, Originals

ROOT = Path(__file__).parents[2]
NOBODY_WAITS = """
import os, sys, time
from tests.cluster.warm import Originals
originals = Originals()
words = ["wait", "--for", "leader", "--timeout", "0", "-e", sys.argv[1]]
copy = originals.start_with_pipes("raftctl", words, environment=os.environ)
print(copy.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def originals(warm_starts: Originals | None) -> Iterator[Originals]:
    """The ones that all tests here use, if they use any."""
    if warm_starts is not None:
        yield warm_starts
        return
    originals = Originals()
    try:
        yield originals
    finally:
        originals.close()


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAFTCTL_")}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def ended(process: subprocess.Popen[str] | Copy, given: str) -> Outcome:
    stdout, stderr = process.communicate(given, timeout=COMMAND_TIMEOUT_S)
    return Outcome(process.returncode, stdout, stderr)


@pytest.mark.parametrize(
    ("words", "more", "given"),
    [
        (["--version"], {}, ""),
        (["status"], {"RAFTCTL_TIMEOUT": "soon"}, ""),
        (["remove", "n1"], {"RAFTCTL_ENDPOINTS": "127.0.0.1:1", "RAFTCTL_OUTPUT": "json"}, ""),
        (["put", "key", "-"], {}, "never read"),
        (["config", "validate", "cluster.yaml"], {}, ""),
        (["completion", "bash"], {"LC_ALL": "C"}, ""),
        (["status", "--help"], {"COLUMNS": "60"}, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_copy_prints_and_returns_what_an_interpreter_of_its_own_does(
    originals: Originals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    more: dict[str, str],
    given: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.yaml").write_text("cluster: é\nservers: {n1: {adress: x}}\n")
    if words[0] == "put":
        (tmp_path / "cluster.yaml").unlink()
    cold = subprocess.Popen(
        [sys.executable, "-m", "raftctl", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**more),
    )
    warm = originals.start_with_pipes("raftctl", words, environment=environment(**more))
    assert ended(warm, given) == ended(cold, given)


def waiting(originals: Originals) -> Copy:
    """Return a raftctl that waits for nothing that would come, and has begun to."""
    words = ["wait", "--for", "leader", "-e", f"127.0.0.1:{free_port()}", "--timeout", "0"]
    copy = originals.start_with_pipes("raftctl", words, environment=environment())
    assert copy.stderr is not None
    assert copy.stderr.readline()
    return copy


def test_a_copy_takes_signals_and_says_how_it_has_ended(originals: Originals) -> None:
    one, other, third = (waiting(originals) for _ in range(3))
    assert len({one.pid, other.pid, third.pid}) == 3
    assert one.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        one.wait(0.01)
    one.send_signal(signal.SIGINT)
    outcome = ended(one, "")
    assert (outcome.code, "interrupted" in outcome.stderr) == (130, True)
    # Later than that of another one that was started later.
    third.kill()
    assert ended(third, "").code == -signal.SIGKILL
    assert other.poll() is None
    other.send_signal(signal.SIGTERM)
    assert ended(other, "").code == -signal.SIGTERM
    # It is not there any more; no other process is hit that may have its number.
    other.kill()
    assert not Path(f"/proc/{other.pid}").exists()


def test_a_copy_does_not_outlive_tests_that_are_killed() -> None:
    tests = subprocess.Popen(
        [sys.executable, "-c", NOBODY_WAITS, f"127.0.0.1:{free_port()}"],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    )
    with tests:
        assert tests.stdout is not None
        pid = int(tests.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        tests.kill()
    wait_for("the copy is gone", lambda: not Path(f"/proc/{pid}").exists(), within_s=WAIT_S)
