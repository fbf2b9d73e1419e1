"""`python -m tests.cluster.older_release ...raftd arguments`: an older one than the release before.

It speaks version 2 of the protocol and knows no features. See `tests.cluster.previous_release`.
"""

from __future__ import annotations

import sys

from raftd.__main__ import main
from tests.cluster.previous_release import go_back

VERSION = 2

if __name__ == "__main__":
    go_back(VERSION)
    sys.exit(main())
