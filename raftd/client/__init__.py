"""The client of a cluster: finds the leader, outlives its servers, and writes exactly once.

`Client` is for programs that wait for each answer, `AsyncClient` for programs that run on trio.

    from raftd.client import Client

    with Client(["127.0.0.1:7101"]) as client:
        client.put("orders/17", b"packed")

| module | what it is |
|---|---|
| `blocking_client`, `async_client` | what programs use: `Client` and `AsyncClient` |
| `results`, `errors` | what calls return; not applied, or unknown |
| `calls`, `keys` | the rules, as steps without sockets, clock or randomness |
| `judging` | what requests and replies mean for them |
| `members`, `sessions`, `deadlines` | whom to ask; what makes writes happen once; when to give up |
| `conversation` | the bytes of one connection |
| `blocking`, `links` | plain sockets, which raftctl uses too; connections for trio |
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftd.client.async_client import AsyncClient
    from raftd.client.blocking_client import Client
    from raftd.client.errors import (
        Busy,
        ClientClosed,
        ClientError,
        Forbidden,
        InvalidRequest,
        NoCluster,
        NoLeader,
        NotApplied,
        OutcomeUnknown,
        Refused,
        ServerTooOld,
        SessionExpired,
        Unavailable,
        UnexpectedReply,
        Unreachable,
        WriteInterrupted,
    )
    from raftd.client.results import KeyValue, Page, WriteResult

__all__ = [
    "AsyncClient",
    "Busy",
    "Client",
    "ClientClosed",
    "ClientError",
    "Forbidden",
    "InvalidRequest",
    "KeyValue",
    "NoCluster",
    "NoLeader",
    "NotApplied",
    "OutcomeUnknown",
    "Page",
    "Refused",
    "ServerTooOld",
    "SessionExpired",
    "Unavailable",
    "UnexpectedReply",
    "Unreachable",
    "WriteInterrupted",
    "WriteResult",
]

_MODULES = {
    "AsyncClient": "async_client",
    "Client": "blocking_client",
    "KeyValue": "results",
    "Page": "results",
    "WriteResult": "results",
}
"""Where a name is defined; those that are not listed are errors."""


def __getattr__(name: str) -> Any:
    # On demand: a program that waits for each answer needs no trio, and raftctl only the rules.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}")
    return getattr(module, name)
