"""Mutants of what is told by HTTP: health, measurements, who may ask and how often."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

SERVING = "raftd/http/serving.py"
HEALTH = "raftd/http/health.py"
SURVEY = "raftd/http/survey.py"
SERVING_TESTS = "tests/http/test_serving.py"
HEALTH_TESTS = "tests/http/test_health.py"
SURVEY_TESTS = "tests/http/test_survey.py"
METRICS_TESTS = "tests/http/test_metrics.py"
NO_HTTP = "the simulator has no listeners, and counts what it wants to know itself"

MUTANTS = (
    Mutant(
        name="any-name-in-host",
        why="A web page of somebody else, bound to this address, has its visitors read from it.",
        file=SERVING,
        old="        if host and not is_host_allowed(host, self._hosts):\n",
        new="        if False:\n",
        test=f"{SERVING_TESTS}::test_a_page_whose_name_was_bound_to_this_address_reads_nothing",
        unreachable=NO_HTTP,
    ),
    Mutant(
        name="content-left-unread",
        why="What a client sends as content is taken for its next request.",
        file=SERVING,
        old='        if headers.get("content-length", "0").strip("0")'
        ' or "transfer-encoding" in headers:\n',
        new="        if False:\n",
        test=f"{SERVING_TESTS}::test_a_request_with_content_is_refused_unread",
        unreachable=NO_HTTP,
    ),
    Mutant(
        name="http-connections-unbounded",
        why="Whoever opens enough of them leaves no descriptors for the other servers.",
        file=SERVING,
        old="            if self.connection_count <= CONNECTIONS_MAX + REFUSALS_MAX:\n",
        new="            if True:\n",
        test=f"{SERVING_TESTS}::test_too_many_connections_are_told_so_and_still_more_are_closed",
        unreachable=NO_HTTP,
    ),
    Mutant(
        name="http-rate-unbounded",
        why="A few clients that ask as fast as they can take the event loop from the driver.",
        file=SERVING,
        old="        self._free_at = turn_at + 1 / REQUESTS_PER_SECOND_MAX\n",
        new="        self._free_at = turn_at\n",
        test=f"{SERVING_TESTS}::test_requests_beyond_the_rate_wait_for_their_turn",
        unreachable=NO_HTTP,
    ),
    Mutant(
        name="ready-with-a-leader-of-long-ago",
        why="Clients are sent to a server that is cut off, until it notices by itself.",
        file=HEALTH,
        old="        if age_ticks < raft.options.election_ticks:\n",
        new="        if True:\n",
        test=f"{HEALTH_TESTS}"
        "::test_a_follower_that_hears_nobody_is_not_ready_before_it_gives_its_leader_up",
        unreachable=NO_HTTP,
    ),
    Mutant(
        name="ready-before-it-has-caught-up",
        why="Clients are sent to a server that still lacks what was committed before its start.",
        file=HEALTH,
        old="        return max(raft.log.leader_commit_index, raft.log.commit_index)\n",
        new="        return raft.log.commit_index\n",
        test=f"{HEALTH_TESTS}"
        "::test_a_server_is_ready_once_it_has_what_was_committed_when_it_was_started",
        unreachable=NO_HTTP,
    ),
    Mutant(
        name="survey-for-each-looker",
        why="Twenty browsers have every server of the cluster dialled twenty times a second.",
        file=SURVEY,
        old="            if self._sight is None or now - self._looked_at >= FRESH_SECONDS:\n",
        new="            if True:\n",
        test=f"{SURVEY_TESTS}::test_however_many_look_everybody_is_asked_once_in_a_while",
        unreachable=NO_HTTP,
    ),
    Mutant(
        name="commit-of-others-timed",
        why="A follower, which knows nothing of when a batch was appended, shows latencies.",
        file="raftd/telemetry.py",
        old="        if isinstance(raft.role, Leader):\n",
        new="        if True:\n",
        test=f"{METRICS_TESTS}::test_a_follower_says_nothing_of_its_peers",
        unreachable=NO_HTTP,
    ),
)
