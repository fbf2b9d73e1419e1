"""Mutants of the Python client: what is known of a write, and what its tasks share."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

CALLS = "raftd/client/calls.py"
LINKS = "raftd/client/links.py"
CALL_TESTS = "tests/client/test_calls.py"
ASYNC_TESTS = "tests/client/test_async_client.py"
EXACTLY_ONCE = "tests/client/test_exactly_once.py::test_what_a_write_says_of_itself_is_true"
NO_CLIENT = "the simulator has clients of its own"

MUTANTS = (
    Mutant(
        name="lost-write-called-not-applied",
        why="The program writes again under a new serial, and it is done twice.",
        file=CALLS,
        old="            if problem.sent and not only_reads(self._request):\n",
        new="            if False:\n",
        test=EXACTLY_ONCE,
        unreachable=NO_CLIENT,
    ),
    Mutant(
        name="open-write-acknowledged",
        why="The cluster forgets the answer that whoever settles the write needs.",
        file=CALLS,
        old="                keep = True\n",
        new="                keep = False\n",
        test=EXACTLY_ONCE,
        unreachable=NO_CLIENT,
    ),
    Mutant(
        name="writes-of-other-tasks-acknowledged",
        why="A write that is sent again after a lost answer is refused, although it was done.",
        file=CALLS,
        old="request = build(session.id, serial, session.lowest)",
        new="request = build(session.id, serial, serial)",
        test=EXACTLY_ONCE,
        unreachable=NO_CLIENT,
    ),
    Mutant(
        name="expired-session-replaced-after-a-lost-answer",
        why="What was done in the old session is done again in the new one.",
        file=CALLS,
        old='        if reply.code == "session-expired":\n            return unknown_of(',
        new='        if reply.code == "nothing":\n            return unknown_of(',
        test=EXACTLY_ONCE,
        unreachable=NO_CLIENT,
    ),
    Mutant(
        name="later-refusal-believed",
        why="A full disk now says nothing about the attempt whose answer was lost.",
        file=CALLS,
        old="        if not says_nothing_of_before(self._request, reply):\n",
        new="        if True:\n",
        test=f"{CALL_TESTS}::test_a_refusal_after_a_lost_answer_says_nothing_of_the_first_attempt",
        unreachable=NO_CLIENT,
    ),
    Mutant(
        name="every-call-looks-for-the-leader",
        why="Hundreds of tasks ask all servers ten times a second while these elect.",
        file="raftd/client/async_client.py",
        old="                elif search is not None or self._search is None:\n",
        new="                elif True:\n",
        test=f"{ASYNC_TESTS}::test_one_call_looks_for_a_leader_while_the_others_wait",
        unreachable=NO_CLIENT,
    ),
    Mutant(
        name="withdrawn-write-called-sent",
        why="A write that never left the client ends as unknown.",
        file=LINKS,
        old="            del self._waiters[number]\n            return False\n",
        new="            del self._waiters[number]\n            return True\n",
        test=f"{ASYNC_TESTS}::test_what_waits_behind_others_can_be_withdrawn_and_is_not_applied",
        unreachable=NO_CLIENT,
    ),
    Mutant(
        name="answers-owed-without-end",
        why="A server takes nothing more of a connection on which it owes too many answers.",
        file=LINKS,
        old="            if self._abandoned > ABANDONED_MAX:\n",
        new="            if False:\n",
        test=f"{ASYNC_TESTS}::test_answers_that_are_owed_without_end_end_the_connection",
        unreachable=NO_CLIENT,
    ),
)
