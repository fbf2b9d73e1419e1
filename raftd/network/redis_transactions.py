"""MULTI, EXEC, DISCARD, WATCH and UNWATCH: several commands as one entry of the log.

What comes between MULTI and EXEC is looked at when it comes, and is in no log before EXEC. That one
alone decides: its answer is that of all of them, and what it may be answered is what any write may
be answered. Watched keys are conditions of that entry, so that whoever applies it decides.

Where all of it only reads, no entry is needed: everything is read at one point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import attrs

from raftd.commands import (
    FEATURES_LIVES,
    Command,
    Outcome,
    Result,
    Transaction,
    encode_command,
)
from raftd.inputs import StateView
from raftd.network.redis_actions import (
    Action,
    CommandError,
    Handler,
    Later,
    Query,
    Reply,
    Session,
    Watching,
    Write,
    key_text,
    name_of,
    refused,
)
from raftd.network.redis_answers import ANSWERS_IN_TRANSACTIONS
from raftd.network.redis_catalogue import require_count
from raftd.network.redis_cluster import require_leader
from raftd.network.redis_framing import NULL_3, OK, array, error, simple
from raftd.network.redis_plans import PLANNERS, Plan, plan_of
from raftd.transactions import STEPS_MAX

QUEUED_BYTES_MAX = 2 * 1024 * 1024
"""What one transaction may hold, about: with its framing it fits an entry of the log."""
QUEUED_BYTES_OF_ALL_MAX = 64 * 1024 * 1024
"""What the transactions of all connections may hold together that were begun and not executed."""
COMMANDS_MAX = STEPS_MAX
"""Commands of one transaction."""
READ_BYTES_MAX = 16 * 1024 * 1024
"""Values that one command reads at one point, also where its reply has little of them: the driver
does nothing else meanwhile."""
COMMAND_MEMORY_BYTES = 512
"""What a command takes beside its own bytes, for the count of what is held."""

_PartsForm: TypeAlias = Callable[[list[Sequence[Outcome]]], bytes]
"""Makes a reply of the outcomes of several plans, each of which has its own."""

_QUEUED = Reply(simple("QUEUED"))
_NULL_ARRAY_2 = b"*-1\r\n"


@attrs.frozen
class Once:
    """The session and serial under which a command is carried out once, however often it comes."""

    session: str
    serial: int
    lowest_unacknowledged: int


def require_lives(command: list[bytes], features: int) -> None:
    """Return if every server can apply transactions.

    Raises:
        CommandError: some of them run an older release.
    """
    if features < FEATURES_LIVES:
        raise CommandError(
            f"ERR {name_of(command).upper()} like this needs every server of the cluster to run a "
            "release that knows it: upgrade them all, one after the other"
        )


# --- carrying out plans ---------------------------------------------------------------------


def written(plan: Plan, once: Once | None = None) -> Write:
    """Return what carries out one plan by an entry of the log."""
    return _write(plan.conditions, [plan], lambda parts: plan.form(parts[0]), b"", once)


def asked(plan: Plan, session: Session) -> Query:
    """Return what carries out one plan that only reads, without an entry of the log."""

    def run(state: StateView) -> bytes:
        return plan.form(_read(plan, state, [READ_BYTES_MAX]))

    return Query(run=run, key=plan.key, cost=len(plan.steps), stale=session.stale_reads)


def _read(plan: Plan, state: StateView, bytes_left: list[int]) -> list[Outcome]:
    return [_look(step.key, state, bytes_left) for step in plan.steps]


def _look(key: str, state: StateView, bytes_left: list[int]) -> Outcome:
    outcome = state.look(key.encode())
    bytes_left[0] -= len(outcome.value or b"")
    if bytes_left[0] < 0:
        raise CommandError(
            f"ERR the values have more than {READ_BYTES_MAX} bytes together: ask for fewer keys"
        )
    return outcome


def _write(
    conditions: Sequence[tuple[str, int]],
    plans: Sequence[Plan],
    form: _PartsForm,
    otherwise: bytes,
    once: Once | None,
) -> Write:
    """Return the write of several plans.

    Args:
        form: makes the reply of the outcomes of each.
        otherwise: the reply where a condition does not hold; empty for that of `form`, without
            outcomes.
    """
    steps = [step for plan in plans for step in plan.steps]
    body = Transaction(tuple(conditions), tuple(steps))
    command = Command(body)
    if once is not None:
        command = Command(body, once.session, once.serial, once.lowest_unacknowledged)
    key = next((plan.key for plan in plans if plan.key), b"")
    lengths = [len(plan.steps) for plan in plans]

    def reply(result: Result) -> bytes:
        if result.code:
            return refused(result)
        if not result.applied and (conditions or otherwise):
            return otherwise or form([()] * len(lengths))
        outcomes = result.outcomes
        if len(outcomes) != sum(lengths):
            # The answer of a session to another command.
            return error("ERR this serial was used for another command, whose reply this is not")
        parts: list[Sequence[Outcome]] = []
        start = 0
        for length in lengths:
            parts.append(outcomes[start : start + length])
            start += length
        return form(parts)

    return Write(encode_command(command), reply, key)


# --- MULTI ----------------------------------------------------------------------------------


def multi(command: list[bytes], session: Session, features: int) -> Action:
    """Begin a transaction."""
    require_lives(command, features)
    session.queued = []
    return Reply(OK)


def queue(
    command: list[bytes], session: Session, features: int, ending: Mapping[bytes, Handler]
) -> Action:
    """Take a command that comes between MULTI and EXEC, or that ends it.

    Args:
        ending: the handlers of the commands that do not wait for EXEC, by their names in capitals.

    Raises:
        CommandError: it is refused. EXEC will be, too, but for commands that have no place there.
    """
    name = command[0].upper()
    if name == b"MULTI":
        raise CommandError("ERR MULTI calls can not be nested")
    if name == b"WATCH":
        raise CommandError("ERR WATCH inside MULTI is not allowed")
    try:
        require_count(command)
        if name in ending:
            return ending[name](command, session, features)
        plan = _planned(name, command, session, features)
        if not (session.surroundings.leads() or (session.stale_reads and plan.only_reads)):
            # Cluster clients look for the leader now, and not when it is too late.
            require_leader(session.surroundings.cluster(), plan.key)
        _keep(plan, command, session)
    except CommandError:
        session.aborted = session.queued is not None
        raise
    return _QUEUED


def _planned(name: bytes, command: list[bytes], session: Session, features: int) -> Plan:
    if name in PLANNERS:
        plan = plan_of(command, session)
        if plan.conditions:
            raise CommandError(
                f"ERR {name_of(command).upper()} cannot be a part of MULTI on this server: WATCH "
                "its keys"
            )
        return plan
    answer = ANSWERS_IN_TRANSACTIONS.get(name)
    if answer is None:
        raise CommandError(
            f"ERR {name_of(command).upper()} cannot be a part of MULTI on this server"
        )
    reply = answer(command, session, features)
    assert isinstance(reply, Reply)
    return Plan((), lambda outcomes: reply.content)


def _keep(plan: Plan, command: list[bytes], session: Session) -> None:
    queued, surroundings = session.queued, session.surroundings
    assert queued is not None
    if session.aborted:
        # Nothing will come of it.
        return
    held_bytes = sum(map(len, command)) + COMMAND_MEMORY_BYTES * max(1, len(plan.steps))
    if session.queued_bytes + held_bytes > QUEUED_BYTES_MAX:
        raise CommandError(f"ERR a transaction of more than {QUEUED_BYTES_MAX} bytes")
    if surroundings.queued_bytes + held_bytes > QUEUED_BYTES_OF_ALL_MAX:
        raise CommandError("ERR too many transactions are begun and not executed, try again")
    steps = sum([len(each.steps) for each in queued]) if queued else 0
    if steps + len(plan.steps) > STEPS_MAX or len(queued) >= COMMANDS_MAX:
        raise CommandError(f"ERR a transaction has at most {STEPS_MAX} commands and steps")
    queued.append(plan)
    session.queued_bytes += held_bytes
    surroundings.queued_bytes += held_bytes


def forget(session: Session) -> None:
    """End the transaction of a connection, if there is one, and what it watches."""
    session.surroundings.queued_bytes -= session.queued_bytes
    session.queued_bytes = 0
    session.queued = None
    session.aborted = False
    session.watching = Watching()


def discard(command: list[bytes], session: Session, features: int) -> Action:
    """Answer DISCARD."""
    if session.queued is None:
        raise CommandError("ERR DISCARD without MULTI")
    forget(session)
    return Reply(OK)


def execute(
    command: list[bytes], session: Session, features: int, once: Once | None = None
) -> Action:
    """Answer EXEC: carry all of it out, or say why nothing is.

    Args:
        once: the session that has to know of it.
    """
    if session.queued is None:
        raise CommandError("ERR EXEC without MULTI")
    plans, watching, aborted = session.queued, session.watching, session.aborted
    forget(session)
    if aborted:
        raise CommandError("EXECABORT Transaction discarded because of previous errors.")

    def decide() -> Reply | Write | Query:
        if watching.failed:
            raise CommandError("EXECABORT Transaction discarded because a key was not watched.")
        conditions = tuple(watching.revisions.items())
        null = NULL_3 if session.protocol >= 3 else _NULL_ARRAY_2
        if once is not None or not all(plan.only_reads for plan in plans):
            return _write(conditions, plans, _array_form(plans), null, once)
        return _all_read(conditions, plans, null, session)

    return Later(decide) if watching.pending else decide()


def _array_form(plans: Sequence[Plan]) -> _PartsForm:
    return lambda parts: array([plan.form(part) for plan, part in zip(plans, parts, strict=True)])


def _all_read(
    conditions: Sequence[tuple[str, int]], plans: Sequence[Plan], null: bytes, session: Session
) -> Reply | Query:
    step_count = sum([len(plan.steps) for plan in plans])
    if not (conditions or step_count):
        return Reply(array([plan.form(()) for plan in plans]))

    def run(state: StateView) -> bytes:
        bytes_left = [READ_BYTES_MAX]
        for key, revision in conditions:
            if _look(key, state, bytes_left).number != revision:
                return null
        return array([plan.form(_read(plan, state, bytes_left)) for plan in plans])

    key = next((plan.key for plan in plans if plan.key), b"")
    cost = len(conditions) + step_count
    stale = session.stale_reads and not conditions
    return Query(run=run, key=key, cost=cost, stale=stale)


# --- WATCH ----------------------------------------------------------------------------------


def watch(command: list[bytes], session: Session, features: int) -> Action:
    """Answer WATCH: note what revisions the keys have now."""
    require_lives(command, features)
    names = [key_text(key) for key in command[1:]]
    watching = session.watching
    if len(watching.revisions) + len(names) > STEPS_MAX:
        raise CommandError(f"ERR at most {STEPS_MAX} keys are watched at once")
    watching.pending += 1

    def run(state: StateView) -> bytes:
        watching.pending -= 1
        bytes_left = [READ_BYTES_MAX]
        try:
            for name in names:
                watching.revisions.setdefault(name, _look(name, state, bytes_left).number)
        except CommandError:
            watching.failed = True
            raise
        return OK

    def failed() -> None:
        watching.pending -= 1
        watching.failed = True

    # Never from an old state: it would be no use to know that.
    return Query(run=run, failed=failed, key=command[1], cost=len(names))


def unwatch(command: list[bytes], session: Session, features: int) -> Action:
    """Answer UNWATCH."""
    session.watching = Watching()
    return Reply(OK)
