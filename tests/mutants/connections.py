"""Mutants of how connections are read: the set of sockets, the inbox, and who is not read."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

INPUTS = "raftd/network/inputs.py"
CONNECTION = "raftd/network/connection.py"
LISTENER = "raftd/network/listener.py"
DRIVER_TESTS = "tests/network/test_busy_driver.py"
CONNECTION_TESTS = "tests/network/test_connection.py"
NO_SOCKETS = "the simulator has neither sockets nor an event loop"

MUTANTS = (
    Mutant(
        name="driver-not-woken-by-a-task",
        why="What a task has to say waits for the next tick, or for whatever a socket brings.",
        file=INPUTS,
        old="            self._waits.cancel()\n",
        new="            pass\n",
        test=f"{DRIVER_TESTS}::test_a_driver_that_waits_for_the_sockets_is_woken",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="busy-driver-never-yields",
        why="While clients keep the sockets busy nobody is greeted, and no signal is heard.",
        file=INPUTS,
        old="        elif self._found_at - self._yielded_at >= YIELD_SECONDS:\n",
        new="        elif False:\n",
        test=f"{DRIVER_TESTS}"
        "::test_sockets_that_keep_the_driver_busy_do_not_keep_it_from_the_other_tasks",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="driver-stays-busy-for-ever",
        why="Who was busy once goes on to hold up the event loop where nothing is to be heard.",
        file=INPUTS,
        old="            self._is_busy = False\n",
        new="            self._is_busy = True\n",
        test=f"{DRIVER_TESTS}::test_a_busy_driver_that_finds_nothing_goes_back_to_the_event_loop",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="tick-waits-for-quiet-sockets",
        why="Clients that are busy stop the clock: no heartbeat leaves.",
        file=INPUTS,
        old="            if now >= not_before and now >= tick_at():\n",
        new="            if now >= tick_at() and not self._is_busy:\n",
        test=f"{DRIVER_TESTS}::test_a_tick_is_due_while_the_sockets_are_busy",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="full-inbox-filled-further",
        why="Clients fill the memory faster than the node answers them.",
        file=CONNECTION,
        old="        elif len(self._inbox) > self._inputs_max:\n",
        new="        elif False:\n",
        test=f"{CONNECTION_TESTS}"
        "::test_a_full_inbox_is_not_filled_further_by_clients_and_goes_on_afterwards",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="servers-not-heard-over-clients",
        why="Clients that keep the inbox full cut a server off from its leader.",
        file=CONNECTION,
        old="        inputs_max: int = PEERS_INPUTS_MAX,\n",
        new="        inputs_max: int = PEERS_INPUTS_MAX // 2,\n",
        test=f"{CONNECTION_TESTS}::test_servers_are_heard_while_clients_keep_the_inbox_full",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="client-with-too-many-requests-read-further",
        why="What one client has sent and may not ask yet fills the memory.",
        file=LISTENER,
        old="            self._connection.pause()\n",
        new="            pass\n",
        test=f"{CONNECTION_TESTS}"
        "::test_a_client_with_too_many_requests_is_not_read_until_answers_leave",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="client-not-read-again",
        why="A client that had too many requests under way is never heard again.",
        file=LISTENER,
        old="        if not waiting:\n            self._connection.resume()\n",
        new="        if not waiting:\n            pass\n",
        test=f"{CONNECTION_TESTS}"
        "::test_a_client_with_too_many_requests_is_not_read_until_answers_leave",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="reset-of-who-is-not-read-not-seen",
        why="The set says so again and again, and the driver takes one empty turn after the other.",
        file=CONNECTION,
        old='                self.close("reset by the other side")\n',
        new="                pass\n",
        test=f"{CONNECTION_TESTS}::test_a_reset_of_a_client_that_is_not_read_ends_it_at_once",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="closed-connection-still-read",
        why="Requests of a client that was turned away are carried out.",
        file=CONNECTION,
        old="                self._inbox.sockets.remove(self._descriptor)\n",
        new="                pass\n",
        test=f"{CONNECTION_TESTS}::test_who_is_closed_is_not_read_though_it_has_sent",
        unreachable=NO_SOCKETS,
    ),
    Mutant(
        name="half-requests-counted-by-nobody",
        why="Clients that end no request fill the memory of the machine.",
        file="raftd/network/connection.py",
        old="        if size_bytes > 0 and self._bytes > self._bytes_max:\n",
        new="        if False:\n",
        test="tests/network/test_listener.py"
        "::test_who_holds_most_of_a_request_is_closed_where_all_hold_too_much",
        unreachable="the simulator has no sockets",
    ),
    Mutant(
        name="half-request-kept-for-the-collector",
        why="What clients have begun that come and go stays in memory for minutes.",
        file="raftd/network/connection.py",
        old="            self._decoder = FrameDecoder()\n",
        new="            pass\n",
        test="tests/network/test_listener.py"
        "::test_what_a_client_has_sent_of_a_request_is_free_when_it_has_gone",
        unreachable="the simulator has no sockets",
    ),
)
