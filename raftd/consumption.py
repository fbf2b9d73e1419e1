"""What this process has used of its machine: processor time and memory, as the kernel counts them.

Source: getrusage(2), proc(5).
"""

from __future__ import annotations

import re
import resource
from pathlib import Path

import attrs

PROC_STATUS = Path("/proc/self/status")
"""What Linux says of a process. Elsewhere there is none, and the sizes are not known."""
_KIBIBYTES = re.compile(rb"^(VmRSS|RssAnon):\s*([0-9]{1,15}) kB$", re.MULTILINE)


@attrs.frozen(kw_only=True)
class Consumption:
    """What a process has used so far, and what it holds now."""

    cpu_ms: int
    """Processor time since its start, that of its helpers that have ended included."""
    rss_bytes: int | None = None
    """Resident memory, with the pages of files that it has mapped. None if nobody says."""
    rss_anon_bytes: int | None = None
    """Of that, the memory that belongs to no file: what it has really taken from others."""


def consumption(proc_status: Path = PROC_STATUS) -> Consumption:
    """Return what this process has used. It costs some tens of microseconds."""
    usages = (
        resource.getrusage(resource.RUSAGE_SELF),
        resource.getrusage(resource.RUSAGE_CHILDREN),
    )
    cpu_s = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    try:
        found = dict(_KIBIBYTES.findall(proc_status.read_bytes()))
    except OSError:
        found = {}
    sizes = {name: 1024 * int(size) for name, size in found.items()}
    return Consumption(
        cpu_ms=round(1000 * cpu_s),
        rss_bytes=sizes.get(b"VmRSS"),
        rss_anon_bytes=sizes.get(b"RssAnon"),
    )
