"""One run: attack a cluster as a schedule says, heal it, and judge what it has done."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import attrs

from raftctl.client import Cluster as Client
from raftctl.client import expect
from raftctl.errors import CliError
from raftd.commands import Operation
from raftd.core.types import server_name
from raftd.protocol import (
    LIST_LIMIT_MAX,
    GetReply,
    GetRequest,
    ListEntry,
    ListReply,
    ListRequest,
    OperationsReply,
    OperationsRequest,
    PutRequest,
    StatusReply,
)
from tests.chaos.bed import ChaosCluster, Observer, View, names_of
from tests.chaos.changes import Operator, removed_but_alive
from tests.chaos.clients import ONCE_PREFIX, OPERATION_TIMEOUT_MS, History, Load, Tally
from tests.chaos.faults import Faults, Say
from tests.chaos.schedule import CHANGE_KINDS, Action, make_schedule
from tests.chaos.traces import Event, last_hash, read_trace
from tests.chaos.verdicts import (
    Verdict,
    judge_contents,
    judge_hashes,
    judge_history,
    judge_once,
    judge_protocol,
    verdict,
    without_appends,
)
from tests.history.recorder import Recorder

TICK_S = 0.01
"""Of the main loop: how late an action may be."""
SERVED_S = 45.0
"""From the end of the faults until each client has been served again."""
IDLE_S = 150.0
"""Until the last raftctl has ended, and a lost disk is replaced."""
CONVERGED_S = 60.0
"""Until all members are caught up, with nobody at work any more."""
REMOVED_S = 30.0
"""Until the removed servers have ended."""
TRACE_S = 10.0
"""Until a trace tells of the last write."""
TRACE_POLL_S = 0.5
FINAL_TIMEOUT_MS = 30_000.0
MARKER_KEY = "marker"


@attrs.frozen(kw_only=True)
class Options:
    """What to do."""

    seed: int
    seconds: float = 40.0
    """Of faults; healing and judging come on top."""
    servers: int = 7
    """5 to 7, spares included."""
    clients: int = 5
    network: str = "proxy"
    """proxy or namespaces."""

    @property
    def voters(self) -> list[str]:
        """The servers that form the cluster."""
        return [f"n{number}" for number in range(1, self.servers - 1)]

    @property
    def spares(self) -> list[str]:
        """The two servers that are blank at first."""
        return [f"n{number}" for number in range(self.servers - 1, self.servers + 1)]

    @property
    def schedule(self) -> tuple[Action, ...]:
        """What is done, and when."""
        one_way = self.network == "proxy"
        return make_schedule(self.seed, seconds=self.seconds, one_way=one_way)

    @property
    def command(self) -> str:
        """What makes the same schedule again."""
        return (
            f"python -m tests.chaos --seed {self.seed} --seconds {self.seconds:g} "
            f"--servers {self.servers} --network {self.network}"
        )


@attrs.frozen(kw_only=True)
class Report:
    """How a run went."""

    options: Options
    verdicts: tuple[Verdict, ...]
    faults: Counter[str]
    commands: Counter[str]
    skipped: Counter[str]
    exits: Counter[int]
    phases: Counter[str]
    """Leaders that were killed, by the phase of the change."""
    changes: Counter[str]
    """Operations by their result in the replicated record."""
    operations: Tally
    longest_gap_s: float
    healing_s: float
    """From the end of the faults until everything had converged."""

    @property
    def ok(self) -> bool:
        """Whether every claim holds."""
        return all(each.ok for each in self.verdicts)


class NotConverged(Exception):
    """The cluster has not come to rest in time; the message says what was waited for."""


class Run:
    """One run, in a folder of its own. Starts processes, so it is for the main thread only."""

    def __init__(self, options: Options, folder: Path, say: Say) -> None:
        self.options = options
        self._started_s = time.monotonic()
        self._say_line = say
        self._recorder = Recorder(folder / "history.jsonl")
        self._folder = folder
        self._verdicts: list[Verdict] = []
        self._changes: Counter[str] = Counter()

    def go(self) -> Report:
        """Do all of it. No process is left when this returns or raises."""
        cluster = ChaosCluster(self._folder, network=self.options.network)
        try:
            cluster.set_up(self.options.voters, self.options.spares)
            return self._attack(cluster)
        finally:
            cluster.close()
            self._recorder.close()

    def _say(self, text: str) -> None:
        self._say_line(f"{time.monotonic() - self._started_s:7.2f}s  {text}")

    def _attack(self, cluster: ChaosCluster) -> Report:
        self._cluster = cluster
        self._observer = Observer(cluster.servers.values())
        self._faults = Faults(cluster, self._observer, self._say)
        self._operator = Operator(cluster, self._observer, self._faults, self._say)
        self._history = History(self._recorder)
        self._load = Load(
            lambda: cluster.client(timeout_ms=OPERATION_TIMEOUT_MS),
            clients=self.options.clients,
            seed=self.options.seed,
            history=self._history,
        )
        self._started_s = start_s = time.monotonic()
        self._observer.start()
        try:
            self._load.start()
            self._follow_schedule(start_s)
            healed_s = time.monotonic()
            self._say("the attack is over: healing")
            self._converge(healed_s)
            end_s = time.monotonic()
        finally:
            self._load.stop()
            self._operator.calm_down()
            self._observer.stop()
        return Report(
            options=self.options,
            verdicts=tuple(self._verdicts),
            faults=self._faults.counts,
            commands=self._operator.counts,
            skipped=self._operator.skipped,
            exits=self._operator.exits,
            phases=self._operator.caught,
            changes=self._changes,
            operations=self._load.tally,
            longest_gap_s=self._load.longest_gap_s(start_s, healed_s),
            healing_s=end_s - healed_s,
        )

    def _follow_schedule(self, start_s: float) -> None:
        for action in self.options.schedule:
            self._tick_until(lambda at_s=start_s + action.at_ms / 1000: time.monotonic() >= at_s)
            lane = self._operator if action.kind in CHANGE_KINDS else self._faults
            lane.begin(action)
        self._tick_until(lambda: time.monotonic() >= start_s + self.options.seconds)

    def _tick(self) -> None:
        self._faults.tick()
        self._operator.tick()

    def _tick_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._tick()
            time.sleep(TICK_S)

    def _wait(self, what: str, condition: Callable[[], bool], *, within_s: float) -> None:
        deadline_s = time.monotonic() + within_s
        while not condition():
            if time.monotonic() >= deadline_s:
                raise NotConverged(f"waited {within_s:g} s in vain for: {what}")
            self._tick()
            time.sleep(TICK_S)

    # --- after the attack ---

    def _converge(self, healed_s: float) -> None:
        """Heal everything, wait until it has come to rest, and judge."""
        self._operator.calm_down()
        self._faults.undo_all()
        problems = []
        try:
            self._wait(
                "each client is served again",
                lambda: self._load.all_succeeded_since(healed_s),
                within_s=SERVED_S,
            )
            self._wait("all commands have ended", self._is_idle, within_s=IDLE_S)
            client_problems = self._load.stop()
            self._wait("all members are caught up", self._is_settled, within_s=CONVERGED_S)
            self._judge_state()
        except (NotConverged, CliError) as error:
            problems.append(f"{error}; last seen: {self._picture()}")
            client_problems = self._load.stop()
        self._verdicts.append(judge_protocol(self._traces()))
        seconds = f"{time.monotonic() - healed_s:.1f} s after the last fault"
        self._verdicts.insert(0, verdict("the cluster has converged", problems, seconds))
        self._judge("the clients have worked", client_problems)
        self._judge("no server has ended by itself", self._faults.problems)
        self._judge("raftctl has kept to its exit codes", self._operator.problems)
        events = self._recorder.events
        self._verdicts.append(judge_history(without_appends(events) if problems else events))

    def _judge(self, claim: str, problems: list[str]) -> None:
        self._verdicts.append(verdict(claim, problems))

    def _is_idle(self) -> bool:
        return self._operator.is_idle and self._observer.view().is_stable

    def _members(self, view: View) -> dict[str, StatusReply] | None:
        """Return the status of each member; None if one does not answer as itself."""
        configuration = view.configuration
        if configuration is None:
            return None
        members = {}
        for identity in configuration.addresses:
            status = view.statuses.get(server_name(identity))
            if status is None or status.server != identity:
                return None
            members[server_name(identity)] = status
        return members

    def _is_settled(self) -> bool:
        view = self._observer.view()
        members = self._members(view)
        if not view.is_stable or members is None or view.leader is None:
            return False
        configuration = view.leader.configuration
        assert configuration is not None
        peers = [peer for peer in view.leader.peers if peer.server in configuration.addresses]
        return all(peer.connected and not peer.lag_entries for peer in peers) and all(
            (status.applied_index, status.term) == (view.leader.last_index, view.leader.term)
            for status in members.values()
        )

    def _picture(self) -> str:
        view = self._observer.view()
        configuration = view.configuration
        servers = " ".join(
            f"{name}:{status.role}/t{status.term}/i{status.last_index}/a{status.applied_index}"
            for name, status in sorted(view.statuses.items())
        )
        voters = " ".join(names_of(configuration.voters)) if configuration is not None else "?"
        return f"leader {view.leader_name or 'none'}, voters {voters}; {servers}"

    # --- judging ---

    def _judge_state(self) -> None:
        client = self._cluster.client(timeout_ms=FINAL_TIMEOUT_MS)
        with client:
            self._read_back(client)
            operations = self._read_operations(client)
            self._judge_removed(operations)
            client.write(
                lambda session, serial, lowest: PutRequest(
                    session=session,
                    serial=serial,
                    lowest_unacknowledged=lowest,
                    key=MARKER_KEY,
                    value=b"the end",
                )
            )
            index = self._settle_at_marker()
            members = self._members(self._observer.view())
            if members is None:
                raise NotConverged("a member does not answer any more")
            once = self._list(client, ONCE_PREFIX)
        self._verdicts.append(judge_once(self._load.once, once))
        contents = {name: self._contents(name) for name in members}
        self._verdicts.append(judge_contents(contents))
        self._judge_hashes(sorted(members), index)

    def _settle_at_marker(self) -> int:
        """Return the index that all members have applied, the last one of the log."""
        written_s = time.monotonic()

        def settled() -> bool:
            # Every view is from after the write, so that it does not speak of the time before.
            return time.monotonic() - written_s > 2.0 and self._is_settled()

        self._wait("all members have applied the last write", settled, within_s=CONVERGED_S)
        leader = self._observer.view().leader
        if leader is None:
            raise NotConverged("the leader is gone again")
        return leader.last_index

    def _traces(self) -> dict[str, list[Event]]:
        return {
            name: read_trace(server.trace_path) for name, server in self._cluster.servers.items()
        }

    def _judge_hashes(self, members: list[str], index: int) -> None:
        """Compare the last state hashes; a trace is written a moment after what it tells of."""
        deadline_s = time.monotonic() + TRACE_S
        while True:
            traces = self._traces()
            if all(last_hash(traces[name], index) is not None for name in members):
                break
            if time.monotonic() >= deadline_s:
                break
            time.sleep(TRACE_POLL_S)
        self._verdicts.append(judge_hashes(traces, members, index))

    def _read_back(self, client: Client) -> None:
        history = self._history
        for kind in ("append", "register"):
            for key in history.keys(kind):
                final_us = history.now_us
                operation = None
                if kind == "register":
                    operation = self._recorder.invoke("final", "get", key, time_us=final_us)
                reply = expect(client.ask(GetRequest(key=key)), GetReply)
                value = reply.value.decode() if reply.found else None
                final_us = history.now_us
                if operation is not None:
                    self._recorder.ok(operation, time_us=final_us, value=value)
                else:
                    self._recorder.final(key, value, time_us=final_us)

    def _read_operations(self, client: Client) -> list[Operation]:
        reply = expect(client.ask(OperationsRequest()), OperationsReply)
        records = [view.record for view in reply.operations]
        for record in records[1:]:
            self._changes[record.result or "running"] += 1
        return records

    def _judge_removed(self, operations: list[Operation]) -> None:
        removed = {
            server
            for record in operations
            if record.result == "done"
            for role, server in record.plan.changes
            if role == "remove"
        }

        def alive() -> list[str]:
            return removed_but_alive(self._cluster, self._observer.view(), removed)

        try:
            self._wait("the removed servers end", lambda: not alive(), within_s=REMOVED_S)
            problems = []
        except NotConverged:
            problems = [f"{name} still runs" for name in alive()]
        claim = "servers that were removed have ended"
        self._verdicts.append(verdict(claim, problems, f"{len(removed)} removed"))

    def _list(self, client: Client, prefix: str) -> list[ListEntry]:
        reply = expect(client.ask(ListRequest(prefix=prefix, limit=LIST_LIMIT_MAX)), ListReply)
        assert not reply.more
        return list(reply.entries)

    def _contents(self, name: str) -> tuple[object, ...]:
        """Return all that the server itself holds."""
        replies = []
        for prefix in ("append/", "register/", ONCE_PREFIX, MARKER_KEY):
            request = ListRequest(prefix=prefix, limit=LIST_LIMIT_MAX, stale=True)
            reply = self._cluster[name].ask(request)
            if not isinstance(reply, ListReply) or reply.more:
                raise NotConverged(f"{name} does not tell all that it holds: {reply}")
            replies.append(reply)
        return tuple(replies)
