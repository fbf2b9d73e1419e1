"""What is worth knowing about a cluster and wrong with no server."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from raftd.cluster_status.view import ClusterView
from raftd.cluster_status.words import dialling, listed, printable

RECOVER_WORDS = (
    "if the data of those that are missing is lost for good, `raftctl recover plan DATA_DIR...` "
    "says what the data directories that are left allow"
)
"""For whoever cannot bring back enough servers for a majority."""


def has_no_majority(cluster: ClusterView) -> bool:
    """Return whether too few voters are alive for anybody to lead, as seen from here."""
    return cluster.leader is None and any(half.spare < 0 for half in cluster.halves)


def notes(cluster: ClusterView) -> list[str]:
    """Return what is worth knowing and wrong with no server: an upgrade, a file that is old."""
    found = [*_upgrade(cluster), *_relocation(cluster)]
    if has_no_majority(cluster):
        found.append(f"No majority can be reached; {RECOVER_WORDS}.")
    # Who answers where the file has it and nowhere else is an issue or told already: the file is
    # right.
    answering = {
        row.name for row in cluster.rows for issue in row.issues if issue.kind == "address"
    } | {name for name, _, _ in cluster.relocated}
    for name, listed_address, address in cluster.moved:
        if name in answering:
            continue
        found.append(
            f"The cluster file has {name} at {listed_address}, the configuration has it at "
            f"{address}; `raftctl config export` writes the file that matches."
        )
    if cluster.outdated:
        are, do = ("is", "does") if len(cluster.outdated) == 1 else ("are", "do")
        found.append(
            f"The cluster file also lists {listed(cluster.outdated)}, which {are} no member and "
            f"{do} not answer; `raftctl config export` writes the file that matches."
        )
    return [printable(dialling(note, cluster.command)) for note in found]


def _relocation(cluster: ClusterView) -> list[str]:
    """Return how the configuration gets the addresses at which members answer."""
    answering = {
        row.name for row in cluster.rows for issue in row.issues if issue.kind == "address"
    }
    found = [each for each in cluster.relocated if each[0] not in answering]
    if not found:
        return []
    answer = "answers" if len(found) == 1 else "answer"
    it = "it" if len(found) == 1 else "them"
    text = (
        f"{listed([name for name, _, _ in found])} {answer} where the cluster file has {it}, the "
        f"configuration has {it} elsewhere"
    )
    if cluster.leader is None:
        return [f"{text}; it can be corrected as soon as there is a leader."]
    return [f"{text}; `raftctl {readdressing(found)}` corrects that."]


def readdressing(found: Iterable[tuple[str, str, str]]) -> str:
    """Return the words of the command that takes members to the addresses of the cluster file.

    Args:
        found: as in `ClusterView.relocated`.
    """
    places = " ".join(shlex.quote(f"{name}={address}") for name, address, _ in found)
    return f"readdress {places}"


def _upgrade(cluster: ClusterView) -> list[str]:
    spoken = {
        row.name: row.reply.protocol_version_max
        for row in cluster.members
        if row.reply is not None and row.reply.cluster_id
    }
    newest = max(spoken.values(), default=0)
    applicable = {row.reply.applicable_features for row in cluster.members if row.reply is not None}
    behind = [name for name, version in spoken.items() if version < newest]
    if not behind:
        return []
    oldest = min(spoken.values())
    speak = "speaks" if len(behind) == 1 else "speak"
    follows = (
        f"what came with version {newest} is switched on once all members speak it"
        if len(applicable) > 1
        else f"what came with version {newest} works between those that speak it"
    )
    return [
        f"An upgrade is under way: {listed(behind)} still {speak} version {oldest} of the "
        f"protocol, the others {newest}; {follows}."
    ]
