"""Mutants of `raftctl bench`: numbers that would look better than what the clients went through."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

CLIENTS = "raftctl/bench_clients.py"
FRAMES = "raftctl/bench_frames.py"
LATENCIES = "raftctl/latencies.py"
KEYS = "raftctl/bench_keys.py"
TESTS = "tests/raftctl/test_bench.py"
_NEVER_SIMULATED = "raftctl does not run in the simulator."

MUTANTS = (
    Mutant(
        name="bench-calls-a-lost-answer-not-applied",
        why="A write that may have been done is reported as one that was not.",
        file=CLIENTS,
        old="if slot.kind in (PUT, DELETE):\n                    errors.unknown += 1",
        new="if slot.kind in ():\n                    errors.unknown += 1",
        test=f"{TESTS}::test_a_write_whose_answer_is_lost_is_unknown_and_done_once",
        unreachable=_NEVER_SIMULATED,
    ),
    Mutant(
        name="bench-forgets-which-writes-are-open",
        why="The cluster drops the results of writes that are asked for again.",
        file=CLIENTS,
        old="lowest = next(iter(self._unacknowledged))",
        new="lowest = slot.serial",
        test=f"{TESTS}::test_a_session_is_told_what_its_client_has_not_had_an_answer_to",
        unreachable=_NEVER_SIMULATED,
    ),
    Mutant(
        name="bench-gives-a-repeated-write-a-new-time",
        why="Whoever waited for a new leader is counted as if he had asked that one first.",
        file=CLIENTS,
        old="self._in_flight += 1\n        slot.lane = self",
        new="self._in_flight += 1; slot.started_ns = time.monotonic_ns()\n        slot.lane = self",
        test=f"{TESTS}::test_a_write_that_was_not_taken_is_asked_for_again_under_its_serial",
        unreachable=_NEVER_SIMULATED,
    ),
    Mutant(
        name="bench-takes-keys-of-others-for-its-own",
        why="It removes what somebody else has written.",
        file=FRAMES,
        old="is_ours = key.startswith(stem) and len(digits) == KEY_DIGITS",
        new="is_ours = key.startswith(stem)",
        test="tests/raftctl/test_bench_frames.py::test_a_key_of_somebody_else_has_no_number",
        unreachable=_NEVER_SIMULATED,
    ),
    Mutant(
        name="bench-finds-no-write-that-was-done-twice",
        why="A session that does not work goes unnoticed.",
        file=KEYS,
        old="if not least <= entry.version <= most:",
        new="if not least <= entry.version:",
        test=f"{TESTS}::test_a_write_that_was_lost_is_found",
        unreachable=_NEVER_SIMULATED,
    ),
    Mutant(
        name="percentile-is-the-beginning-of-its-bucket",
        why="A percentile says less than so many requests have taken.",
        file=LATENCIES,
        old="return min(self.max_ns, bucket_start_ns(bucket + 1) - 1)",
        new="return min(self.max_ns, bucket_start_ns(bucket))",
        test="tests/raftctl/test_latencies.py"
        "::test_a_percentile_is_at_least_the_exact_one_and_at_most_a_64th_more",
        unreachable=_NEVER_SIMULATED,
    ),
)
