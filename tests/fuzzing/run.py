"""One protocol after the other: streams, and what has to hold after them."""

from __future__ import annotations

import gc

import attrs
import trio

from tests.cluster.processes import wait_for
from tests.fuzzing.attack import Figures, attack
from tests.fuzzing.bed import FuzzingBed
from tests.fuzzing.streams import STREAMS

PROTOCOLS = tuple(STREAMS)
WARM_UP = 300
"""Streams before memory is looked at for the first time: what is allocated once is there then."""
GROWTH_BYTES_MAX = 32 * 1024 * 1024
"""What the process may have more after any number of streams. A connection that were forgotten
takes some kilobytes, and there are thousands."""
DESCRIPTORS_MORE_MAX = 24
"""Files that it may have opened meanwhile: of its log, its snapshots and those who ask."""


@attrs.frozen(kw_only=True)
class Run:
    """What has become of a server that was sent streams of one protocol."""

    protocol: str
    figures: Figures
    before_bytes: int
    after_bytes: int

    @property
    def holds(self) -> bool:
        """Whether it takes no more memory than it may."""
        return self.after_bytes <= self.before_bytes + GROWTH_BYTES_MAX


def run_protocol(bed: FuzzingBed, protocol: str, *, first_seed: int, count: int) -> Run:
    """Send `count` streams after some to warm up, see that all holds, and return the figures.

    Raises:
        AssertionError: it does not, apart from the memory, of which `Run.holds` tells.
    """
    address, ask, streams = bed.addresses[protocol], bed.asks[protocol], STREAMS[protocol]

    def send(first: int, number: int, figures: Figures) -> None:
        async def sending() -> None:
            await attack(address, streams, ask, first_seed=first, count=number, figures=figures)

        trio.run(sending)
        gc.collect()

    descriptors = bed.descriptor_count()
    # Other ones than those that count, but always the same.
    send(-WARM_UP, min(WARM_UP, count), Figures())
    bed.check()
    before_bytes = bed.anonymous_bytes()
    figures = Figures()
    send(first_seed, count, figures)
    bed.check()
    wait_for(
        "those that have gone leave no sockets behind",
        lambda: bed.descriptor_count() <= descriptors + DESCRIPTORS_MORE_MAX,
    )
    return Run(
        protocol=protocol,
        figures=figures,
        before_bytes=before_bytes,
        after_bytes=bed.anonymous_bytes(),
    )
