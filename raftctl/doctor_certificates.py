"""What `raftctl doctor` says about the certificates of the servers.

Pure functions on an `Examination`.
"""

from __future__ import annotations

from raftctl.doctor_servers import named_replies
from raftctl.examining import Examination
from raftctl.findings import Finding, Result
from raftctl.render import plural
from raftd.certificate_files import EXPIRY_WARNING_DAYS, days_left

CERTIFICATES = "certificates"
FAILING_DAYS = 3
"""A certificate that ends within so many days does not survive a long weekend."""


def check_certificates(examination: Examination) -> list[Finding]:
    """Judge for how long the certificate of each server is still valid, by its own clock."""
    days = {
        name: days_left(status.certificate_expires_ms, status.wall_clock_ms)
        for name, status in named_replies(examination).items()
        if status.certificate_expires_ms is not None
    }
    if not days:
        return [
            Finding(
                check=CERTIFICATES,
                result=Result.PASS,
                finding="there are none: connections are not encrypted",
            )
        ]
    findings = [
        Finding(
            check=CERTIFICATES,
            result=Result.FAIL if left < FAILING_DAYS else Result.WARN,
            finding=f"that of {name} {_ends(left)}",
            remedy=f"have a new one made, and send SIGHUP to {name}; where raftctl has the CA",
            command=f"certs issue server {name} --replace",
            servers=(name,),
        )
        for name, left in days.items()
        if left < EXPIRY_WARNING_DAYS
    ]
    if findings:
        return findings
    name = min(days, key=lambda name: days[name])
    return [
        Finding(
            check=CERTIFICATES,
            result=Result.PASS,
            finding=f"the first one to end is that of {name}, in {plural(days[name], 'day')}"
            if len(days) > 1
            else f"that of {name} ends in {plural(days[name], 'day')}",
        )
    ]


def _ends(days: int) -> str:
    if days < 0:
        return "has ended: no new connection to it comes about"
    return f"ends within {plural(days + 1, 'day')}"
