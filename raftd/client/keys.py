"""Reads and writes of keys, as steps that any driver takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from raftd.client.calls import Calls, Steps
from raftd.client.deadlines import Deadline
from raftd.client.errors import (
    InvalidRequest,
    NotApplied,
    OutcomeUnknown,
    Refused,
    UnexpectedReply,
)
from raftd.client.results import KeyValue, Page, WriteResult
from raftd.commands import KEY_BYTES_MAX, VALUE_BYTES_MAX
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
    WriteReply,
)

PAGE_ENTRIES = 1_000
"""Of one question for a list; a server cuts the answer where keys and values reach 4 MiB."""

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
    ) -> Steps[WriteResult]:
        """Set `key` to `value`, always or under one condition."""
        checked_key(key)
        checked_value(value)
        if if_absent and if_revision is not None:
            raise InvalidRequest("if_absent and if_revision exclude each other")
        if if_revision is not None and if_revision < 0:
            raise InvalidRequest(f"a revision is 0 or more, not {if_revision}")

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
        except OutcomeUnknown as error:
            error.interpret, error.release = unknown.interpret, unknown.release
            raise
        except Refused as error:
            unknown.is_settled, unknown.settled_with = True, error
            unknown.release()
            raise
        unknown.is_settled, unknown.settled_with = True, _interpreted(unknown.interpret, reply)
        unknown.release()
        return unknown.settled_with

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


def write_result(reply: Reply) -> WriteResult:
    """Return what `reply` says about a write of one key."""
    found = expected(reply, WriteReply)
    return WriteResult(applied=found.applied, revision=found.revision)
