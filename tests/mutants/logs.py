"""Mutants of what people are told: the log, its level, and the service manager."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

LINES = "tests/node/test_log_lines.py"
LEVELS = "tests/node/test_log_level.py"
NOTIFY = "tests/test_service_notify.py"

MUTANTS = (
    Mutant(
        name="lines-are-never-spared",
        why="A member that comes and goes all the time fills the log.",
        file="raftd/event_log.py",
        old="        if self._told >= self._lines_max:\n",
        new="        if self._told > self._lines_max * 1000:\n",
        test=f"{LINES}::test_a_sparing_lets_some_lines_through_and_counts_the_others",
    ),
    Mutant(
        name="every-attempt-to-find-a-leader-is-told",
        why="A server without a quorum logs a line in each election timeout.",
        file="raftd/role_log.py",
        old="        if (raft.now - self._told_tick) * self._tick_ms < STILL_MS:\n",
        new="        if (raft.now - self._told_tick) * self._tick_ms < 0:\n",
        test=f"{LINES}::test_a_server_that_finds_no_leader_says_so_now_and_then",
    ),
    Mutant(
        name="old-configurations-are-news",
        why="Each start tells the whole history of the membership again.",
        file="raftd/membership_log.py",
        old="        if index <= self._known_index or not is_ours:\n",
        new="        if index <= 0 or not is_ours:\n",
        test=f"{LINES}::test_what_a_restart_finds_is_no_news",
    ),
    Mutant(
        name="a-level-for-a-while-stays",
        why="Somebody turns the log up at night, and the disk is full a week later.",
        file="raftd/log_level.py",
        old="        if self._back_to and self._clock() >= self._back_at:\n",
        new="        if self._back_to and self._clock() >= 2 * self._back_at:\n",
        test=f"{LEVELS}::test_a_change_for_a_while_goes_back_by_itself",
    ),
    Mutant(
        name="reading-the-file-again-undoes-a-level",
        why="A new certificate ends the debugging of an administrator.",
        file="raftd/log_level.py",
        old="        if server.log_level != self._word:\n",
        new="        if server.log_level:\n",
        test=f"{LEVELS}::test_the_file_that_is_read_again_counts_only_where_it_has_changed",
    ),
    Mutant(
        name="an-idle-server-sleeps-longer-than-its-watchdog",
        why="The service manager kills a healthy server that has nothing to do.",
        file="raftd/service_notify.py",
        old="int(self._watchdog_seconds / PINGS_PER_WATCHDOG / tick_seconds) - 1)\n",
        new="int(self._watchdog_seconds * PINGS_PER_WATCHDOG / tick_seconds) - 1)\n",
        test=f"{NOTIFY}::test_pings_come_at_half_of_the_watchdog_however_the_loop_sleeps",
    ),
    Mutant(
        name="a-helper-may-speak-for-the-server",
        why="A process that the server starts tells the manager that the server is alive.",
        file="raftd/service_notify.py",
        old='environment.pop(name, "") for name in _ENVIRONMENT',
        new='environment.get(name, "") for name in _ENVIRONMENT',
        test=f"{NOTIFY}::test_who_is_watched_is_another_process",
    ),
)
