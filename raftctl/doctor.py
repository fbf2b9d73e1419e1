"""What `raftctl doctor` judges, in which order, and its document.

Pure functions on an `Examination` (`raftctl.examining`), which is all that was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raftctl import doctor_certificates, doctor_cluster, doctor_reach, doctor_servers
from raftctl.errors import dialling
from raftctl.examining import Examination
from raftctl.findings import Finding, Result, worst

FORMAT = "1.0"
"""Version of the document. Within 1.x fields are only added."""

CHECKS: dict[str, Callable[[Examination], list[Finding]]] = {
    doctor_cluster.LEADER: doctor_cluster.check_leader,
    doctor_servers.MEMBERS: doctor_servers.check_members,
    doctor_reach.REACHABILITY: doctor_reach.check_reachability,
    doctor_reach.ROUND_TRIPS: doctor_reach.check_round_trips,
    doctor_servers.SYNCS: doctor_servers.check_syncs,
    doctor_servers.CLOCKS: doctor_servers.check_clocks,
    doctor_servers.TIMEOUTS: doctor_servers.check_timeouts,
    doctor_servers.VERSIONS: doctor_servers.check_versions,
    doctor_servers.DISK: doctor_servers.check_disk,
    doctor_certificates.CERTIFICATES: doctor_certificates.check_certificates,
    doctor_cluster.VOTERS: doctor_cluster.check_voters,
    doctor_cluster.PLACEMENT: doctor_cluster.check_placement,
    doctor_cluster.FILE: doctor_cluster.check_file,
    doctor_cluster.OPERATIONS: doctor_cluster.check_operations,
}
"""By name, in the order in which they are shown: what serves clients now comes first."""


WITHOUT_ANSWER = (doctor_cluster.LEADER, doctor_servers.MEMBERS)
"""What can be judged although no server answers."""


def judge(examination: Examination) -> list[Finding]:
    """Return at least one finding for each check, in their order."""
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        if examination.cluster.answered or name in WITHOUT_ANSWER:
            findings += check(examination)
        else:
            findings.append(Finding(check=name, result=Result.SKIP, finding="no server answers"))
    return findings


def results(findings: Sequence[Finding]) -> dict[str, Result]:
    """Return the worst result of each check."""
    grouped: dict[str, list[Result]] = {}
    for finding in findings:
        grouped.setdefault(finding.check, []).append(finding.result)
    return {check: worst(found) for check, found in grouped.items()}


def counts(findings: Sequence[Finding]) -> dict[Result, int]:
    """Return how many checks have each result."""
    found = list(results(findings).values())
    return {result: found.count(result) for result in Result}


def document(
    examination: Examination, findings: Sequence[Finding], command: Callable[[str], str]
) -> dict[str, Any]:
    """Return the document of `raftctl doctor -o json`.

    Args:
        findings: those of `judge`.
        command: makes a whole command of the words after `raftctl`.
    """
    cluster = examination.cluster
    numbers = counts(findings)
    return {
        "format": FORMAT,
        "cluster": {"name": cluster.name or None, "id": cluster.cluster_id or None},
        "result": worst([finding.result for finding in findings]).value,
        "summary": {result.value: numbers[result] for result in reversed(Result)},
        "checks": [
            {
                "name": finding.check,
                "result": finding.result.value,
                "finding": dialling(finding.finding, command),
                "remedy": remedy(finding, command),
                "command": command(finding.command) if finding.command else None,
                "servers": list(finding.servers),
            }
            for finding in findings
        ],
        "reach": doctor_reach.document(doctor_reach.matrix(examination)),
    }


def remedy(finding: Finding, command: Callable[[str], str]) -> str:
    """Return what to do, words and command together; empty if there is nothing to do."""
    parts = (dialling(finding.remedy, command), command(finding.command) if finding.command else "")
    return ": ".join(part for part in parts if part)
