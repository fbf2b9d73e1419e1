"""Every invariant of the simulator, cheap and fundamental ones first."""

from __future__ import annotations

from tests.simulation.invariants import Invariant
from tests.simulation.invariants.acknowledged_is_kept import AcknowledgedIsKept
from tests.simulation.invariants.committed_never_changes import CommittedNeverChanges
from tests.simulation.invariants.committed_on_quorum import CommittedOnQuorum
from tests.simulation.invariants.complete_history import CompleteHistory
from tests.simulation.invariants.core_invariants import CoreInvariants
from tests.simulation.invariants.durable_before_sent import DurableBeforeSent
from tests.simulation.invariants.election_safety import ElectionSafety
from tests.simulation.invariants.equal_state import EqualState
from tests.simulation.invariants.exclusive_leases import ExclusiveLeases
from tests.simulation.invariants.fresh_reads import FreshReads
from tests.simulation.invariants.leader_append_only import LeaderAppendOnly
from tests.simulation.invariants.leader_completeness import LeaderCompleteness
from tests.simulation.invariants.ledger_rules import LedgerRules
from tests.simulation.invariants.log_matching import LogMatching
from tests.simulation.invariants.monotonic_positions import MonotonicPositions
from tests.simulation.invariants.older_release import OlderRelease
from tests.simulation.invariants.one_unfinished_configuration import OneUnfinishedConfiguration
from tests.simulation.invariants.recovery import Recovery
from tests.simulation.invariants.removal import Removal
from tests.simulation.invariants.snapshot_content import SnapshotContent
from tests.simulation.invariants.snapshot_positions import SnapshotPositions
from tests.simulation.invariants.snapshots_in_use import SnapshotsInUse
from tests.simulation.invariants.state_machine_safety import StateMachineSafety

ALL: tuple[type[Invariant], ...] = (
    Recovery,
    DurableBeforeSent,
    AcknowledgedIsKept,
    SnapshotPositions,
    MonotonicPositions,
    ElectionSafety,
    LeaderAppendOnly,
    LogMatching,
    OneUnfinishedConfiguration,
    CommittedOnQuorum,
    LeaderCompleteness,
    CommittedNeverChanges,
    StateMachineSafety,
    OlderRelease,
    LedgerRules,
    CompleteHistory,
    EqualState,
    SnapshotContent,
    SnapshotsInUse,
    FreshReads,
    ExclusiveLeases,
    Removal,
    CoreInvariants,
)

OF_COMMANDS: tuple[type[Invariant], ...] = (OlderRelease, LedgerRules, CompleteHistory)
"""Those that read what commands say, and so need servers with real state machines."""
