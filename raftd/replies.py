"""What the node answers: checks of requests, and results as replies. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from raftd.commands import (
    KEY_BYTES_MAX,
    ROLLING_COMMAND_BYTES_MAX,
    ROLLING_REPLACE,
    ROLLING_RESTART,
    SESSION_BYTES_MAX,
    VALUE_BYTES_MAX,
    Result,
)
from raftd.config_values import check_name, parse_dialled_address, parse_member_argument
from raftd.core.raft import Raft
from raftd.core.types import ServerId, server_name
from raftd.planning import MEMBERS_MAX, shortened
from raftd.protocol import (
    CHECKUP_ADDRESSES_MAX,
    CHECKUP_TIMEOUT_MS_MAX,
    LIST_LIMIT_MAX,
    WATCH_WAIT_MS_MAX,
    AbortRequest,
    BeginRollingRequest,
    BootstrapRequest,
    ChangeRequest,
    CheckupRequest,
    CompareAndSetRequest,
    DeleteRequest,
    ErrorReply,
    GetReply,
    GetRequest,
    JoinRequest,
    ListEntry,
    ListReply,
    ListRequest,
    OpenSessionRequest,
    PutRequest,
    Reply,
    Request,
    TransactionRequest,
    UpdateRollingRequest,
    WatchRequest,
    WriteReply,
)
from raftd.storage.identity import Identity
from raftd.storage.state import KeyValue, StateMachine
from raftd.storage.transacting import FEATURES_OFF

LIST_BYTES_MAX = 4 * 1024 * 1024
"""Keys and values of one list reply: half a frame, so that the rest of each entry fits too."""

CHANGES_MAX = 2 * MEMBERS_MAX
"""Servers named in one change: every member removed, and as many brought in."""
TEXT_BYTES_MAX = 1024
"""UTF-8 bytes of an author, a reason or a cluster id: they stay in the log and in the records."""


def bad_request(request: Request) -> str:
    """Return what is wrong with a request in itself; empty if nothing is.

    What a request puts into the log is bounded here, so that every entry fits its record.
    """
    match request:
        case PutRequest():
            return bad_session(request.session) or bad_key(request.key) or bad_value(request.value)
        case CompareAndSetRequest():
            return (
                bad_session(request.session)
                or bad_key(request.key)
                or bad_value(request.value)
                or bad_value(request.expected)
            )
        case DeleteRequest():
            return bad_session(request.session) or bad_key(request.key)
        case GetRequest() | ListRequest():
            return bad_read(request)
        case WatchRequest():
            return _bad_watch(request)
        case OpenSessionRequest() | TransactionRequest():
            return bad_session(request.session)
        case ChangeRequest() | AbortRequest():
            return _bad_change(request)
        case BootstrapRequest() | JoinRequest():
            return _bad_membership(request)
        case CheckupRequest():
            return _bad_checkup(request)
        case BeginRollingRequest():
            return _bad_rolling(request)
        case UpdateRollingRequest():
            return _bad_rolling_update(request)
        case _:
            return ""


def bad_session(session: str) -> str:
    """Return what is wrong with the name of a session; empty if nothing is."""
    if not 1 <= len(session.encode()) <= SESSION_BYTES_MAX:
        return f"a session name has 1 to {SESSION_BYTES_MAX} bytes, not {len(session.encode())}"
    return ""


def _bad_change(request: ChangeRequest | AbortRequest) -> str:
    texts = [request.author, request.reason]
    if isinstance(request, AbortRequest):
        texts.append(request.operation)
    else:
        texts.append(request.kind)
        if len(request.changes) > CHANGES_MAX:
            return f"a change names at most {CHANGES_MAX} servers, not {len(request.changes)}"
        for change in request.changes:
            texts += [change.role, change.name, change.address]
        texts += [request.parent, *request.zones, *request.zones.values()]
        problem = _bad_target(request)
        if problem:
            return problem
        if request.dry_run:
            # Nothing of it gets into the log, so that it needs no session.
            return _too_long(texts)
    if isinstance(request, AbortRequest) and not request.session:
        if not request.operation:
            # A late copy of it would undo whatever runs by then.
            return "an abort without a session has to name its operation"
        return _too_long(texts)
    return bad_session(request.session) or _too_long(texts)


def _bad_target(request: ChangeRequest) -> str:
    """Return what is wrong with the sizes of a target; what it says is judged by the leader."""
    if (request.kind == "apply") != bool(request.target) or (request.target and request.changes):
        return "to apply names a target and no changes, every other change the other way round"
    if max(len(request.target), len(request.zones)) > CHANGES_MAX:
        return f"a target names at most {CHANGES_MAX} servers and zones, not so many"
    return _too_long(
        [word for member in request.target for word in (member.role, member.name, member.address)]
    )


def _bad_membership(request: BootstrapRequest | JoinRequest) -> str:
    """Return what is wrong with what would become a part of this server's identity."""
    try:
        check_name(request.cluster_name)
        if isinstance(request, BootstrapRequest):
            parse_dialled_address(request.address)
            return ""
    except ValueError as error:
        return str(error)
    return _too_long([request.cluster_id]) if request.cluster_id else "it names no cluster"


def _bad_checkup(request: CheckupRequest) -> str:
    """Return what is wrong with what would have this server dial others."""
    if len(request.addresses) > CHECKUP_ADDRESSES_MAX:
        return (
            f"a checkup has at most {CHECKUP_ADDRESSES_MAX} addresses, not {len(request.addresses)}"
        )
    if not 0 < request.timeout_ms <= CHECKUP_TIMEOUT_MS_MAX:
        return (
            f"the time-out is more than 0 and at most {CHECKUP_TIMEOUT_MS_MAX:.0f} ms, "
            f"not {request.timeout_ms}"
        )
    try:
        for address in request.addresses:
            parse_dialled_address(address)
    except ValueError as error:
        return str(error)
    return ""


def _bad_rolling(request: BeginRollingRequest) -> str:
    """Return what is wrong with a rolling operation that is to begin."""
    is_restart = request.kind == ROLLING_RESTART
    if not is_restart and request.kind != ROLLING_REPLACE:
        return f"a rolling operation is {ROLLING_REPLACE} or {ROLLING_RESTART}"
    if not 1 <= len(request.steps) <= MEMBERS_MAX:
        return f"a rolling operation has 1 to {MEMBERS_MAX} steps, not {len(request.steps)}"
    command_bytes = len(request.command.encode())
    if command_bytes > ROLLING_COMMAND_BYTES_MAX:
        return (
            f"a command of {command_bytes} bytes; at most {ROLLING_COMMAND_BYTES_MAX} are allowed: "
            "put it into a script"
        )
    if is_restart != bool(request.command.strip()):
        return "a restart has a command, a replacement has none"
    if len({step.name for step in request.steps}) < len(request.steps):
        return "a server can have one step only"
    try:
        for step in request.steps:
            check_name(step.name)
            if not is_restart:
                parse_member_argument(step.replacement)
    except ValueError as error:
        return str(error)
    if is_restart and any(step.replacement for step in request.steps):
        return "a restart replaces nobody"
    return bad_session(request.session) or _too_long([request.author, request.reason])


def _bad_rolling_update(request: UpdateRollingRequest) -> str:
    """Return what is wrong with a change of a rolling operation's record, in itself."""
    texts = [request.operation, request.action, request.author, request.outcome, request.reason]
    if request.step is not None:
        step = request.step
        texts += [step.name, step.replacement, step.state, step.operation, step.note]
        texts += [step.version_before, step.version_after]
    return bad_session(request.session) or _too_long(texts)


def _too_long(texts: list[str]) -> str:
    longest = max((len(text.encode()) for text in texts), default=0)
    if longest > TEXT_BYTES_MAX:
        return f"a text of {longest} bytes; at most {TEXT_BYTES_MAX} are allowed"
    return ""


def bad_key(key: str) -> str:
    """Return what is wrong with a key; empty if nothing is."""
    if not 1 <= len(key.encode()) <= KEY_BYTES_MAX:
        return f"a key has 1 to {KEY_BYTES_MAX} bytes of UTF-8, not {len(key.encode())}"
    return ""


def bad_value(value: bytes) -> str:
    """Return what is wrong with a value; empty if nothing is."""
    if len(value) > VALUE_BYTES_MAX:
        return f"a value has at most {VALUE_BYTES_MAX} bytes, not {len(value)}"
    return ""


def bad_read(request: GetRequest | ListRequest) -> str:
    """Return what is wrong with a read; empty if nothing is."""
    if isinstance(request, GetRequest):
        return bad_key(request.key)
    if not 1 <= request.limit <= LIST_LIMIT_MAX:
        return f"the limit is 1 to {LIST_LIMIT_MAX}, not {request.limit}"
    return ""


def _bad_watch(request: WatchRequest) -> str:
    """Return what is wrong with a question for changes; empty if nothing is."""
    if not 1 <= request.limit <= LIST_LIMIT_MAX:
        return f"the limit is 1 to {LIST_LIMIT_MAX}, not {request.limit}"
    if request.wait_ms > WATCH_WAIT_MS_MAX:
        return f"to wait for at most {WATCH_WAIT_MS_MAX} ms, not {request.wait_ms}"
    return bad_key(request.prefix) if request.prefix else ""


def read_reply(
    state: StateMachine, request: GetRequest | ListRequest, now_ms: Callable[[], int]
) -> GetReply | ListReply:
    """Return what the state machine says to a read, now.

    Args:
        now_ms: returns cluster time; only asked where a key has a life.
    """

    def ttl_ms(item: KeyValue) -> int | None:
        return max(0, item.deadline_ms - now_ms()) if item.deadline_ms else None

    if isinstance(request, ListRequest):
        found, more = state.list(request.prefix, request.limit, LIST_BYTES_MAX, after=request.after)
        return ListReply(
            revision=state.revision,
            entries=tuple(
                ListEntry(
                    key=item.key,
                    value=item.value,
                    create_revision=item.create_revision,
                    mod_revision=item.mod_revision,
                    version=item.version,
                    ttl_ms=ttl_ms(item),
                )
                for item in found
            ),
            more=more,
        )
    item = state.get(request.key)
    if item is None:
        return GetReply(found=False, revision=state.revision)
    return GetReply(
        found=True,
        value=item.value,
        create_revision=item.create_revision,
        mod_revision=item.mod_revision,
        version=item.version,
        revision=state.revision,
        ttl_ms=ttl_ms(item),
    )


def write_reply(result: Result) -> Reply:
    """Return what applying a command answered as a reply."""
    if not result.code:
        return WriteReply(applied=result.applied, revision=result.revision)
    codes = {
        "session-expired": "session-expired",
        # Likewise: it may have been done, and what it came to is forgotten.
        "stale-serial": "session-expired",
        "too-many-unacknowledged": "unavailable",
    }
    return ErrorReply(
        code=codes.get(result.code, "invalid"),
        message=f"not applied: {result.code}",
        cause=result.message,
        hint="open a new session; `raftctl status` shows that the cluster is there"
        if result.code == "session-expired"
        else "`raftctl --help` shows what can be asked",
    )


def unavailable(message: str, cause: str) -> ErrorReply:
    """Return the answer to a request that was not taken and may be repeated anywhere."""
    hint = "try again in some seconds; `raftctl status` shows who leads"
    return ErrorReply(code="unavailable", message=message, cause=cause, hint=hint)


def features_are_off() -> ErrorReply:
    """Return the answer to what needs features that are not switched on. It was not appended."""
    return ErrorReply(
        code="refused",
        message="the cluster cannot do that yet",
        cause=FEATURES_OFF,
        hint="`raftctl status -o wide` shows the releases",
    )


def not_leader(raft: Raft, identity: Identity, leader_address: str) -> ErrorReply:
    """Return the answer to a request that only the leader can serve. Nothing was appended.

    Args:
        leader_address: HOST:PORT where the leader answers, as far as is known.
    """
    leader_id = raft.leader_id
    if identity.is_blank:
        return unavailable(f"{identity.name} is blank", "it belongs to no cluster yet")
    if leader_id is None or leader_id == raft.server:
        return unavailable("no leader", f"{identity.name} knows no leader at the moment")
    return ErrorReply(
        code="not-leader",
        message=f"{identity.name} is not the leader",
        cause=f"the leader of term {raft.current_term} is {server_name(leader_id)}",
        hint="ask the leader: `raftctl status` shows where it is",
        leader=leader_id,
        leader_address=leader_address,
    )


def disk_full(short: Iterable[ServerId], here: str) -> ErrorReply:
    """Return the answer to a write while disks are nearly full. It was not appended.

    Args:
        short: the servers whose disks they are.
        here: what is known about the disk of this server; empty if it has room.
    """
    names = sorted(server_name(server) for server in short)
    where = ", ".join(names)
    return ErrorReply(
        code="disk-full",
        message="writes are refused, the disk is nearly full",
        cause=f"on {where}" + (f": {here}" if here else ", and without them there is no majority"),
        hint=f"`raftctl status`, then make room on {where}; or bring in a server with more, while "
        f"reads and membership changes go on: `raftctl replace {names[0]} NEW=HOST:PORT`",
    )


def size_text(size_bytes: int) -> str:
    """Return a size for people, in the largest unit that is not more than it."""
    for unit, bits in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size_bytes >= 10 << bits:
            return f"{size_bytes / (1 << bits):,.0f} {unit}"
    return f"{size_bytes} B"


def invalid(cause: str) -> ErrorReply:
    """Return the answer to a request that can never be carried out."""
    hint = "`raftctl --help` shows what can be asked, `raftctl status -o wide` the releases"
    return ErrorReply(code="invalid", message="the request is not valid", cause=cause, hint=hint)


def transfer_failed(target: ServerId, why: str) -> ErrorReply:
    """Return the answer when `target` does not lead afterwards."""
    return ErrorReply(
        code="refused",
        message=f"leadership was not transferred to {server_name(target)}",
        cause=why,
        hint="`raftctl status` shows who leads; then try again: "
        f"`raftctl transfer {server_name(target)}`",
    )


def wrong_incarnation(identity: Identity, incarnation: str) -> ErrorReply:
    """Return the answer when another data directory was meant."""
    return ErrorReply(
        code="refused",
        message=f"here is {identity.server}",
        cause=f"the request means the incarnation {shortened(incarnation)}",
        hint="its data_dir was replaced meanwhile: `raftctl status`, then repeat the command",
    )


def not_blank(identity: Identity) -> ErrorReply:
    """Return the answer when a cluster is to be joined or founded by a member of another one."""
    return ErrorReply(
        code="refused",
        message=f"{identity.name} is not blank",
        cause=f"it belongs to cluster {identity.cluster_name!r} ({identity.cluster_id})",
        hint="use a server with an empty data_dir: "
        f"`raftd --config FILE --id {identity.name} --data-dir DIR`",
    )
