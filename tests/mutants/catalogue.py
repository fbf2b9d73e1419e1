"""All mutants."""

from __future__ import annotations

from tests.mutants import (
    administration,
    benchmark,
    clients,
    connections,
    elections,
    lives,
    logs,
    membership,
    node,
    python_client,
    reads,
    replication,
    security,
    snapshot_files,
    snapshots,
    state,
    states,
    storage,
    telling,
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
    *lives.MUTANTS,
    *connections.MUTANTS,
    *security.MUTANTS,
    *python_client.MUTANTS,
    *telling.MUTANTS,
    *logs.MUTANTS,
)
"""In the order of the protocol: elections first, then the driver, what operators ask, many
clients, keys with a life, connections and who may use them, the client for programs, and what is
told by HTTP and in the log."""
