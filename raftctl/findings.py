"""What `raftctl doctor` finds: one judgement each, with numbers, and what to do about it."""

from __future__ import annotations

from enum import StrEnum

import attrs


class Result(StrEnum):
    """A judgement in one word, the worst one last."""

    SKIP = "skip"
    """It could not be judged; the finding says why."""
    PASS = "pass"
    WARN = "warn"
    """It works, and will not for long or not as well as it could."""
    FAIL = "fail"
    """Something does not work."""


@attrs.frozen(kw_only=True)
class Finding:
    """The judgement of one check, or of a part of it."""

    check: str
    """The name of the check, a word for scripts."""
    result: Result
    finding: str
    """In words, with the numbers and the servers."""
    remedy: str = ""
    """What to do, in words; empty if nothing needs to be done, or the command says it all."""
    command: str = ""
    """The words of a raftctl command that helps, after `raftctl`; empty if there is none."""
    servers: tuple[str, ...] = ()
    """The names of those who are concerned; empty if it is the cluster as a whole."""


def worst(results: list[Result]) -> Result:
    """Return the worst of some results; `SKIP` if there are none."""
    order = list(Result)
    return max(results, key=order.index, default=Result.SKIP)
