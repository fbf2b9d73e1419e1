"""The keys of a benchmark in the state of a cluster: which there are, and whether all is there."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence

import attrs

from raftctl.bench_frames import KEYS_MAX, key_name, key_number
from raftctl.client import Cluster, expect
from raftd.protocol import ListEntry, ListReply, ListRequest

PAGE_ENTRIES = 1_000
"""Of one question; the cluster cuts the answer where the values are large."""
LOST_SHOWN_MAX = 20
"""What is wrong with more keys is counted."""
REVISION_MAX = 2**63 - 1
"""As on the wire."""


@attrs.frozen(kw_only=True)
class ReadBack:
    """Whether what was acknowledged is there."""

    keys: int
    """That were looked at."""
    lost: tuple[str, ...]
    """What is wrong, one sentence a key, of the first ones."""
    lost_count: int
    """Keys with which something is wrong."""


class Acknowledged:
    """What was acknowledged of each key, or may have been done without an answer."""

    def __init__(self, keys: int) -> None:
        """Begin without any; memory is taken for `keys` keys."""
        self.puts = array("Q", bytes(8 * keys))
        """Of each key."""
        self.revisions = array("Q", bytes(8 * keys))
        """The latest revision at which a put of each key was acknowledged."""
        self.doubtful: Counter[int] = Counter()
        """Keys, and how many puts of them may have been done."""

    def note(self, key: int, revision: object) -> None:
        """Note that a put of a key was acknowledged."""
        self.puts[key] += 1
        if type(revision) is int and self.revisions[key] < revision <= REVISION_MAX:
            self.revisions[key] = revision


def foreign_key(cluster: Cluster, prefix: str) -> str:
    """Return a key that begins with `prefix` and is none of a benchmark; empty if there is none.

    Only those before and behind all names that a benchmark gives are looked for.
    """
    last = key_name(prefix, KEYS_MAX - 1)
    for after in ("", last):
        for entry in _page(cluster, prefix, after, limit=1):
            if key_number(prefix, entry.key) is None:
                return entry.key
    return ""


def has_leftovers(cluster: Cluster, prefix: str) -> bool:
    """Return whether keys of an earlier benchmark are there."""
    return any(key_number(prefix, e.key) is not None for e in _page(cluster, prefix, "", limit=1))


def entries(cluster: Cluster, prefix: str) -> Iterator[tuple[int, ListEntry]]:
    """Yield the numbers of all keys of a benchmark and what they have, page after page."""
    after = ""
    while True:
        found = _page(cluster, prefix, after, limit=PAGE_ENTRIES)
        for entry in found:
            number = key_number(prefix, entry.key)
            if number is not None:
                yield number, entry
        if not found:
            return
        after = found[-1].key


def read_back(cluster: Cluster, prefix: str, acknowledged: Acknowledged) -> ReadBack:
    """Compare what is there, linearizably, with what was acknowledged.

    Each put of a key has to be there exactly once: no key existed before, so that its version is
    the number of its puts. Those of which nobody knows may be there, once.
    """
    lost: list[str] = []
    count = 0

    def complain(number: int, words: str) -> None:
        nonlocal count
        count += 1
        if len(lost) < LOST_SHOWN_MAX:
            lost.append(f"{key_name(prefix, number)}: {words}")

    keys = len(acknowledged.puts)
    seen = bytearray(keys)
    for number, entry in entries(cluster, prefix):
        if number >= keys:
            continue
        seen[number] = 1
        least = acknowledged.puts[number]
        most = least + acknowledged.doubtful[number]
        if not least <= entry.version <= most:
            complain(number, f"{least} puts acknowledged, written {entry.version} times")
        elif entry.mod_revision < acknowledged.revisions[number]:
            revision = acknowledged.revisions[number]
            complain(number, f"acknowledged at revision {revision}, there {entry.mod_revision}")
    for number, puts in enumerate(acknowledged.puts):
        if puts and not seen[number]:
            complain(number, f"{puts} puts acknowledged, not there")
    return ReadBack(keys=keys, lost=tuple(lost), lost_count=count)


def _page(cluster: Cluster, prefix: str, after: str, *, limit: int) -> Sequence[ListEntry]:
    """Return the next keys behind `after`; those of a server that does not know it are left out."""
    request = ListRequest(prefix=prefix, limit=limit, after=after)
    reply = expect(cluster.ask(request), ListReply)
    return [entry for entry in reply.entries if entry.key.encode() > after.encode()]
