"""`raftctl backup` and `restore`: whom they ask, how they go on, and what they leave behind."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from raftctl import fetching, restoring
from raftctl.cli import main
from raftd.commands import Command, OpenSession, Put, encode_command
from raftd.core.snapshot import SnapshotId
from raftd.core.types import Entry, EntryKind
from raftd.founding import founding_entry
from raftd.offline import verify_backup
from raftd.protocol import (
    BackupChunkReply,
    BackupChunkRequest,
    BackupReply,
    BackupRequest,
    BootstrapReply,
    BootstrapRequest,
    DoneReply,
    ErrorReply,
    OperationsReply,
    OperationsRequest,
    OperationView,
    PeerView,
    ReadIndexReply,
    ReadIndexRequest,
    Refusal,
    Request,
    RestoreReply,
    RestoreRequest,
    StatusRequest,
)
from raftd.storage.files import OsFileSystem
from raftd.storage.identity import Identity
from raftd.storage.snapshot_file import head_of
from raftd.storage.state import StateMachine
from raftd.storage.store import MemoryStore
from raftd.storage.worker import pairs_of, write_snapshot
from tests.raftctl.speaking_servers import (
    LOSE,
    SILENCE,
    Answer,
    SpeakingServer,
    configuration,
    not_leader,
    operation_record,
    speaking_servers,
    status_of,
)

pytestmark = pytest.mark.usefixtures("no_surroundings")

CHUNK_BYTES = 500
INDEX = 20
GONE = ErrorReply(code="no-snapshot", message="there is no such snapshot")


@attrs.frozen
class Content:
    id: SnapshotId
    data: bytes


def content_of(path: Path, writes: int) -> Content:
    """Return a backup that ends with entry `writes` + 2."""
    founder = Identity(name="o1", incarnation="0" * 16, bootstrap_address="o1:7100")
    bodies: list[Any] = [OpenSession()]
    bodies += [Put(f"key{number}", b"value %d" % number * 10) for number in range(writes)]
    entries = [founding_entry(founder)]
    for index, body in enumerate(bodies, 2):
        data = encode_command(Command(body, "s", index))
        entries.append(Entry(index, 1, EntryKind.COMMAND, data))
    store = MemoryStore()
    StateMachine(store).apply(entries)
    copied = write_snapshot(OsFileSystem(), path, head_of(store, "old"), pairs_of(store))
    return Content(copied.id, path.read_bytes())


@pytest.fixture
def content(tmp_path_factory: pytest.TempPathFactory) -> Content:
    return content_of(tmp_path_factory.mktemp("content") / "b", INDEX)


class Member:
    """A member of a cluster that answers what raftctl asks for a backup."""

    def __init__(self, server: SpeakingServer, content: Content) -> None:
        self.server = server
        self.name = server.server.partition("/")[0]
        self.content: Content | None = content
        """The snapshot that it has; None if it makes none ready."""
        self.doing = BackupReply(doing="writing")
        self.refuses_parts = False
        self.parts_left = 1_000
        """Instead of giving one part more it answers `at_end`."""
        self.at_end: Answer = LOSE
        self.offsets: list[int] = []
        self.leads = False
        self.status: Callable[[], Answer] = lambda: SILENCE
        server.answer = self.answer

    def answer(self, request: Request) -> Answer:
        match request:
            case StatusRequest():
                return self.status()
            case ReadIndexRequest():
                return ReadIndexReply(index=INDEX) if self.leads else not_leader()
            case BackupRequest():
                assert request.index == INDEX
                return BackupReply(snapshot=self.content.id) if self.content else self.doing
            case BackupChunkRequest():
                return self.part(request)
        return SILENCE

    def part(self, request: BackupChunkRequest) -> Answer:
        if self.content is None or self.content.id != request.snapshot or self.refuses_parts:
            return GONE
        if not self.parts_left:
            return self.at_end
        self.parts_left -= 1
        self.offsets.append(request.offset)
        end = request.offset + request.size_bytes
        return BackupChunkReply(data=self.content.data[request.offset : end])


@pytest.fixture
def members(content: Content, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Member]]:
    """n1 leads; n2 has caught up, n3 is behind."""
    monkeypatch.setattr(fetching, "CHUNK_BYTES", CHUNK_BYTES)
    monkeypatch.setattr(fetching, "POLL_MS", 10.0)
    with speaking_servers("n1/a", "n2/b", "n3/c") as servers:
        members = [Member(server, content) for server in servers]
        first = members[0]
        first.leads = True
        view = configuration(*servers)

        def peer(server: SpeakingServer, match_index: int) -> PeerView:
            return PeerView(
                server=server.server,
                match_index=match_index,
                lag_entries=100 - match_index,
                last_contact_ms=1.0,
                caught_up=True,
                rounds=1,
                connected=True,
            )

        peers = (peer(servers[1], 100), peer(servers[2], 50))
        for member in members:
            member.status = lambda member=member: attrs.evolve(  # type: ignore[misc]
                status_of(
                    member.server,
                    role="leader" if member.leads else "follower",
                    view=view,
                    leader=first.server,
                ),
                peers=peers if member.leads else (),
            )
        yield members


@pytest.fixture
def run(
    members: list[Member], capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Any, Any]]:
    """Run `raftctl backup`; return its exit code, its result and its error."""

    def run(path: Path, *words: str) -> tuple[int, Any, Any]:
        endpoints = ",".join(member.server.address for member in members)
        code = main(["-e", endpoints, "-o", "json", "backup", str(path), *words])
        captured = capsys.readouterr()
        result = json.loads(captured.out.splitlines()[-1]) if captured.out else None
        return code, result, json.loads(captured.err)["error"] if captured.err else None

    return run


# --- backup ---------------------------------------------------------------------------------


def test_a_caught_up_follower_is_asked_for_its_parts_in_order(
    members: list[Member], content: Content, run: Any, tmp_path: Path
) -> None:
    code, result, _ = run(tmp_path / "b")
    assert code == 0
    assert result == {
        "file": str(tmp_path / "b"),
        "size_bytes": content.id.size_bytes,
        "index": content.id.last_included_index,
        "term": 1,
        "revision": INDEX,
        "keys": INDEX,
        "checksum": content.id.checksum,
        "cluster": "orders",
        "cluster_id": "old",
        "server": "n2",
    }
    assert (tmp_path / "b").read_bytes() == content.data
    assert members[1].offsets == list(range(0, content.id.size_bytes, CHUNK_BYTES))
    assert members[0].offsets == members[2].offsets == []


def test_the_text_names_file_moment_and_source(
    members: list[Member], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-e", members[0].server.address, "backup", str(tmp_path / "b")]) == 0
    captured = capsys.readouterr()
    for part in (str(tmp_path / "b"), "22 (term 1)", "20", "orders (id old)", "n2"):
        assert part in captured.out
    assert "fetching from n2" in captured.err
    assert "verifying" in captured.err


def test_the_server_may_be_chosen(members: list[Member], run: Any, tmp_path: Path) -> None:
    assert run(tmp_path / "b", "--from", "n3")[1]["server"] == "n3"
    assert run(tmp_path / "c", "--from", "n1/a")[1]["server"] == "n1"
    assert members[1].offsets == []


def test_the_leader_is_asked_when_no_follower_is_fit(
    members: list[Member], run: Any, tmp_path: Path
) -> None:
    members[1].server.close()
    assert run(tmp_path / "b")[1]["server"] == "n1"


def test_another_server_with_the_same_snapshot_gives_the_rest(
    members: list[Member], content: Content, run: Any, tmp_path: Path
) -> None:
    members[1].parts_left = 2
    members[1].at_end = GONE
    members[0].refuses_parts = True
    code, result, _ = run(tmp_path / "b")
    assert code == 0
    assert result["server"] == "n3"
    # Its first part is the one that was missing, asked for once to see whether it has it.
    assert members[2].offsets[:2] == [1000, 1000]
    assert 0 not in members[2].offsets
    assert (tmp_path / "b").read_bytes() == content.data


def test_where_nobody_has_the_same_snapshot_it_begins_again(
    members: list[Member], run: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    later = content_of(tmp_path_factory.mktemp("later") / "b", INDEX + 5)
    members[0].content = members[2].content = later
    members[1].parts_left = 2
    part = members[1].part

    def end(request: BackupChunkRequest) -> Answer:
        answer = part(request)
        if answer == LOSE:
            members[1].server.refusal = Refusal(code="busy", message="it has ended")
        return answer

    members[1].part = end  # type: ignore[method-assign]
    code, result, _ = run(tmp_path / "b")
    assert code == 0
    assert result["server"] == "n1"
    assert result["checksum"] == later.id.checksum
    assert (tmp_path / "b").read_bytes() == later.data


def test_one_that_loses_every_snapshot_is_given_up(
    members: list[Member], run: Any, tmp_path: Path
) -> None:
    for member in members:
        member.refuses_parts = True
    code, _, error = run(tmp_path / "b")
    assert code == 3
    assert f"{fetching.STARTS_MAX} snapshots could not be fetched" in error["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_stuck_is_left_for_the_next_one(
    members: list[Member], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "STUCK_MS", 50.0)
    members[1].content = None
    members[1].doing = BackupReply(doing="waiting", problem="10 bytes are free", applied_index=20)
    assert run(tmp_path / "b")[1]["server"] == "n1"


def test_what_arrives_damaged_never_gets_the_name(
    members: list[Member], content: Content, run: Any, tmp_path: Path
) -> None:
    spoilt = bytearray(content.data)
    spoilt[1234] ^= 4
    members[1].content = Content(content.id, bytes(spoilt))
    (tmp_path / "b").write_text("the backup of yesterday")
    code, _, error = run(tmp_path / "b", "--force")
    assert code == 1
    assert error["code"] == "damaged"
    assert (tmp_path / "b").read_text() == "the backup of yesterday"
    assert list(tmp_path.iterdir()) == [tmp_path / "b"]


def test_a_full_disk_is_said_and_leaves_nothing(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("raftctl.fetching.os.pwrite", full)
    code, _, error = run(tmp_path / "b")
    assert code == 1
    assert error["code"] == "disk-full"
    assert "No space left" in error["cause"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_said(run: Any, tmp_path: Path) -> None:
    code, _, error = run(tmp_path / "no" / "b")
    assert code == 1
    assert "No such file or directory" in error["cause"]


def test_a_directory_is_no_file(run: Any, tmp_path: Path) -> None:
    assert run(tmp_path)[0] == 2


def test_two_at_once_do_not_write_the_same_file(run: Any, tmp_path: Path) -> None:
    with (tmp_path / "b.tmp").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        code, _, error = run(tmp_path / "b")
        assert code == 1
        assert error["code"] == "busy"
    # What an earlier one left when it was killed is no hindrance.
    assert run(tmp_path / "b")[0] == 0
    assert list(tmp_path.iterdir()) == [tmp_path / "b"]


def test_it_is_given_up_only_without_progress(
    members: list[Member], run: Any, tmp_path: Path
) -> None:
    for member in members:
        member.content = None
        member.doing = BackupReply(doing="applying", applied_index=7)
    code, _, error = run(tmp_path / "b", "--timeout", "300ms")
    assert code == 3
    assert "7 of 20" in error["cause"]
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_waits_says_why(members: list[Member], run: Any, tmp_path: Path) -> None:
    for member in members:
        member.content = None
        member.doing = BackupReply(doing="waiting", problem="10 bytes are free", applied_index=20)
    code, _, error = run(tmp_path / "b", "--timeout", "300ms")
    assert code == 3
    assert "10 bytes are free" in error["cause"]


# --- restore --------------------------------------------------------------------------------


class Newcomer:
    """A blank server that may be given a backup, and becomes a cluster of one."""

    def __init__(self, server: SpeakingServer, content: Content) -> None:
        self.server = server
        self.content = content
        self.received = bytearray()
        self.damages = 0
        """How often it still loses what it has received."""
        self.view: Any = None
        self.operations: list[Any] = []
        self.refusal: ErrorReply | None = None
        server.answer = self.answer

    def answer(self, request: Request) -> Answer:
        match request:
            case StatusRequest():
                role = "leader" if self.view else "blank"
                return status_of(self.server, role=role, view=self.view)
            case RestoreRequest():
                return self.refusal or self.take(request)
            case BootstrapRequest():
                self.server.cluster_id = "c1"
                self.view = configuration(self.server, index=23)
                return BootstrapReply(cluster_id="c1")
            case OperationsRequest():
                views = tuple(OperationView(record=record) for record in self.operations)
                return OperationsReply(operations=views)
        return DoneReply()

    def take(self, request: RestoreRequest) -> Answer:
        assert request.snapshot == self.content.id
        if request.offset == len(self.received):
            self.received += request.data
        count = len(self.received)
        whole = count == self.content.id.size_bytes
        if whole and self.damages:
            self.damages -= 1
            self.received.clear()
            return RestoreReply(received_bytes=0, installed_bytes=0, held=False)
        return RestoreReply(received_bytes=count, installed_bytes=0, held=whole)

    def asked(self, kind: type[Request]) -> list[Any]:
        return [request for request in self.server.requests if isinstance(request, kind)]


@pytest.fixture
def newcomer(content: Content, monkeypatch: pytest.MonkeyPatch) -> Iterator[Newcomer]:
    monkeypatch.setattr(restoring, "CHUNK_BYTES", CHUNK_BYTES)
    monkeypatch.setattr(restoring, "POLL_MS", 10.0)
    with speaking_servers("m1/a", cluster_id="") as (server,):
        yield Newcomer(server, content)


@pytest.fixture
def restore(
    newcomer: Newcomer, content: Content, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Any, str]]:
    """Run `raftctl restore`; return its exit code, its result and what it said."""
    (tmp_path / "b").write_bytes(content.data)
    config = tmp_path / "c.yaml"
    config.write_text(
        f"cluster: orders\nservers:\n  m1: {{address: '{newcomer.server.address}'}}\n"
    )

    def run(*words: str) -> tuple[int, Any, str]:
        words = words or ("--yes", "-o", "json")
        code = main(["restore", str(tmp_path / "b"), "-c", str(config), *words])
        captured = capsys.readouterr()
        is_json = "json" in words and bool(captured.out)
        return code, json.loads(captured.out.splitlines()[-1]) if is_json else None, captured.err

    return run


def test_the_backup_is_given_in_parts_and_then_founds_the_cluster(
    newcomer: Newcomer, content: Content, restore: Any
) -> None:
    code, result, _ = restore()
    assert code == 0
    assert result["configuration"]["voters"] == ["m1"]
    assert newcomer.received == content.data
    (bootstrap,) = newcomer.asked(BootstrapRequest)
    assert bootstrap.snapshot == content.id
    first = newcomer.asked(RestoreRequest)[0]
    assert (first.offset, first.data) == (0, b"")


def test_what_the_server_has_is_not_sent_again(
    newcomer: Newcomer, content: Content, restore: Any
) -> None:
    newcomer.received += content.data[:1000]
    assert restore()[0] == 0
    offsets = [request.offset for request in newcomer.asked(RestoreRequest) if request.data]
    assert min(offsets) == 1000
    assert newcomer.received == content.data


def test_what_arrived_damaged_is_sent_again_but_not_for_ever(
    newcomer: Newcomer, content: Content, restore: Any
) -> None:
    newcomer.damages = restoring.DAMAGES_MAX - 1
    assert restore()[0] == 0
    assert newcomer.received == content.data


def test_what_arrives_damaged_every_time_is_given_up(newcomer: Newcomer, restore: Any) -> None:
    newcomer.damages = 100
    code, _, said = restore()
    assert code == 1
    assert "arrives damaged at m1" in said
    assert not newcomer.asked(BootstrapRequest)


def test_the_effect_is_said_before_it_asks(
    newcomer: Newcomer, restore: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftctl.cli.Context.require_answerable", lambda self: None)
    asked: list[str] = []

    def refuse(question: str, **_: object) -> bool:
        asked.append(question)
        return False

    monkeypatch.setattr("click.confirm", refuse)
    code, _, said = restore("--timeout", "5s")
    assert code == 1
    assert asked == ["Proceed?"]
    for part in ("20 keys at revision 20", "entry 22", "id old", "o1", "m1 become the new cluster"):
        assert part in said
    assert not newcomer.asked(RestoreRequest)
    assert not newcomer.asked(BootstrapRequest)


def test_a_refusal_of_the_server_is_passed_on(newcomer: Newcomer, restore: Any) -> None:
    newcomer.refusal = ErrorReply(
        code="disk-full", message="m1 has no room for the backup", cause="1 MiB of disk left"
    )
    code, _, said = restore()
    assert code == 1
    error = json.loads(said)["error"]
    assert error["code"] == "disk-full"
    assert "no room" in error["message"]


def test_a_founded_cluster_is_gone_on_with_after_asking_it(
    newcomer: Newcomer, content: Content, restore: Any
) -> None:
    newcomer.server.cluster_id = "c1"
    newcomer.view = configuration(newcomer.server, index=23)
    assert restore()[0] == 0
    assert not newcomer.asked(RestoreRequest)
    # Whether it was founded from this backup is for the server to say.
    (bootstrap,) = newcomer.asked(BootstrapRequest)
    assert bootstrap.snapshot == content.id


def test_a_cluster_with_another_member_is_not_taken_for_an_interrupted_restore(
    newcomer: Newcomer, restore: Any
) -> None:
    newcomer.server.cluster_id = "c1"
    newcomer.view = configuration(newcomer.server, ("m9/z", "127.0.0.1:1"), index=30)
    newcomer.operations = [operation_record("joining", "joint", "ended", kind="init")]
    code, _, said = restore()
    assert code == 1
    assert "m1 is not blank" in said
    assert not newcomer.asked(BootstrapRequest)


def test_the_file_that_is_read_is_the_one_that_was_verified(
    content: Content, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    path.write_bytes(content.data)
    assert verify_backup(path).id == content.id
