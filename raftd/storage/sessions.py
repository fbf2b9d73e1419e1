"""A session of the state machine, decoded.

Source: dissertation section 6.3.
"""

from __future__ import annotations

import attrs

from raftd.core.types import Index
from raftd.storage.results import PackedResult, returned_bytes


@attrs.define
class Session:
    """A session, decoded. Written back when its batch ends."""

    used_index: Index
    lowest_serial: int
    """Serials below are acknowledged: their results are forgotten, and they never run again."""
    results: dict[int, PackedResult]
    name_checksum: int
    """Stands for the session among the effects of its commands."""

    def acknowledge(self, lowest_serial: int) -> None:
        """Forget the results of all serials below `lowest_serial`."""
        # The client chooses the number: never count up to it.
        if lowest_serial - self.lowest_serial <= len(self.results):
            for serial in range(self.lowest_serial, lowest_serial):
                self.results.pop(serial, None)
        else:
            self.results = {
                serial: result for serial, result in self.results.items() if serial >= lowest_serial
            }
        self.lowest_serial = lowest_serial

    @property
    def returned_bytes(self) -> int:
        """What the outcomes in its results take."""
        return sum(map(returned_bytes, self.results.values()))
