"""The network of a simulated run: links that are dialled, messages that get lost, late or double.

Links behave as those of `raftd.network`: a request goes out on the link that its sender dialled, an
answer goes back on the link that it came by, whoever is dialled decides through `Node.admit`, and a
member that does not answer at its address is dialled where the cluster file has it. What
TCP would keep away is let through all the same: messages overtake each other, arrive twice, or
reach a process that was started after they had been sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import attrs

from raftd.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Envelope,
    InstallSnapshotResponse,
    PreVoteResponse,
    ReadIndex,
    ReadIndexResponse,
    RequestVoteResponse,
    StateCheckResponse,
)
from raftd.core.types import Index, ServerId, server_name
from raftd.inputs import Contacted, Input, PeerRefused, Received, Requested
from raftd.protocol import (
    READ_INDEX_VERSION,
    ErrorReply,
    Hello,
    Refusal,
    Reply,
    Request,
    Welcome,
)
from tests.simulation.profile import MILLISECOND
from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.machine import Machine

STRAGGLER_US = 3_000 * MILLISECOND
"""The second copy of a message may be so late: several elections later."""
CALM_DELAY_US = (100, 3 * MILLISECOND)
_ANSWERS = (
    *(PreVoteResponse, RequestVoteResponse, AppendEntriesResponse),
    *(InstallSnapshotResponse, StateCheckResponse, ReadIndexResponse),
)
_SINCE_VERSION_4 = (ReadIndex, ReadIndexResponse)
"""As in `raftd.network`: a server of an older release would close the connection for them."""


@attrs.define(eq=False)
class Link:
    """A connection that `source` dialled."""

    source: Machine
    target: Machine
    address: str
    """Where it has found the other one."""
    due_us: dict[str, int] = attrs.field(factory=dict)
    """When the last message of each direction arrives: usually nothing overtakes it."""


class Network:
    """What is between the machines, and between them and the clients."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.machines: dict[str, Machine] = {}
        """By name."""
        self.is_calm = True
        """While a cluster is formed and healed: short delays, and nothing of the below."""
        self.is_bad = False
        """Whether messages get lost, late and double now."""
        self.cuts: set[tuple[str, str]] = set()
        self.loses_requests = False
        """Whether what clients ask gets lost now."""
        self.withheld: tuple[Index, frozenset[str]] | None = None
        """Messages with the entry at this index are lost, but for those to these machines."""
        self.slow: dict[tuple[str, str], int] = {}
        """By how much the delay of a direction is multiplied."""
        self._random = world.random("network")

    def up(self) -> list[Machine]:
        """Return the machines on which a server runs."""
        return [machine for machine in self.machines.values() if machine.node is not None]

    def at(self, address: str) -> Machine | None:
        """Return the machine that has an address now."""
        return next((m for m in self.machines.values() if m.address == address), None)

    # --- faults ---

    def partition(self, *groups: Iterable[str]) -> None:
        """Let messages pass only within each group; who is in none is alone."""
        group_of = {name: number for number, names in enumerate(groups) for name in names}
        names = [machine.name for machine in self.machines.values()]
        self.cuts = {
            (a, b)
            for a in names
            for b in names
            if a != b and group_of.get(a, a) != group_of.get(b, b)
        }

    def heal(self) -> None:
        """Let everything pass, without delays that were added."""
        self.cuts.clear()
        self.slow.clear()
        self.withheld = None
        self.loses_requests = False

    def calm_down(self) -> None:
        """Heal, and let nothing wait behind messages that were slow before."""
        self.heal()
        self.is_bad, self.is_calm = False, True
        for machine in self.up():
            for link in machine.links.values():
                link.due_us.clear()

    def _is_cut(self, source: Machine, target: Machine) -> bool:
        return (source.name, target.name) in self.cuts

    def _delay_us(self, source: str, target: str) -> int:
        if self.is_calm:
            return self._random.randint(*CALM_DELAY_US)
        delay_us = self._random.randint(*self.world.profile.delay_us)
        return delay_us * self.slow.get((source, target), 1)

    def _is_lost(self) -> bool:
        if not self.is_bad or self._random.random() >= self.world.profile.loss:
            return False
        self.world.count("fault: message lost")
        return True

    def _is_withheld(self, envelope: Envelope, target: Machine) -> bool:
        if self.withheld is None or not isinstance(envelope.message, AppendEntries):
            return False
        index, heard_by = self.withheld
        if target.name in heard_by:
            return False
        return any(entry.index == index for entry in envelope.message.entries)

    # --- Raft messages ---

    def carry(self, source: Machine, envelope: Envelope, depart_us: int) -> None:
        """Take a message on its way, or lose it."""
        link, target = self._way(source, envelope)
        if link is None or target is None or self._is_cut(source, target):
            return
        if target.version < READ_INDEX_VERSION and isinstance(envelope.message, _SINCE_VERSION_4):
            return
        world, profile = self.world, self.world.profile
        bad = self.is_bad
        if self._is_lost() or self._is_withheld(envelope, target):
            return
        arrival_us = depart_us + self._delay_us(source.name, target.name)
        if bad and self._random.random() < profile.reordering:
            world.count("fault: message may be overtaken")
            arrival_us += self._random.randint(0, 4 * profile.delay_us[1])
        else:
            arrival_us = max(arrival_us, link.due_us.get(source.name, 0))
            link.due_us[source.name] = arrival_us
        world.at(arrival_us, self._arrive, source, target, envelope)
        if bad and self._random.random() < profile.duplication:
            world.count("fault: message doubled")
            late_us = self._random.choice((profile.delay_us[1], STRAGGLER_US))
            world.at(
                arrival_us + self._random.randint(0, late_us),
                self._arrive,
                source,
                target,
                envelope,
            )

    def _way(self, source: Machine, envelope: Envelope) -> tuple[Link | None, Machine | None]:
        if not isinstance(envelope.message, _ANSWERS):
            link = source.links.get(envelope.dest)
            return link, link.target if link else None
        for machine in self.up():
            if machine.id == envelope.dest:
                link = machine.links.get(source.id)
                if link is not None and link.target is source:
                    return link, machine
        return None, None

    def _arrive(self, source: Machine, target: Machine, envelope: Envelope) -> None:
        if target.node is not None and target.id == envelope.dest:
            if self._is_cut(source, target):
                return
            target.receive(Received(envelope))

    # --- links ---

    def dial(self, source: Machine) -> None:
        """Try to open every link that `source` wants and has not."""
        for dest, address in source.members.items():
            if dest not in source.links:
                self._dial_one(source, dest, address)

    def _dial_one(self, source: Machine, dest: ServerId, address: str) -> None:
        hello = source.our_hello(dest)
        if hello is None:
            return
        in_file = address
        if address == source.first_addresses[dest]:
            in_file = source.file_addresses.get(server_name(dest), address)
        problems = {}
        for candidate in dict.fromkeys((address, in_file)):
            target = self.at(candidate)
            answer = self._introduce(source, target, hello)
            if isinstance(answer, Welcome):
                assert target is not None
                source.links[dest] = Link(source, target, candidate)
                source.answered_at[dest] = candidate
                source.link_changed(dest, "", answer.version, candidate)
                return
            if isinstance(answer, Refusal):
                # That somebody else lives there is no word of the member.
                if answer.code != "identity":
                    source.receive(PeerRefused(dest, answer))
                answer = f"refused: {answer.message}"
            problems[candidate] = answer
        if len(problems) > 1:
            told = "; ".join(f"{problem} at {place}" for place, problem in problems.items())
        else:
            (told,) = problems.values()
        source.link_changed(dest, told, process_ended=self._has_ended(source, dest))

    def _has_ended(self, source: Machine, dest: ServerId) -> bool:
        """Return whether `source` can tell that the process of a server is gone."""
        target = self.at(source.answered_at.get(dest, ""))
        return (
            target is not None
            and target.node is None
            and not any(m.id == dest and source.id in m.links for m in self.up())
        )

    def mislead(self, machine: Machine, about: Machine) -> None:
        """Let `machine` take a server for dead that lives: something resets all between them."""
        for one, other in ((about, machine), (machine, about)):
            if one.links.pop(other.id, None) is not None:
                told = "connection refused" if one is machine else "the connection was reset"
                one.link_changed(other.id, told, process_ended=one is machine)

    def _introduce(
        self, source: Machine, target: Machine | None, hello: Hello
    ) -> Welcome | Refusal | str:
        """Return what is answered to a greeting, or in words why nothing is."""
        if target is not None and (
            self._is_cut(source, target) or self._is_cut(target, source) or target.is_paused
        ):
            return "no answer for 2.0 s"
        if target is None or target.node is None:
            return "connection refused"
        answer = target.admit(hello)
        if isinstance(answer, Refusal):
            return answer
        if answer.server == hello.source:
            return Refusal(code="identity", message="it is this server itself")
        if answer.server != hello.dest:
            return f"another server answers there: {answer.server}"
        return answer

    def close_peer(self, closer: Machine, server: ServerId) -> None:
        """Close the link that `server` has dialled to `closer`."""
        for machine in self.up():
            link = machine.links.get(closer.id)
            if machine.id == server and link is not None and link.target is closer:
                del machine.links[closer.id]
                machine.link_changed(closer.id, "closed by the other side")

    def process_ended(self, ended: Machine) -> None:
        """Reset the connections that led to a process which has just ended."""
        for machine in self.up():
            for dest, link in list(machine.links.items()):
                if link.target is ended:
                    del machine.links[dest]
                    machine.link_changed(dest, "the connection was reset")

    # --- requests ---

    def ask(
        self, who: str, target: Machine, request: Request, respond: Callable[[Reply], None]
    ) -> bool:
        """Send a request of a client; the answer may never come.

        Returns:
            Whether a second copy is on its way, as of a client that has not heard of the answer:
            what one copy is told says nothing about the other.
        """
        process = target.process
        delay_us = self._delay_us(who, target.name)
        if self.is_bad and self._random.random() < self.world.profile.reordering:
            # A copy that is asked again elsewhere may arrive before this one.
            delay_us += self._random.randint(0, STRAGGLER_US)

        def arrive() -> None:
            if target.node is None or target.process != process:
                return
            if self.loses_requests or self._is_lost():
                return
            understood = target.understood(request)
            if understood is not None:
                target.receive(Requested(understood, target.answering(request, answered)))

        def answered(reply: Reply, depart_us: int) -> None:
            if not self._is_lost():
                self.world.at(depart_us + self._delay_us(target.name, who), respond, reply)

        self.world.after(delay_us, arrive)
        if not self.is_bad or self._random.random() >= self.world.profile.duplication:
            return False
        self.world.count("fault: request doubled")
        self.world.after(delay_us + self._random.randint(0, STRAGGLER_US), arrive)
        return True

    def hand_over(
        self, who: str, target: Machine, make: Callable[[Callable[..., None]], Input | None]
    ) -> None:
        """Send what is one input of its node to a machine, unless that is lost.

        Args:
            make: called when it arrives; makes the input, if there is one. What it is given carries
                answers of the node back: it takes what is called when one arrives, and with what.
        """
        process = target.process

        def arrive() -> None:
            if target.node is None or target.process != process or self._is_lost():
                return
            item = make(answer)
            if item is not None:
                target.receive(item)

        def answer(tell: Callable[..., None], *arguments: object) -> None:
            assert target.process == process
            target.point(11)
            if not self._is_lost():
                depart_us = self.world.now_us + target.disk.lag_us
                self.world.at(depart_us + self._delay_us(target.name, who), tell, *arguments)

        self.world.after(self._delay_us(who, target.name), arrive)

    def contact(
        self,
        source: Machine,
        token: object,
        address: str,
        requests: Sequence[Request],
        timeout_ms: float,
    ) -> None:
        """Let a leader ask a server that need not be a member."""
        _Contact(self, source, token, address, list(requests)).begin(
            round(timeout_ms * MILLISECOND)
        )


class _Contact:
    """A contact under way, as `raftd.network.contacts`."""

    def __init__(
        self,
        network: Network,
        source: Machine,
        token: object,
        address: str,
        requests: list[Request],
    ) -> None:
        self._network = network
        self._world = network.world
        self._source = source
        self._source_process = source.process
        self._token = token
        self._address = address
        self._requests = requests
        self._welcome: Welcome | None = None
        self._ended = False

    def begin(self, timeout_us: int) -> None:
        """Dial; one `Contacted` follows, at the latest after `timeout_us`."""
        self._world.after(timeout_us, self._end, None, f"connecting to {self._address}: no answer")
        target = self._network.at(self._address)
        if target is None or target.node is None:
            self._end(None, f"connecting to {self._address}: connection refused")
            return
        self._pass(self._source, target, self._arrive, target, target.process)

    def _pass(
        self, source: Machine, target: Machine, action: Callable[..., None], *arguments: object
    ) -> None:
        """Call `action` after the way from `source` to `target`, if there is one."""
        if not self._network._is_cut(source, target):
            self._world.after(self._network._delay_us(source.name, target.name), action, *arguments)

    def _arrive(self, target: Machine, process: int) -> None:
        if target.node is None or target.process != process:
            self._end(None, f"{self._address}: it closed the connection")
            return
        if self._welcome is None:
            hello = Hello(role="client", cluster_id="", source="", dest="")
            answer = target.admit(hello)
            assert isinstance(answer, Welcome)
            self._welcome = answer
        request = self._requests.pop(0)

        def answered(reply: Reply, depart_us: int) -> None:
            self._pass(target, self._source, self._on_reply, target, process, reply)

        target.receive(Requested(request, target.answering(request, answered)))

    def _on_reply(self, target: Machine, process: int, reply: Reply) -> None:
        if self._requests and not isinstance(reply, ErrorReply):
            self._pass(self._source, target, self._arrive, target, process)
        else:
            self._end(reply, "")

    def _end(self, reply: Reply | None, problem: str) -> None:
        if self._ended:
            return
        self._ended = True
        source = self._source
        if source.node is not None and source.process == self._source_process:
            source.receive(
                Contacted(token=self._token, reply=reply, welcome=self._welcome, problem=problem)
            )
