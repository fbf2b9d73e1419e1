"""All mutants."""

from __future__ import annotations

from tests.mutants import (
    administration,
    benchmark,
    clients,
    connections,
    elections,
    logs,
    membership,
    node,
    reads,
    replication,
    snapshot_files,
    snapshots,
    state,
    states,
    storage,
)
from tests.mutants.mutant import Mutant

ALL: tuple[Mutant, ...] = (
    *elections.MUTANTS,
    *replication.MUTANTS,
    *reads.MUTANTS,
    *membership.MUTANTS,
    *snapshots.MUTANTS,
    *state.MUTANTS,
    *states.MUTANTS,
    *storage.MUTANTS,
    *snapshot_files.MUTANTS,
    *node.MUTANTS,
    *administration.MUTANTS,
    *benchmark.MUTANTS,
    *clients.MUTANTS,
    *connections.MUTANTS,
    *logs.MUTANTS,
)
"""In the order of the protocol: elections first, then the driver, what operators ask, many
clients and their connections, and what people are told."""
