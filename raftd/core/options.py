"""Time-outs of the protocol, in ticks, and what leases go by, in milliseconds."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Options:
    """How long things may take. The driver decides how long a tick is."""

    heartbeat_ticks: int
    """A leader sends at least this often; at least 1."""
    election_ticks: int
    """The minimum election timeout T; each time-out is drawn from [T, 2T). At least twice
    `heartbeat_ticks`."""
    joint_timeout_ticks: int
    """A joint change whose new half stores nothing for so long is rolled back where that is
    safe."""
    departing_ticks: int
    """How long a leader feeds a server that the latest change dropped, until it knows."""

    catch_up_bytes_per_tick: int = 0
    """How much a learner, or whoever needs a snapshot, is sent in a tick; 0 for as much as its
    window allows, whatever clients do."""
    busy_catch_up_bytes_per_tick: int = 0
    """How much of that all of them together are sent in a tick after one in which clients have read
    or written, so that these keep most of the leader; 0 for no difference."""

    vote_withheld_ms: int = 0
    """With leases: for how long this server withholds its vote after it has heard from a leader, at
    least the minimum election timeout. 0 without leases."""
    clock_drift: float = 0.0
    """While one server's clock counts an election timeout, that of every other one counts at least
    (1 - clock_drift) of it. At least 0 and below 1."""

    def __attrs_post_init__(self) -> None:
        assert self.heartbeat_ticks >= 1
        assert self.election_ticks >= 2 * self.heartbeat_ticks
        assert self.joint_timeout_ticks >= 1
        assert self.departing_ticks >= 1
        assert 0 <= self.clock_drift < 1
