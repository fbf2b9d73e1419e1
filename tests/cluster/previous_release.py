"""`python -m tests.cluster.previous_release ...raftd arguments`: a raftd as the release before.

It speaks version 4 of the protocol, closes the connection for requests that came later, stops at
commands that came later, switches on no features that came later, and refuses a state where some
are. `tests.cluster.older_release` is an older one.
"""

from __future__ import annotations

import sys

from raftd import admission, codec, commands, views
from raftd.__main__ import main
from raftd.commands import (
    AdvanceClock,
    BeginRolling,
    DeleteMany,
    Increment,
    PutMany,
    SwitchOn,
    Transaction,
    UpdateRolling,
)
from raftd.protocol import (
    PROTOCOL_VERSION_MAX,
    BeginRollingRequest,
    CheckupRequest,
    Hello,
    HistoryRequest,
    TransactionRequest,
    UpdateRollingRequest,
    WatchRequest,
)
from raftd.storage import state
from raftd.surroundings import Settings

VERSION = 4
COMMANDS = {
    3: (SwitchOn, BeginRolling, UpdateRolling),
    4: (Increment, PutMany, DeleteMany),
    5: (Transaction, AdvanceClock),
}
REQUESTS = {
    3: (HistoryRequest, BeginRollingRequest, UpdateRollingRequest, CheckupRequest),
    5: (TransactionRequest, WatchRequest),
}
"""What each version has brought."""


def go_back(version: int) -> None:
    """Let this process forget what came after a version."""
    for module in (admission, views):
        module.PROTOCOL_VERSION_MAX = version  # type: ignore[attr-defined]
    formats = tuple(format for format in state._FORMATS if format <= version)
    state._FORMATS = formats  # type: ignore[assignment]
    for made, field, value in (
        (Hello, "version_max", version),
        (Settings, "features_max", formats[-1] if len(formats) > 1 else 0),
    ):
        defaults = made.__init__.__kwdefaults__
        assert defaults is not None
        defaults[field] = value
    for later in range(version + 1, PROTOCOL_VERSION_MAX + 1):
        for code, kind in list(commands._TYPES.items()):
            if kind in COMMANDS[later]:
                del commands._TYPES[code]
        for tag, request in list(codec._REQUESTS.items()):
            if request in REQUESTS.get(later, ()):
                del codec._REQUESTS[tag]


if __name__ == "__main__":
    go_back(VERSION)
    sys.exit(main())
