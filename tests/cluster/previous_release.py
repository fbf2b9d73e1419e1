"""`python -m tests.cluster.previous_release ...raftd arguments`: a raftd as the release before.

It speaks version 2 of the protocol, closes the connection for requests that came later, stops at
commands that came later, never switches features on, and refuses a state where some are.
"""

from __future__ import annotations

import sys

from raftd import admission, codec, commands, views
from raftd.__main__ import main
from raftd.commands import BeginRolling, SwitchOn, UpdateRolling
from raftd.protocol import (
    BeginRollingRequest,
    CheckupRequest,
    Hello,
    HistoryRequest,
    UpdateRollingRequest,
)
from raftd.storage import state
from raftd.surroundings import Settings

VERSION = 2
LATER_COMMANDS = (SwitchOn, BeginRolling, UpdateRolling)
LATER_REQUESTS = (HistoryRequest, BeginRollingRequest, UpdateRollingRequest, CheckupRequest)


def go_back() -> None:
    """Let this process forget what came after the release before."""
    for module in (admission, views):
        module.PROTOCOL_VERSION_MAX = VERSION  # type: ignore[attr-defined]
    for made, field, value in (
        (Hello, "version_max", VERSION),
        (Settings, "features_max", 0),
    ):
        defaults = made.__init__.__kwdefaults__
        assert defaults is not None
        defaults[field] = value
    for code, kind in list(commands._TYPES.items()):
        if kind in LATER_COMMANDS:
            del commands._TYPES[code]
    for tag, kind in list(codec._REQUESTS.items()):
        if kind in LATER_REQUESTS:
            del codec._REQUESTS[tag]
    state._FORMATS = (state.STATE_FORMAT,)  # type: ignore[assignment]


if __name__ == "__main__":
    go_back()
    sys.exit(main())
