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
| `certificates` | how connections are protected |
| `members`, `sessions`, `deadlines` | whom to ask; what makes writes happen once; when to give up |
| `pending`, `certificates` | what a watch has been told of; what is wrong with certificates |
| `conversation` | the bytes of one connection |
| `blocking`, `links` | plain sockets, which raftctl uses too; connections for trio |
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftd.client.async_client import AsyncClient
    from raftd.client.blocking_client import Client
    from raftd.client.certificates import tls_context
    from raftd.client.errors import (
        Busy,
        CertificateRefused,
        ClientClosed,
        ClientError,
        Forbidden,
        InvalidRequest,
        NoCluster,
        NoLeader,
        NotApplied,
        OutcomeUnknown,
        Refused,
        RevisionGone,
        ServerTooOld,
        SessionExpired,
        Unavailable,
        UnexpectedReply,
        Unreachable,
        WriteInterrupted,
    )
    from raftd.client.results import KeyEvent, KeyValue, Page, TransactionResult, WriteResult
    from raftd.transactions import AddTo, Append, Outcome, ReadKey, RemoveKey, SetKey, SetLife

__all__ = [
    "AddTo",
    "Append",
    "AsyncClient",
    "Busy",
    "CertificateRefused",
    "Client",
    "ClientClosed",
    "ClientError",
    "Forbidden",
    "InvalidRequest",
    "KeyEvent",
    "KeyValue",
    "NoCluster",
    "NoLeader",
    "NotApplied",
    "Outcome",
    "OutcomeUnknown",
    "Page",
    "ReadKey",
    "Refused",
    "RemoveKey",
    "RevisionGone",
    "ServerTooOld",
    "SessionExpired",
    "SetKey",
    "SetLife",
    "TransactionResult",
    "Unavailable",
    "UnexpectedReply",
    "Unreachable",
    "WriteInterrupted",
    "WriteResult",
    "tls_context",
]

_MODULES = {
    "raftd.client.async_client": ("AsyncClient",),
    "raftd.client.blocking_client": ("Client",),
    "raftd.client.certificates": ("tls_context",),
    "raftd.client.results": ("KeyEvent", "KeyValue", "Page", "TransactionResult", "WriteResult"),
    "raftd.transactions": (
        *("AddTo", "Append", "Outcome", "ReadKey", "RemoveKey", "SetKey", "SetLife"),
    ),
}
"""Where names are defined; those that are not listed are errors."""


def __getattr__(name: str) -> Any:
    # On demand: a program that waits for each answer needs no trio, and raftctl only the rules.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    places = (module for module, names in _MODULES.items() if name in names)
    return getattr(importlib.import_module(next(places, "raftd.client.errors")), name)
