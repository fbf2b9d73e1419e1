"""Exhibits 86 to 92: the state machine and its sessions."""

from __future__ import annotations

from tests.museum.catalogue import Exhibit

SCRIPTS = "museum/test_sessions.py::"
SNAPSHOTS = "museum/test_snapshot_storage.py::"
STATE = "storage/test_state.py::"
NODE = "node/test_sessions.py::"

SESSIONS: tuple[Exhibit, ...] = (
    Exhibit(
        number=86,
        title="Compaction lost the sessions",
        seen_in=("copycat #14", "atomix #341", "atomix #1101", "redisraft 7cdad3a"),
        story=(
            "A client's command 7 is applied, a snapshot is taken, the server restarts, and the "
            "client asks for 7 again. The snapshot had no sessions, or those of another service, "
            "and the command was done twice. The table of sessions with its answers is a part of "
            "the state, equal on every server."
        ),
        shown_by=(
            SNAPSHOTS
            + "test_086_a_retry_is_recognised_by_servers_that_know_it_from_a_snapshot_alone",
            SCRIPTS + "test_086_a_retry_after_all_servers_restarted_is_not_done_again",
            SCRIPTS + "test_086_the_session_table_goes_wherever_the_store_goes",
            NODE + "test_sessions_survive_the_restart_of_every_server",
        ),
    ),
    Exhibit(
        number=87,
        title="Each server let sessions expire by its own clock",
        seen_in=("redpanda #551", "RaftKeeper #58", "copycat #14"),
        story=(
            "One server finds a session too old and forgets it, another one does not. From then on "
            "they answer the same command differently. What expires is decided by the log alone: "
            "the session whose last use stands furthest back goes when one too many is opened, on "
            "every server at the same entry."
        ),
        shown_by=(
            SCRIPTS + "test_087_a_session_lives_and_dies_by_the_log_and_by_no_clock",
            SCRIPTS + "test_087_eviction_is_the_same_in_batches_of_any_size",
            STATE + "test_eviction_is_exactly_by_last_use",
            STATE + "test_batches_of_any_size_leave_the_same_bytes",
        ),
    ),
    Exhibit(
        number=88,
        title="A request of an expired session was executed as a new one",
        seen_in=("dissertation 6.3",),
        story=(
            "A client retries a command that was done, after its session has been forgotten. "
            "Taken for the first of a new session, it was done again. It has to be refused as "
            "expired and never executed, and a late copy of the registration must not open the "
            "session again."
        ),
        shown_by=(
            SCRIPTS + "test_088_a_request_of_an_expired_session_is_an_error_and_never_executed",
            NODE + "test_an_evicted_session_is_expired_on_every_server",
            STATE + "test_a_late_copy_of_an_open_command_does_not_open_an_evicted_session",
        ),
    ),
    Exhibit(
        number=89,
        title="An older serial that came after a newer one got the wrong answer",
        seen_in=("dissertation 6.3",),
        story=(
            "A copy of command 1 arrives after command 2. With only the last answer kept it got "
            "that of 2, or it was done again. Every answer that the client has not acknowledged is "
            "kept under its own serial and repeated as it was; what it has acknowledged is stale "
            "and refused."
        ),
        shown_by=(
            SCRIPTS + "test_089_an_older_serial_after_a_newer_one_gets_its_own_answer_or_none",
            STATE + "test_an_acknowledged_serial_is_never_executed_again",
            STATE + "test_an_answer_that_was_no_is_repeated_too",
            NODE + "test_conditions_answer_applied_false_and_the_same_when_asked_again",
        ),
    ),
    Exhibit(
        number=90,
        title="The index of a snapshot was not that of its content",
        seen_in=("dgraph #7719",),
        story=(
            "A snapshot says that it ends one entry earlier or later than what it holds, and after "
            "it is loaded an entry is applied twice or never. The applied index and what was "
            "applied change in one transaction of the store, and a snapshot is a copy of the store "
            "as one reader saw it."
        ),
        shown_by=(
            SNAPSHOTS + "test_090_a_snapshot_holds_exactly_the_entries_up_to_its_index",
            "storage/test_worker.py::test_a_snapshot_is_of_one_moment_while_the_server_writes_on",
            "storage/test_worker.py"
            "::test_the_head_of_a_snapshot_is_of_the_same_moment_as_its_pairs",
            SCRIPTS + "test_090_the_applied_index_is_exactly_that_of_the_content",
            STATE + "test_a_restarted_machine_stands_where_the_first_one_stood",
        ),
    ),
    Exhibit(
        number=91,
        title="A state was loaded over another one",
        seen_in=("redisraft 8a8ef1b",),
        story=(
            "A server installs a snapshot over what it had, and keys and sessions that the "
            "snapshot does not have stayed. What is loaded replaces everything that was there, on "
            "the disk and in memory."
        ),
        shown_by=(
            SNAPSHOTS + "test_091_an_installed_snapshot_replaces_everything_that_was_there",
            SCRIPTS + "test_091_what_is_loaded_replaces_what_was_in_memory",
            STATE + "test_nothing_of_a_batch_with_a_broken_command_is_visible",
        ),
    ),
    Exhibit(
        number=92,
        title="Registrations that were sent again piled up sessions",
        seen_in=("dissertation 6.3",),
        story=(
            "A client hears nothing of its registration and registers again, and again. Each try "
            "left a session that nobody used, without bound. The client chooses the name, so that "
            "a repetition finds the same session with all that it remembers; there is a bound, and "
            "which session goes is the same everywhere."
        ),
        shown_by=(
            SCRIPTS + "test_092_registering_again_makes_no_second_session",
            SCRIPTS
            + "test_092_sessions_that_nobody_uses_are_bounded_and_go_in_the_same_order_everywhere",
            STATE + "test_names_of_evicted_sessions_are_bounded",
        ),
    ),
)
