"""All mutants."""

from __future__ import annotations

from tests.mutants import elections, membership, node, replication, state, storage
from tests.mutants.mutant import Mutant

ALL: tuple[Mutant, ...] = (
    *elections.MUTANTS,
    *replication.MUTANTS,
    *membership.MUTANTS,
    *state.MUTANTS,
    *storage.MUTANTS,
    *node.MUTANTS,
)
"""In the order of the protocol: elections first, the driver last."""
