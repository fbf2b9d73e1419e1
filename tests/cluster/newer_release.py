"""`python -m tests.cluster.newer_release ...raftd arguments`: a raftd that says it is newer."""

from __future__ import annotations

import sys

import raftd

VERSION = "9.9.0"

if __name__ == "__main__":
    raftd.__version__ = VERSION
    # Only now: whoever tells others the version takes it when it is loaded.
    from raftd.__main__ import main

    sys.exit(main())
