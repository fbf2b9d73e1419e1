"""Reads and writes of keys, as steps that any driver takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from raftd.client.calls import REPLY_TIMEOUT_MS, RETRY_MS_MAX, Calls, Pause, Steps
from raftd.client.deadlines import Deadline
from raftd.client.errors import (
    InvalidRequest,
    NotApplied,
    OutcomeUnknown,
    Refused,
    SessionExpired,
    UnexpectedReply,
)
from raftd.client.judging import judge_watch
from raftd.client.results import KeyEvent, KeyValue, Page, TransactionResult, WriteResult
from raftd.commands import INTEGER_MAX, INTEGER_MIN, KEY_BYTES_MAX, VALUE_BYTES_MAX
from raftd.protocol import (
    LIST_LIMIT_MAX,
    CompareAndSetRequest,
    DeleteRequest,
    GetReply,
    GetRequest,
    ListReply,
    ListRequest,
    PutRequest,
    Reply,
    Request,
    TransactionReply,
    TransactionRequest,
    WatchReply,
    WatchRequest,
    WriteReply,
)
from raftd.records import RECORD_BODY_BYTES_MAX
from raftd.transactions import (
    LIFE_MS_MAX,
    NOT_A_NUMBER,
    STEPS_MAX,
    AddTo,
    SetKey,
    Step,
    decode_outcomes,
    encode_steps,
)

PAGE_ENTRIES = 1_000
"""Of one question for a list; a server cuts the answer where keys and values reach 4 MiB."""

TRANSACTION_BYTES_MAX = RECORD_BODY_BYTES_MAX - 2 * 1024
"""Of its conditions and steps: with its session it fits one entry of the log."""

ReplyType = TypeVar("ReplyType")
Value = TypeVar("Value")


class KeyCalls:
    """What applications ask of a cluster.

    Args:
        calls: of a client.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def get(self, key: str, deadline: Deadline, *, stale: bool) -> Steps[KeyValue | None]:
        """Return `key`; None if it is not there."""
        request = GetRequest(key=checked_key(key), stale=stale)
        reply = expected((yield from self._calls.ask(request, deadline)), GetReply)
        if not reply.found:
            return None
        return KeyValue(
            key=key,
            value=reply.value,
            create_revision=reply.create_revision,
            mod_revision=reply.mod_revision,
            version=reply.version,
            ttl_ms=reply.ttl_ms,
        )

    def page(
        self, prefix: str, deadline: Deadline, *, after: str, limit: int, stale: bool
    ) -> Steps[Page]:
        """Return the keys that begin with `prefix` and come behind `after`, at most `limit`."""
        for key in filter(None, (prefix, after)):
            checked_key(key)
        if not 1 <= limit <= LIST_LIMIT_MAX:
            raise InvalidRequest(f"a page has 1 to {LIST_LIMIT_MAX} entries, not {limit}")
        request = ListRequest(prefix=prefix, limit=limit, after=after, stale=stale)
        reply = expected((yield from self._calls.ask(request, deadline)), ListReply)
        if after and reply.entries and reply.entries[0].key.encode() <= after.encode():
            raise UnexpectedReply(
                "the server cannot begin behind a key",
                cause="its release is older: it began with the first key again",
            )
        entries = tuple(
            KeyValue(
                key=entry.key,
                value=entry.value,
                create_revision=entry.create_revision,
                mod_revision=entry.mod_revision,
                version=entry.version,
                ttl_ms=entry.ttl_ms,
            )
            for entry in reply.entries
        )
        return Page(entries=entries, revision=reply.revision, more=reply.more)

    def put(
        self,
        key: str,
        value: bytes,
        deadline: Deadline,
        *,
        if_absent: bool,
        if_revision: int | None,
        ttl_ms: int | None,
    ) -> Steps[WriteResult]:
        """Set `key` to `value`, always or under one condition, for ever or for some time."""
        checked_key(key)
        checked_value(value)
        if if_absent and if_revision is not None:
            raise InvalidRequest("if_absent and if_revision exclude each other")
        if if_revision is not None and if_revision < 0:
            raise InvalidRequest(f"a revision is 0 or more, not {if_revision}")
        if ttl_ms is not None:
            if not 1 <= ttl_ms <= LIFE_MS_MAX:
                raise InvalidRequest(f"a life has 1 to {LIFE_MS_MAX} ms, not {ttl_ms}")
            conditions = {} if if_revision is None else {key: if_revision}
            conditions |= {key: 0} if if_absent else {}
            step = SetKey(key, value, ttl_ms)
            result = yield from self.transaction((step,), conditions, deadline)
            return WriteResult(applied=result.applied, revision=result.revision)

        def build(session: str, serial: int, lowest: int) -> PutRequest:
            return PutRequest(
                session=session,
                serial=serial,
                lowest_unacknowledged=lowest,
                key=key,
                value=value,
                if_absent=if_absent,
                if_revision=if_revision,
            )

        return (yield from self._write(build, write_result, deadline))

    def delete(self, key: str, deadline: Deadline) -> Steps[WriteResult]:
        """Remove `key`."""
        checked_key(key)

        def build(session: str, serial: int, lowest: int) -> DeleteRequest:
            return DeleteRequest(
                session=session, serial=serial, lowest_unacknowledged=lowest, key=key
            )

        return (yield from self._write(build, write_result, deadline))

    def compare_and_set(
        self, key: str, expected_value: bytes, value: bytes, deadline: Deadline
    ) -> Steps[WriteResult]:
        """Set `key` to `value` if its value is `expected_value`."""
        checked_key(key)
        checked_value(expected_value)
        checked_value(value)

        def build(session: str, serial: int, lowest: int) -> CompareAndSetRequest:
            return CompareAndSetRequest(
                session=session,
                serial=serial,
                lowest_unacknowledged=lowest,
                key=key,
                expected=expected_value,
                value=value,
            )

        return (yield from self._write(build, write_result, deadline))

    def increment(self, key: str, by: int, deadline: Deadline) -> Steps[int]:
        """Return the number that `key` has come to by adding `by`."""
        checked_key(key)
        if not INTEGER_MIN <= by <= INTEGER_MAX:
            raise InvalidRequest(f"a counter has 64 bits, too few for {by}")

        def interpret(reply: Reply) -> int:
            (outcome,) = transaction_result(reply, 1).outcomes
            if outcome.code:
                raise InvalidRequest(
                    f"{key} cannot be counted with, and is as it was",
                    cause="its value is no whole number of 64 bits"
                    if outcome.code == NOT_A_NUMBER
                    else "the sum would have more than 64 bits",
                    code=outcome.code,
                )
            return outcome.number

        build = _transaction((AddTo(key, by),), {})
        return (yield from self._write(build, interpret, deadline))

    def transaction(
        self, steps: Sequence[Step], conditions: Mapping[str, int], deadline: Deadline
    ) -> Steps[TransactionResult]:
        """Carry out `steps` in one piece if all `conditions` hold."""
        for key in conditions:
            checked_key(key)
        for step in steps:
            checked_key(step.key)
        if max(len(steps), len(conditions)) > STEPS_MAX:
            raise InvalidRequest(f"a transaction has at most {STEPS_MAX} steps and conditions each")

        def interpret(reply: Reply) -> TransactionResult:
            return transaction_result(reply, len(steps))

        return (yield from self._write(_transaction(steps, conditions), interpret, deadline))

    def revision(self, deadline: Deadline) -> Steps[int]:
        """Return the revision of the state, which has everything that was acknowledged before."""
        reply = yield from self._calls.ask(ListRequest(limit=1), deadline)
        return expected(reply, ListReply).revision

    def changes(
        self, prefix: str, after_revision: int, wait_ms: int, deadline: Deadline
    ) -> Steps[tuple[tuple[KeyEvent, ...], int]]:
        """Return the next changes of keys, and the revision behind which to ask next.

        Args:
            prefix: of the keys; empty for all.
            after_revision: only changes behind it.
            wait_ms: how long to wait for one; then there are none.
            deadline: to have an answer.
        """
        if prefix:
            checked_key(prefix)
        request = WatchRequest(
            after_revision=after_revision, prefix=prefix, limit=PAGE_ENTRIES, wait_ms=wait_ms
        )
        reply_timeout_ms = REPLY_TIMEOUT_MS + wait_ms
        earliest_s = self._calls.clock() + min(wait_ms, RETRY_MS_MAX) / 1000
        reply = expected(
            (
                yield from self._calls.ask(
                    request, deadline, reply_timeout_ms=reply_timeout_ms, judge=judge_watch
                )
            ),
            WatchReply,
        )
        left_ms = 1000 * (earliest_s - self._calls.clock())
        if not reply.events and left_ms > 0:
            # A server that does not wait must not be asked again and again without a pause.
            yield Pause(duration_ms=left_ms, deadline=deadline)
        events = tuple(
            KeyEvent(
                revision=event.revision,
                kind=event.kind,
                key=event.key,
                value=event.value,
                create_revision=event.create_revision,
                mod_revision=event.mod_revision,
                version=event.version,
            )
            for event in reply.events
        )
        return events, reply.next_after_revision

    def settle(self, unknown: OutcomeUnknown, deadline: Deadline) -> Steps[Any]:
        """Return what the call returns that ended with `unknown`; see `Client.settle`."""
        if unknown.is_settled:
            # The cluster does not keep its answer any longer.
            if isinstance(unknown.settled_with, NotApplied):
                raise unknown.settled_with
            return unknown.settled_with
        if unknown.interpret is None or unknown.request is None:
            raise ValueError("only a write with a session can be settled")
        try:
            reply = yield from self._calls.ask(unknown.request, deadline, sent_before=True)
            result = _interpreted(unknown.interpret, reply)
        except SessionExpired:
            raise
        except OutcomeUnknown as error:
            if error.request is not unknown.request:
                raise
            # The same one: whoever has kept it must see when it is settled.
            unknown.cause = error.cause
            raise unknown from None
        except Refused as error:
            result = error
        unknown.is_settled, unknown.settled_with = True, result
        unknown.release()
        if isinstance(result, Refused):
            raise result
        return result

    def _write(
        self,
        build: Callable[[str, int, int], Request],
        interpret: Callable[[Reply], Value],
        deadline: Deadline,
    ) -> Steps[Value]:
        try:
            reply = yield from self._calls.write(build, deadline)
        except OutcomeUnknown as error:
            error.interpret = interpret
            raise
        return _interpreted(interpret, reply)


def checked_key(key: str) -> str:
    """Return `key` if the state can have it.

    Raises:
        InvalidRequest: it cannot.
        TypeError: it is no text.
    """
    if not isinstance(key, str):
        raise TypeError(f"a key is a str, not {type(key).__name__}")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"the key {key!r} is not UTF-8") from None
    if not 1 <= size <= KEY_BYTES_MAX:
        raise InvalidRequest(f"a key has 1 to {KEY_BYTES_MAX} bytes of UTF-8, not {size}")
    return key


def checked_value(value: bytes) -> bytes:
    """Return `value` if the state can have it.

    Raises:
        InvalidRequest: it cannot.
        TypeError: it is not bytes.
    """
    if not isinstance(value, bytes):
        raise TypeError(f"a value is bytes, not {type(value).__name__}")
    if len(value) > VALUE_BYTES_MAX:
        raise InvalidRequest(f"a value has at most {VALUE_BYTES_MAX} bytes, not {len(value)}")
    return value


def expected(reply: Reply, kind: type[ReplyType]) -> ReplyType:
    """Return `reply`, which has to be a `kind`.

    Raises:
        UnexpectedReply: it is not.
    """
    if not isinstance(reply, kind):
        raise UnexpectedReply(f"a {type(reply).__name__} instead of a {kind.__name__}")
    return reply


def _interpreted(interpret: Callable[[Reply], Value], reply: Reply) -> Value:
    try:
        return interpret(reply)
    except UnexpectedReply as error:
        # Whatever it has answered, it may have done what it was asked for.
        raise OutcomeUnknown(error.message, request=None, cause=error.cause) from None


def _transaction(
    steps: Sequence[Step], conditions: Mapping[str, int]
) -> Callable[[str, int, int], TransactionRequest]:
    """Return what makes the request for a transaction.

    Raises:
        InvalidRequest: it is too long for an entry of the log.
    """
    content = encode_steps(conditions.items(), steps)
    if len(content) > TRANSACTION_BYTES_MAX:
        raise InvalidRequest(
            f"a transaction has at most {TRANSACTION_BYTES_MAX} bytes, not {len(content)}"
        )

    def build(session: str, serial: int, lowest: int) -> TransactionRequest:
        return TransactionRequest(
            session=session, serial=serial, lowest_unacknowledged=lowest, content=content
        )

    return build


def transaction_result(reply: Reply, steps: int) -> TransactionResult:
    """Return what `reply` says about a transaction of so many steps."""
    found = expected(reply, TransactionReply)
    try:
        outcomes = decode_outcomes(found.outcomes)
    except ValueError as error:
        raise UnexpectedReply(str(error)) from None
    if found.applied and len(outcomes) != steps:
        raise UnexpectedReply(f"{len(outcomes)} outcomes of {steps} steps")
    return TransactionResult(applied=found.applied, revision=found.revision, outcomes=outcomes)


def write_result(reply: Reply) -> WriteResult:
    """Return what `reply` says about a write of one key."""
    found = expected(reply, WriteReply)
    return WriteResult(applied=found.applied, revision=found.revision)
