"""Clients of a simulated run: each has a session, does one thing at a time, and tells the history.

A client asks whom it believes to lead, repeats a request under the same serial until it is certain
what became of it, and sometimes loses patience before: then the outcome is unknown for ever.
"""

from __future__ import annotations

from collections.abc import Callable

from raftd.protocol import (
    CompareAndSetRequest,
    DeleteRequest,
    DoneReply,
    ErrorReply,
    GetReply,
    GetRequest,
    ListReply,
    ListRequest,
    OpenSessionRequest,
    PutRequest,
    Reply,
    Request,
    WriteReply,
)
from tests.history.recorder import Recorder
from tests.simulation.machine import RETRY_US, Machine
from tests.simulation.network import Network
from tests.simulation.profile import MILLISECOND
from tests.simulation.world import World

PATIENCE_US = 800 * MILLISECOND
"""A client asks another server when this one has been silent for so long."""
GIVES_UP = 0.03
"""Chance that a client does not ask again after its patience has ended."""
TAKES_NO = 0.1
"""Chance that a client believes a server that says that nothing was done, and leaves it at that."""
NOT_TAKEN = ("not-leader", "unavailable", "session-expired", "disk-full")
"""Answers that promise that this request has done nothing and never will."""
APPEND_KEY = "append"
COUNTER_KEY = "counter"
APPEND_TOKENS_MAX = 60
"""Tokens of one append key: keeps its value, which each append carries, short."""

Next = Callable[[Reply | None], None]
"""Goes on with the answer; None if nobody knows and nobody will."""


class Client:
    """One client. `act` begins whatever comes next; everything after that is answers and time."""

    def __init__(
        self, name: str, *, world: World, network: Network, recorder: Recorder, keys: int
    ) -> None:
        self.name = name
        self.stops = False
        """Finish what is under way, begin nothing else."""
        self.finished = False
        self.asked_patiently = False
        """Never give up: everything works now, so every answer has to come."""
        self.appended = 0
        self._world = world
        self._network = network
        self._recorder = recorder
        self._keys = [f"k{number}" for number in range(keys)]
        self._random = world.random(f"client {name}")
        self._wishes = world.random(f"reads of {name}")
        self._session = ""
        self._sessions = 0
        self._serial = 0
        self._lowest = 1
        self._values = 0
        self._next: Callable[[], None] = self.act
        self._known: dict[str, str | None] = {}
        """What it has read last, to have something to compare with."""
        self._hint = ""
        self._asked_before = False
        """The same request has been sent already."""
        self._attempt = 0
        """Grows with each request: answers to an earlier one are not waited for any more."""

    # --- what it does ---

    def act(self) -> None:
        """Begin the next thing."""
        if self.stops:
            self.finished = True
            return
        if not self._session:
            self._open_session()
            return
        draw = self._random.random()
        key = self._random.choice(self._keys)
        if draw < 0.3:
            self._get(key)
        elif draw < 0.36:
            self._list()
        elif draw < 0.6:
            self._write("put", key, value=self._new_value())
        elif draw < 0.66:
            self._write("put-if-absent", key, value=self._new_value())
        elif draw < 0.72:
            self._write("delete", key)
        elif draw < 0.87:
            known = self._known.get(key)
            expected = known if known is not None else "nothing"
            self._write("cas", key, expected=expected, value=self._new_value())
        elif self.appended < APPEND_TOKENS_MAX:
            self._append()
        else:
            self._get(key)

    def conclude(self, done: Callable[[], None]) -> None:
        """Read everything, write once more to each key, read again, then call `done`."""
        reads, writes = ([(kind, key) for key in self._keys] for kind in ("get", "put"))
        todo = [*reads, *writes, *reads]
        finals = [APPEND_KEY, COUNTER_KEY]

        def next_one() -> None:
            if not self._session:
                self._open_session()
            elif todo:
                kind, key = todo.pop(0)
                if kind == "get":
                    self._get(key)
                else:
                    self._write("put", key, value=self._new_value())
            else:
                self._ask(GetRequest(key=finals[0]), read)

        def read(reply: Reply | None) -> None:
            assert isinstance(reply, GetReply)
            if reply.found:
                self._recorder.final(finals[0], reply.value.decode(), time_us=self._world.now_us)
            finals.pop(0)
            if finals:
                self._ask(GetRequest(key=finals[0]), read)
            else:
                done()

        self._next = next_one
        next_one()

    def _rest(self) -> None:
        pause_us = round(self._random.expovariate(1 / self._world.profile.client_pause_us))
        self._world.after(pause_us, self._next)

    def _new_value(self) -> str:
        self._values += 1
        return f"{self.name}-{self._values}"

    def _open_session(self) -> None:
        self._sessions += 1
        session = f"{self.name}.{self._sessions}"

        def go_on(reply: Reply | None) -> None:
            if isinstance(reply, DoneReply):
                self._session, self._serial, self._lowest = session, 0, 1
            self._rest()

        self._ask(OpenSessionRequest(session=session), go_on)

    def _get(self, key: str) -> None:
        op = self._invoke("get", key)

        def go_on(reply: Reply | None) -> None:
            if isinstance(reply, GetReply):
                value = reply.value.decode() if reply.found else None
                self._known[key] = value
                self._recorder.ok(op, time_us=self._world.now_us, value=value)
            else:
                self._recorder.unknown(op, time_us=self._world.now_us)
            self._rest()

        self._ask(GetRequest(key=key, through_follower=self._wants_it_here()), go_on)

    def _wants_it_here(self) -> bool:
        return self._wishes.random() < self._world.profile.here_chance

    def _list(self) -> None:
        """Read all keys at once: for the history, each of them at the same time."""
        ops = {key: self._invoke("get", key) for key in self._keys}

        def go_on(reply: Reply | None) -> None:
            now_us = self._world.now_us
            if isinstance(reply, ListReply):
                found = {entry.key: entry.value.decode() for entry in reply.entries}
                for key, op in ops.items():
                    self._recorder.ok(op, time_us=now_us, value=found.get(key))
            else:
                for op in ops.values():
                    self._recorder.unknown(op, time_us=now_us)
            self._rest()

        here = self._wants_it_here()
        self._ask(ListRequest(prefix="k", limit=len(self._keys), through_follower=here), go_on)

    def _write(self, kind: str, key: str, **fields: str) -> None:
        op = self._invoke(kind, key, **fields)

        def go_on(reply: Reply | None) -> None:
            now_us = self._world.now_us
            if isinstance(reply, WriteReply):
                if kind in ("put", "delete"):
                    self._recorder.ok(op, time_us=now_us)
                else:
                    self._recorder.ok(op, time_us=now_us, applied=reply.applied)
                if reply.applied:
                    self._known[key] = fields.get("value")
            else:
                self._end(op, reply)
            self._rest()

        self._ask_with_serial(self._request(kind, key, **fields), go_on)

    def _append(self) -> None:
        """Add a token to a value that all clients add to: read it, then compare and set."""
        token = self._new_value()
        key = APPEND_KEY
        op = self._invoke("append", key, token=token)

        def read() -> None:
            self._ask(GetRequest(key=key), on_read)

        def on_read(reply: Reply | None) -> None:
            if not isinstance(reply, GetReply):
                # Nothing of this token was sent, or all that was is certain not to be done.
                self._recorder.fail(op, time_us=self._world.now_us)
                self._rest()
            elif reply.found:
                value = reply.value.decode()
                self._ask_with_serial(
                    self._request("cas", key, expected=value, value=f"{value} {token}"), on_written
                )
            else:
                self._ask_with_serial(self._request("put-if-absent", key, value=token), on_written)

        def on_written(reply: Reply | None) -> None:
            if not isinstance(reply, WriteReply):
                self._end(op, reply)
            elif reply.applied:
                self.appended += 1
                self._recorder.ok(op, time_us=self._world.now_us)
            else:
                read()
                return
            self._rest()

        read()

    def _end(self, op: int, reply: Reply | None) -> None:
        """Note what is known of a write that was not answered with a result."""
        if reply is not None and not self._asked_before:
            self._recorder.fail(op, time_us=self._world.now_us)
        else:
            # An earlier copy of the same request may have been taken, or may still be.
            self._recorder.unknown(op, time_us=self._world.now_us)

    def _invoke(self, kind: str, key: str, **fields: str) -> int:
        self._world.count("operations of clients")
        return self._recorder.invoke(self.name, kind, key, time_us=self._world.now_us, **fields)

    # --- how it asks ---

    def _request(self, kind: str, key: str, **fields: str) -> Callable[[], Request]:
        def build() -> Request:
            head = {
                "session": self._session,
                "serial": self._serial,
                "lowest_unacknowledged": self._lowest,
                "key": key,
            }
            values = {name: text.encode() for name, text in fields.items()}
            if kind == "delete":
                return DeleteRequest(**head)
            if kind == "cas":
                return CompareAndSetRequest(**head, **values)
            return PutRequest(**head, **values, if_absent=kind == "put-if-absent")

        return build

    def _ask_with_serial(self, build: Callable[[], Request], go_on: Next) -> None:
        """Ask under the next serial; afterwards it is acknowledged, whatever came of it."""
        self._serial += 1
        serial = self._serial

        def answered(reply: Reply | None) -> None:
            if isinstance(reply, WriteReply) or self._random.random() < 0.5:
                self._lowest = serial + 1
            if isinstance(reply, ErrorReply) and reply.code == "session-expired":
                self._session = ""
            go_on(reply)

        self._ask(build(), answered)

    def _ask(self, request: Request, go_on: Next) -> None:
        """Ask one server after the other until the outcome is certain or patience ends."""
        self._asked_before = False
        self._ask_once(request, go_on)

    def _ask_again(self, request: Request, go_on: Next) -> None:
        self._asked_before = True
        self._ask_once(request, go_on)

    def _ask_once(self, request: Request, go_on: Next) -> None:
        self._attempt += 1
        attempt = self._attempt
        machine = self._choose()
        if isinstance(request, GetRequest | ListRequest) and request.through_follower:
            # Not whoever leads: that is what it is for.
            machine = self._wishes.choice(self._network.up() or [None])
        asked = False

        def silence() -> None:
            if attempt != self._attempt:
                return
            if self._random.random() < GIVES_UP and not self.asked_patiently:
                self._attempt += 1
                go_on(None)
            else:
                self._ask_again(request, go_on)

        def answered(reply: Reply) -> None:
            if attempt != self._attempt:
                return
            self._attempt += 1
            if not isinstance(reply, ErrorReply):
                self._hint = machine.address if machine else ""
                go_on(reply)
            elif reply.code == "session-expired":
                go_on(reply)
            else:
                assert reply.code in (*NOT_TAKEN, "unknown-outcome"), reply
                if reply.code == "disk-full":
                    self._world.count("writes refused since a disk is nearly full")
                self._hint = reply.leader_address
                draw = self._random.random()
                if reply.code == "unknown-outcome" and draw < GIVES_UP:
                    go_on(None)
                elif reply.code in NOT_TAKEN and draw < TAKES_NO and not self.asked_patiently:
                    go_on(reply)
                else:
                    self._world.after(RETRY_US, self._ask_again, request, go_on)

        if machine is not None:
            asked = True
            if self._network.ask(self.name, machine, request, answered):
                self._asked_before = True
        self._world.after(PATIENCE_US if asked else RETRY_US, silence)

    def _choose(self) -> Machine | None:
        hinted = self._network.at(self._hint)
        self._hint = ""
        if hinted is not None and hinted.node is not None and self._random.random() < 0.9:
            return hinted
        up = self._network.up()
        return self._random.choice(up) if up else None
