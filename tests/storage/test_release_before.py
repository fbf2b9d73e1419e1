"""What a server of the release before makes of a log: this one has to make the same of it.

As long as one member runs the release before, the states of all are compared with its state. So
the two numbers below, which that release has computed, only change when a release ceases to be
upgraded to this one.
"""

from __future__ import annotations

from hashlib import blake2b

from raftd.commands import (
    ABORTED,
    DONE,
    FAILED,
    AbortOperation,
    BeginOperation,
    Command,
    CommandBody,
    CompareAndSet,
    Delete,
    EndOperation,
    OpenSession,
    Plan,
    Put,
    encode_command,
)
from raftd.core.membership import (
    Configuration,
    ConfigurationEntry,
    ConfigurationKind,
    encode_configuration,
)
from raftd.core.types import Entry, EntryKind, Index
from raftd.storage.state import StateMachine
from raftd.storage.store import MemoryStore
from tests.storage.stores import contents

EFFECTS_HASH = 574580756017207171
LOG_AND_STATE = "a6194be3bf7d5194"


class Log:
    """Entries in their order."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    @property
    def index(self) -> Index:
        return len(self.entries)

    def append(self, kind: EntryKind, data: bytes = b"") -> None:
        self.entries.append(Entry(self.index + 1, 1 + self.index // 10, kind, data))

    def run(self, body: CommandBody, session: str = "", serial: int = 0, lowest: int = 0) -> None:
        data = encode_command(Command(body, session, serial, lowest))
        self.append(EntryKind.COMMAND, data)

    def configure(self, kind: str, voters: str, **fields: object) -> Index:
        shape = {
            name: str(fields.pop(name, "")).split()
            for name in ("outgoing", "learners", "learners_next")
        }
        entry = ConfigurationEntry(
            configuration=Configuration(voters=voters.split(), **shape),
            kind=ConfigurationKind(kind),
            addresses={server: f"{server[:2]}:7100" for server in voters.split()},
            leader="n1/a",
            time_ms=1_000 + self.index,
            **fields,
        )
        self.append(EntryKind.CONFIGURATION, encode_configuration(entry))
        return self.index

    def begin(self, kind: str, configuration_index: Index, serial: int) -> None:
        plan = Plan(
            changes=(("voter", "n4/d"), ("remove", "n1/a")),
            addresses={"n4/d": "n4:7100"},
            joint=True,
            configuration_index=configuration_index,
            voters_before=("n1/a", "n2/b"),
            voters_after=("n2/b", "n4/d"),
        )
        body = BeginOperation(
            kind=kind, author="ann", reason="because", time_ms=2_000 + self.index, plan=plan
        )
        self.run(body, "s", serial)


def log() -> Log:
    """Return a log with everything in it that the release before can apply."""
    log = Log()
    log.configure("bootstrap", "n1/a")
    log.append(EntryKind.NOOP)
    log.run(OpenSession(), "s")
    log.run(OpenSession(), "s")
    log.run(Put("a", b"1"), "s", 1)
    log.run(Put("a", b"2", if_absent=True), "s", 2)
    log.run(Put("b", b"\x00" * 100, if_revision=0), "s", 3, 2)
    log.run(CompareAndSet("a", b"1", b"3"), "s", 4)
    log.run(CompareAndSet("a", b"1", b"4"), "s", 5)
    log.run(Put("a", b"1"), "s", 1, 4)
    log.run(Delete("b"), "s", 6)
    log.run(Put("", b""), "s", 7)
    log.run(Put("c", b"3"), "unknown", 1)
    log.begin("replace", 99, 8)
    joined = log.configure("simple", "n1/a", learners="n2/b")
    log.begin("replace", joined, 9)
    log.begin("add", joined, 10)
    log.configure("simple", "n1/a n2/b", learners="n4/d", operation="op-1")
    log.configure("joint", "n2/b n4/d", outgoing="n1/a n2/b", operation="op-1")
    log.run(AbortOperation(operation="op-1", author="bob", reason="late", time_ms=7), "s", 11)
    final = log.configure("final", "n2/b n4/d", operation="op-1", outcome=DONE, tombstones={"n1/a"})
    log.run(AbortOperation(operation="op-1", author="bob", reason="later", time_ms=8))
    log.begin("promote", final, 12)
    log.run(EndOperation(operation="op-2", outcome=FAILED, reason="no answer", time_ms=9))
    log.run(EndOperation(operation="op-9", outcome=FAILED, reason="no answer", time_ms=9))
    log.begin("replace", final, 13)
    log.configure("joint", "n2/b n5/e", outgoing="n2/b n4/d", operation="op-3")
    undone = log.configure(
        "abort", "n2/b n4/d", operation="op-3", outcome=ABORTED, reason="n5 is silent"
    )
    log.begin("add", undone, 14)
    log.configure("bootstrap", "n9/z", operation="op-4", outcome=ABORTED, reason="restored")
    log.configure("bootstrap", "n8/y")
    log.run(Put("d", b"end"), "s", 15)
    return log


def test_the_same_log_becomes_the_same_state_as_with_the_release_before() -> None:
    entries, store = log().entries, MemoryStore()
    machine = StateMachine(store)
    machine.apply(entries)
    digest = blake2b(digest_size=8)
    for entry in entries:
        digest.update(entry.data)
    for key, value in contents(store):
        digest.update(key + value)
    assert (machine.effects_hash, digest.hexdigest()) == (EFFECTS_HASH, LOG_AND_STATE)
