"""`raftctl recover`: what is left of a cluster that has lost a majority, and how it goes on.

A majority that is gone cannot be asked what it had committed. So a person has to decide, and this
module says what there is to decide: which of the logs that are left is the most complete one, what
becomes committed by going on from it although nobody knows whether it was, and what may be lost.
Nothing here writes; `raftctl.commands.recover` does.

Source: the paper, 5.4.1 (which of two logs is more up-to-date), 5.4.2 and Figure 8.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from raftctl.endpoints import Endpoints
from raftctl.render import clock, listed, natural_key, number, plural, table
from raftctl.survey import survey
from raftd.core.quorum import majority
from raftd.core.types import Index, ServerId, Term, server_name
from raftd.offline import Inspection, NoDataDirectory, inspect_directory
from raftd.protocol import SnapshotId

HUNG = "connected, but"
"""How the client begins its words about a server that accepts a connection and then is silent."""
TIME_COLUMNS_MIN = 100
"""On narrower terminals the moment of the last write is left out."""
SURVEY_TIMEOUT_MS = 2_000.0
"""A server that was declared dead has this long to show that it is not."""


@attrs.frozen(kw_only=True)
class Survivor:
    """A data directory that is left."""

    path: Path
    found: Inspection | None
    """None if nothing of a raftd is there."""
    problem: str
    """Why it cannot be used, in words; empty if it can."""
    written_ms: int = 0
    """When its log was written last, milliseconds since 1970; 0 if nobody knows."""

    @property
    def server(self) -> ServerId:
        """Whose directory it is; empty if nobody knows."""
        return self.found.server if self.found is not None else ""

    @property
    def end(self) -> tuple[Term, Index]:
        """Term and index of the last entry: the larger, the more up-to-date."""
        if self.found is None:
            return 0, 0
        newest = self._newest
        if newest is not None and not self._log_has(
            newest.last_included_index, newest.last_included_term
        ):
            # The log was to follow the snapshot: none of its entries counts any more.
            return newest.last_included_term, newest.last_included_index
        entries = self.found.entries
        if entries:
            return entries[-1].term, entries[-1].index
        return self.found.base_term, self.found.base_index

    @property
    def committed(self) -> tuple[tuple[Term, Index], ...]:
        """Term and index of entries that it knows to be committed, and with them all before."""
        if self.found is None:
            return ()
        known = []
        newest, state = self._newest, self.found.state
        if newest is not None:
            known.append((newest.last_included_term, newest.last_included_index))
        if state is not None and state.applied_index:
            known.append((state.applied_term or 0, state.applied_index))
        return tuple(known)

    @property
    def committed_index(self) -> Index:
        """Up to here it knows everything to be committed: a snapshot has it, or it was applied."""
        return max((index for _, index in self.committed), default=0)

    def has(self, term: Term, index: Index) -> bool:
        """Return whether it has the committed entry of `term` at `index`."""
        newest = self._newest
        if newest is not None and index <= newest.last_included_index:
            # Both are committed, so both are of the one log.
            return True
        return index <= self.end[1] and self._log_has(index, term)

    def _log_has(self, index: Index, term: Term) -> bool:
        assert self.found is not None
        base_index = self.found.base_index
        if index <= base_index:
            return index < base_index or term == self.found.base_term
        position = index - base_index - 1
        entries = self.found.entries
        return position < len(entries) and entries[position].term == term

    @property
    def _newest(self) -> SnapshotId | None:
        """Its newest snapshot, if that can be read."""
        if self.found is None or not self.found.snapshots:
            return None
        backup = self.found.snapshots[0].backup
        return backup.id if backup is not None else None


@attrs.frozen(kw_only=True)
class VoterSet:
    """One voter set of the configuration in force, and who of it is left."""

    voters: tuple[ServerId, ...]
    left: tuple[ServerId, ...]

    @property
    def needed(self) -> int:
        """How many of them are a majority."""
        return majority(len(self.voters))


@attrs.frozen(kw_only=True)
class Assessment:
    """What is left of a cluster, and what going on from it would mean."""

    cluster_id: str
    cluster_name: str
    survivors: tuple[Survivor, ...]
    chosen: Survivor | None
    """The one with the most complete log; None if none can be used."""
    voter_sets: tuple[VoterSet, ...]
    addresses: Mapping[ServerId, str]
    """Of all members, as the configuration and the cluster file know them."""
    lost: tuple[ServerId, ...]
    """Members without a usable directory here: they are declared dead."""
    alive: tuple[str, ...]
    """In words, servers of this cluster that answer: nothing may be recovered beside them."""

    @property
    def has_quorum(self) -> bool:
        """Whether what is left is a majority of every voter set: then there is nothing to do."""
        return bool(self.voter_sets) and all(
            len(voters.left) >= voters.needed for voters in self.voter_sets
        )

    @property
    def left(self) -> tuple[ServerId, ...]:
        """The voters whose directories are here."""
        found = {server for voters in self.voter_sets for server in voters.left}
        return tuple(sorted(found, key=natural_key))

    @property
    def committed_index(self) -> int:
        """Up to here all entries are known to be committed."""
        return max((s.committed_index for s in self.survivors if not s.problem), default=0)

    @property
    def last_index(self) -> int:
        """The end of the most complete log."""
        return self.chosen.end[1] if self.chosen is not None else 0

    @property
    def uncertain_count(self) -> int:
        """Entries that become committed although nobody here knows whether they were."""
        return max(0, self.last_index - self.committed_index)


def assess(paths: Sequence[Path], endpoints: Endpoints | None) -> Assessment:
    """Look at the data directories at `paths`, and at who still answers.

    Args:
        endpoints: where servers of the cluster may be; None to ask nobody but the members that the
            directories know.
    """
    survivors = tuple(_survivor(path) for path in paths)
    usable = [survivor for survivor in survivors if not survivor.problem]
    chosen = _most_complete(usable)
    survivors = tuple(_of_this_cluster(survivor, chosen) for survivor in survivors)
    usable = [survivor for survivor in survivors if not survivor.problem]
    identity = chosen.found.identity if chosen is not None and chosen.found is not None else None
    left = {survivor.server for survivor in usable}
    voter_sets: list[VoterSet] = []
    addresses: dict[ServerId, str] = {}
    members: set[ServerId] = set()
    if chosen is not None and chosen.found is not None and chosen.found.configurations:
        latest = chosen.found.configurations[-1]
        configuration = latest.configuration
        members = set(configuration.members)
        addresses = dict(latest.entry.addresses)
        for voters in (configuration.outgoing, configuration.voters):
            if voters:
                order = tuple(sorted(voters, key=natural_key))
                voter_sets.append(VoterSet(voters=order, left=tuple(s for s in order if s in left)))
    cluster_id = identity.cluster_id if identity is not None else ""
    return Assessment(
        cluster_id=cluster_id,
        cluster_name=identity.cluster_name if identity is not None else "",
        survivors=survivors,
        chosen=chosen,
        voter_sets=tuple(voter_sets),
        addresses=addresses,
        lost=tuple(sorted(members - left, key=natural_key)),
        alive=_alive(cluster_id, addresses, endpoints) if cluster_id else (),
    )


def _most_complete(usable: Sequence[Survivor]) -> Survivor | None:
    """Return the survivor whose log goes on, None if there is none.

    What any of them knows to be committed has to be in it. A last entry of a higher term is not
    enough for that: it may never have left its server, while the others were led by one that had an
    older entry committed in a still higher term (the paper, Figure 8). Among those that have all of
    it, the most up-to-date one has the most of what may be committed besides (5.4.1).
    """
    known = [entry for survivor in usable for entry in survivor.committed]
    complete = [s for s in usable if all(s.has(term, index) for term, index in known)]
    return max(complete, key=lambda survivor: (survivor.end, survivor.server), default=None)


def _survivor(path: Path) -> Survivor:
    try:
        found = inspect_directory(path)
    except NoDataDirectory as absent:
        return Survivor(path=path, found=None, problem=_absent(path) or str(absent))
    except OSError as error:
        return Survivor(path=path, found=None, problem=error.strerror or str(error))
    written_ms = 0
    segments = [path / "wal" / segment.name for segment in found.segments]
    for segment in segments:
        if segment.exists():
            written_ms = max(written_ms, int(segment.stat().st_mtime * 1000))
    problem = ""
    if found.running:
        problem = f"in use by {found.running}: stop it first"
    elif found.role != "member":
        problem = f"it is {found.role}: there is nothing of a cluster in it"
    elif found.problems:
        problem = f"damaged: {found.problems[0]}"
    return Survivor(path=path, found=found, problem=problem, written_ms=written_ms)


def _absent(path: Path) -> str:
    """Return why a directory is not there, where an earlier recovery is the reason."""
    from raftd.salvage import ASIDE

    aside = sorted(Path(os.path.realpath(path)).parent.glob(f"{path.name}.{ASIDE}-*"))
    return f"set aside already as {aside[-1].name}" if aside else ""


def _of_this_cluster(survivor: Survivor, chosen: Survivor | None) -> Survivor:
    """Return the survivor, refused if it belongs to another cluster than the chosen one."""
    if survivor.problem or chosen is None or survivor.found is None or chosen.found is None:
        return survivor
    mine, theirs = survivor.found.identity, chosen.found.identity
    if mine is None or theirs is None or mine.cluster_id == theirs.cluster_id:
        return survivor
    return attrs.evolve(
        survivor, problem=f"it belongs to another cluster: {mine.cluster_name} ({mine.cluster_id})"
    )


def _alive(
    cluster_id: str, addresses: Mapping[ServerId, str], endpoints: Endpoints | None
) -> tuple[str, ...]:
    """Return in words which servers of the cluster answer."""
    names = {address: server_name(server) for server, address in addresses.items() if address}
    if endpoints is not None:
        names = {**dict.fromkeys(endpoints.addresses, ""), **endpoints.names, **names}
    if not names:
        return ()
    tls = endpoints.tls if endpoints is not None else None
    asked = Endpoints(addresses=tuple(names), names=names, source="the directories", tls=tls)
    found = []
    for answer in survey(asked, SURVEY_TIMEOUT_MS):
        if answer.reply is not None and answer.reply.cluster_id == cluster_id:
            found.append(f"{server_name(answer.reply.server)} answers at {answer.address}")
        elif answer.reply is None and answer.failure.startswith(HUNG):
            # It may be one that was stopped for a while: with its disk it would come back.
            name = names[answer.address] or "a server"
            found.append(f"{name} at {answer.address} takes connections and does not answer")
    return tuple(found)


# --- telling ---------------------------------------------------------------------------------


def named(servers: Iterable[ServerId]) -> str:
    """Return the names of servers for a sentence."""
    return listed(sorted({server_name(server) for server in servers}, key=natural_key))


def table_text(assessment: Assessment, *, width: int | None) -> str:
    """Return the directories, and what each is good for, as a table."""
    # The least that a person has to know: an empty column is left out.
    shows_time = width is None or width >= TIME_COLUMNS_MIN
    rows = []
    for survivor in assessment.survivors:
        found = survivor.found
        term, index = survivor.end
        if survivor.problem:
            use = survivor.problem
        elif survivor is assessment.chosen:
            use = "the most complete log"
        else:
            use = "usable"
        rows.append(
            (
                server_name(survivor.server) or "?",
                str(survivor.path),
                str(found.hard_state.current_term) if found is not None else "-",
                f"{number(index)} (term {term})" if found is not None else "-",
                number(survivor.committed_index) if found is not None else "-",
                (clock(survivor.written_ms) or "-") if shows_time else "",
                use,
            )
        )
    rows += [
        (
            *(server_name(server), "-", "-", "-", "-"),
            "-" if shows_time else "",
            "lost, nothing of it is here",
        )
        for server in assessment.lost
        if server not in {survivor.server for survivor in assessment.survivors}
    ]
    return table(
        ("ID", "DATA DIRECTORY", "TERM", "LAST ENTRY", "APPLIED", "WRITTEN", "WHAT IT IS"),
        rows,
        right=("TERM", "APPLIED"),
        width=width,
    )


def quorum_lines(assessment: Assessment) -> list[str]:
    """Return a sentence for each voter set."""
    both = len(assessment.voter_sets) > 1
    lines = []
    for voters, half in zip(assessment.voter_sets, ("C_old", "C_new"), strict=False):
        of = f" of {half}" if both else ""
        lines.append(
            f"{plural(len(voters.left), 'voter')} of {len(voters.voters)} left{of} "
            f"({' '.join(server_name(server) for server in voters.voters)}), "
            f"{voters.needed} are needed"
        )
    return lines


def consequence_lines(assessment: Assessment) -> list[tuple[str, str]]:
    """Return what a recovery would mean, as label and sentence."""
    if assessment.chosen is None:
        return []
    chosen, last = server_name(assessment.chosen.server), assessment.last_index
    committed = assessment.committed_index
    lines = [("certain", f"entries up to {number(committed)} were committed")]
    if assessment.uncertain_count:
        lines.append(
            (
                "becomes committed",
                f"{plural(assessment.uncertain_count, 'entry', 'entries')}, "
                f"{number(committed + 1)} to {number(last)}: {chosen} has them, nobody here knows "
                "whether they were committed",
            )
        )
    if assessment.has_quorum:
        lines.append(("lost", "nothing: a majority is left"))
    else:
        lines.append(
            (
                "may be lost",
                f"what {named(assessment.lost) or 'the others'} had committed after entry "
                f"{number(last)} without {chosen}; writes that were acknowledged may be among it",
            )
        )
    return lines


def document(assessment: Assessment) -> dict[str, Any]:
    """Return the assessment as programs read it."""
    chosen = assessment.chosen
    return {
        "cluster": assessment.cluster_name,
        "cluster_id": assessment.cluster_id,
        "needed": not assessment.has_quorum,
        "possible": not obstacle(assessment),
        "obstacle": obstacle(assessment),
        "chosen": server_name(chosen.server) if chosen is not None else None,
        "directories": [
            {
                "path": str(survivor.path),
                "id": server_name(survivor.server) or None,
                "incarnation": survivor.server.partition("/")[2] or None,
                "term": survivor.found.hard_state.current_term if survivor.found else None,
                "last_term": survivor.end[0],
                "last_index": survivor.end[1],
                "committed_index": survivor.committed_index,
                "problem": survivor.problem or None,
            }
            for survivor in assessment.survivors
        ],
        "voter_sets": [
            {
                "voters": [server_name(server) for server in voters.voters],
                "left": [server_name(server) for server in voters.left],
                "needed": voters.needed,
            }
            for voters in assessment.voter_sets
        ],
        "lost": [server_name(server) for server in assessment.lost],
        "alive": list(assessment.alive),
        "committed_index": assessment.committed_index,
        "last_index": assessment.last_index,
        "uncertain_entries": assessment.uncertain_count,
    }


def obstacle(assessment: Assessment) -> str:
    """Return in words why nothing may be recovered; empty if it may."""
    running = [s for s in assessment.survivors if s.found is not None and s.found.running]
    if running:
        return "; ".join(f"{found.path}: {found.problem}" for found in running)
    if assessment.chosen is None:
        return "; ".join(
            f"{found.path}: "
            + (found.problem or "it contradicts the others").removeprefix(f"{found.path}: ")
            for found in assessment.survivors
        )
    if assessment.alive:
        return f"the cluster is not dead: {'; '.join(assessment.alive)}"
    if assessment.has_quorum:
        return f"a majority is left: {'; '.join(quorum_lines(assessment))}"
    return ""
