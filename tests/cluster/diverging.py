"""`python -m tests.cluster.diverging KEY ...raftd arguments`: a raftd that applies one key wrongly.

It adds a byte to each value that is written to KEY, as a bug or a flipped bit in memory would.
"""

from __future__ import annotations

import sys

from raftd.__main__ import main
from raftd.core.types import Index
from raftd.storage.state import StateMachine


def diverge(key: str) -> None:
    """Let every `StateMachine` of this process store a longer value under `key`."""
    right = StateMachine._put

    def wrong(machine: StateMachine, body, command, index: Index):  # type: ignore[no-untyped-def]
        if body.key == key:
            body = type(body)(body.key, body.value + b"!", body.if_absent, body.if_revision)
        return right(machine, body, command, index)

    StateMachine._put = wrong  # type: ignore[method-assign]


if __name__ == "__main__":
    diverge(sys.argv.pop(1))
    sys.exit(main())
