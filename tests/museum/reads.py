"""Exhibits 69 to 74: reads."""

from __future__ import annotations

from tests.museum.catalogue import Exhibit

SCRIPTS = "museum/test_reads.py::"
READS_OF_CORE = "core/test_reads.py::"
NODE = "node/test_node.py::"

READS: tuple[Exhibit, ...] = (
    Exhibit(
        number=69,
        title="A new leader answered reads before its first commit",
        seen_in=("etcd #7331", "etcd #7332", "redisraft #19", "redisraft #22", "etcd #12680"),
        story=(
            "A write is acknowledged and the leader dies before anybody hears that it is "
            "committed. The next leader read at its own, older commit index and returned the value "
            "from before. It has to hold reads back until an entry of its own term is committed, "
            "and then answer them, not drop them."
        ),
        shown_by=(
            SCRIPTS
            + "test_069_a_new_leader_reads_nothing_before_its_first_commit_and_then_answers",
            READS_OF_CORE + "test_reads_wait_for_the_no_op_of_the_term",
            NODE + "test_a_read_waits_for_the_first_commit_of_the_leaders_term",
        ),
    ),
    Exhibit(
        number=70,
        title="A leader of the past answered from memory",
        seen_in=("d-engine #381",),
        story=(
            "A leader that was cut off does not know that the others have elected a new one and "
            "written on. Everything it knew to be committed was applied, so it answered. A read "
            "waits for a round of heartbeats that starts after it has arrived and that a majority "
            "answers."
        ),
        shown_by=(
            SCRIPTS + "test_070_a_leader_of_the_past_does_not_answer_from_memory",
            READS_OF_CORE + "test_a_leader_without_a_majority_answers_nothing_stale",
            "golden/read_index.txt",
        ),
    ),
    Exhibit(
        number=71,
        title="Answers to a first question confirmed its repetition",
        seen_in=("etcd #20418", "etcd-io/raft #397", "antfly #599"),
        story=(
            "A client repeats a read under the same name after the leader has been replaced "
            "unnoticed, and the answer of a follower to the first round arrives late. It was taken "
            "for an answer to the second and confirmed that read and all that waited with it. "
            "Rounds are numbered by the leader, never twice in a term, and the client's names mean "
            "nothing."
        ),
        shown_by=(
            SCRIPTS + "test_071_answers_to_the_first_question_do_not_confirm_its_repetition",
            READS_OF_CORE + "test_answers_to_an_older_round_confirm_nothing",
            READS_OF_CORE + "test_a_round_is_never_used_twice",
        ),
    ),
    Exhibit(
        number=72,
        title="Reads after a restart found nothing",
        seen_in=("redisraft #18", "etcd #3879"),
        story=(
            "A server restarts and is asked before it has applied its log again. It answered that "
            "there is no such key. It may answer only as a leader that a quorum has confirmed, "
            "once it has applied all that was committed."
        ),
        shown_by=(
            SCRIPTS + "test_072_a_restarted_server_is_never_taken_for_an_empty_one",
            NODE + "test_a_confirmed_read_waits_until_all_that_was_committed_before_it_is_applied",
        ),
    ),
    Exhibit(
        number=73,
        title="While joint one half confirmed a read",
        seen_in=("scylla #29226",),
        story=(
            "Leader 1 of {1,2,3} has brought the joint entry for {1,4,5} to 4 and 5 only, and 2 "
            "and 3 elect their own leader by the old configuration and write. The answers of 4 and "
            "5 alone must not confirm a read at 1. Reads need both majorities, as everything does."
        ),
        shown_by=(
            SCRIPTS + "test_073_while_joint_the_new_half_alone_does_not_confirm_a_read",
            READS_OF_CORE + "test_while_joint_one_half_does_not_confirm_a_read",
        ),
    ),
    Exhibit(
        number=74,
        title="A server answered with the leader's index and its own older state",
        seen_in=("dissertation 6.4",),
        story=(
            "A follower asks the leader up to where a read has to see and then reads its own "
            "state, which is not there yet. Here a follower names the leader instead, unless it is "
            "asked to answer itself; and whoever answers waits until it has applied the index of "
            "the read."
        ),
        shown_by=(
            SCRIPTS + "test_074_a_follower_answers_no_read_from_its_own_state",
            "node/test_reading.py::test_it_waits_until_it_has_what_was_acknowledged_elsewhere",
            NODE + "test_a_confirmed_read_waits_until_all_that_was_committed_before_it_is_applied",
        ),
    ),
)
