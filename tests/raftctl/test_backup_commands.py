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
from raftctl.byte_progress import ByteProgress
from raftctl.cli import Context, main
from raftctl.errors import Unreachable
from raftd import roles
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
    StatusReply,
    StatusRequest,
)
from raftd.storage.files import OsFileSystem, StorageFault
from raftd.storage.identity import Identity
from raftd.storage.snapshot_file import head_of
from raftd.storage.state import StateMachine
from raftd.storage.store import MemoryStore
from raftd.storage.worker import pairs_of, write_snapshot
from raftd.tls import APPLICATION, Holder
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
        self.doing: BackupReply | ErrorReply = BackupReply(doing="writing")
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


def test_who_is_not_allowed_to_is_told_so_at_once(
    members: list[Member], run: Any, tmp_path: Path
) -> None:
    holder = Holder(APPLICATION, "shop")
    for member in members:
        member.content, member.doing = None, roles.refusal_of(holder, BackupRequest(index=INDEX))
    code, _, error = run(tmp_path / "b")
    assert (code, error["code"]) == (1, "forbidden")
    assert "application shop" in error["cause"]
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
    code, _, error = run(tmp_path / "b", "--timeout", "2s")
    assert code == 3
    assert "7 of 20" in error["cause"]
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_waits_says_why(members: list[Member], run: Any, tmp_path: Path) -> None:
    for member in members:
        member.content = None
        member.doing = BackupReply(doing="waiting", problem="10 bytes are free", applied_index=20)
    code, _, error = run(tmp_path / "b", "--timeout", "2s")
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
        self.parts_ignored = 0
        """How many parts it still does not take: it verifies what it has."""
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
        if request.data and self.parts_ignored:
            self.parts_ignored -= 1
        elif request.offset == len(self.received):
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


def test_what_a_server_does_not_take_yet_is_offered_again_a_part_at_a_time(
    newcomer: Newcomer, content: Content, restore: Any
) -> None:
    newcomer.received += content.data[:1000]
    newcomer.parts_ignored = 7
    assert restore("--yes", "-o", "json", "--timeout", "5s")[0] == 0
    assert newcomer.received == content.data
    parts = [request for request in newcomer.asked(RestoreRequest) if request.data]
    # What was on its way when that was noticed, and then one at a time.
    assert [part.offset for part in parts[4:8]] == [1000] * 4


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


def refusal_of(restore: Any, code: int) -> dict[str, str]:
    exit_code, _, said = restore()
    assert exit_code == code
    error: dict[str, str] = json.loads(said)["error"]
    return error


def test_what_is_no_backup_is_refused_in_words_that_fit_it_and_nothing_is_sent(
    newcomer: Newcomer, content: Content, restore: Any, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    path.unlink()
    error = refusal_of(restore, 2)
    assert error["message"] == f"there is no file {path}"
    path.mkdir()
    error = refusal_of(restore, 2)
    assert error["message"] == f"{path} is a directory"
    assert f"raftctl inspect {path}" in error["hint"]
    path.rmdir()
    os.mkfifo(path)
    error = refusal_of(restore, 1)
    assert error["message"] == f"{path} is not a backup"
    path.unlink()
    path.touch()
    error = refusal_of(restore, 1)
    assert error["message"] == f"{path} is empty"
    path.write_text("key: value\n" * 100)
    error = refusal_of(restore, 1)
    assert (error["message"], error["code"]) == (f"{path} is not a backup", "not-a-backup")
    path.write_bytes(content.data[:-1])
    error = refusal_of(restore, 1)
    assert error["message"] == f"{path} is a damaged backup and cannot be restored"
    assert "cut short" in error["cause"]
    path.write_bytes(content.data[:700] + b"x" + content.data[701:])
    error = refusal_of(restore, 1)
    assert error["code"] == "damaged"
    assert f"{path}: damaged at byte" in error["cause"]
    assert newcomer.server.requests == []


def test_a_backup_that_cannot_be_read_is_not_called_damaged(
    newcomer: Newcomer, restore: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: object, path: Path) -> int:
        raise StorageFault(f"{path}: asking for its size failed: Permission denied")

    monkeypatch.setattr(OsFileSystem, "size", denied)
    error = refusal_of(restore, 1)
    assert error["message"] == f"{tmp_path / 'b'} cannot be read"
    assert "Permission denied; nothing was sent" in error["cause"]
    assert newcomer.server.requests == []


def restore_command(tmp_path: Path, file: str = "") -> str:
    return f"raftctl -c {tmp_path / 'c.yaml'} restore {file or tmp_path / 'b'}"


def holding(newcomer: Newcomer, index: int) -> None:
    """Let the server hold a backup that ends with the entry `index`."""
    answer = newcomer.answer

    def hold(request: Request) -> Answer:
        reply = answer(request)
        if isinstance(reply, StatusReply) and not newcomer.view:
            return attrs.evolve(reply, snapshot_index=index)
        return reply

    newcomer.server.answer = hold


def test_another_backup_in_the_way_is_named_with_both_ways_on(
    newcomer: Newcomer, restore: Any, tmp_path: Path
) -> None:
    holding(newcomer, 1500)
    error = refusal_of(restore, 1)
    assert error["code"] == "holds-backup"
    assert "m1 " in error["cause"]
    assert "up to entry 1,500" in error["cause"]
    finish, over, command = error["hint"].splitlines()
    finishing = restore_command(tmp_path, "FILE")
    assert finish.startswith(f"`{finishing}`, FILE being the backup up to entry 1,500, finishes")
    assert over == "or start over: stop m1, empty its data directory, start it again, then:"
    assert command == restore_command(tmp_path)
    assert not newcomer.asked(RestoreRequest)


def test_init_after_an_interrupted_restore_names_the_restore_and_not_itself(
    newcomer: Newcomer, tmp_path: Path, capsys: pytest.CaptureFixture[str], restore: Any
) -> None:
    config = str(tmp_path / "c.yaml")
    holding(newcomer, INDEX + 2)
    assert main(["init", "-c", config, "-o", "json"]) == 1
    hint = json.loads(capsys.readouterr().err)["error"]["hint"]
    finish, over, command = hint.splitlines()
    assert finish.startswith(f"`{restore_command(tmp_path, 'FILE')}`, FILE being the backup up to")
    assert over == "or start over: stop m1, empty its data directory, start it again, then:"
    assert command == f"raftctl -c {config} init"
    assert not newcomer.asked(BootstrapRequest)
    # Which is true: the same backup is gone on with.
    newcomer.received += newcomer.content.data
    assert restore()[0] == 0


def test_a_hint_of_the_server_becomes_a_command_that_can_be_typed(
    newcomer: Newcomer, restore: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server knows neither the file nor how it was dialled."""
    hint = "repeat `raftctl restore FILE`, or empty its data directory and start it again"
    newcomer.refusal = ErrorReply(code="refused", message="no", hint=hint)
    assert restore_command(tmp_path) in refusal_of(restore, 1)["hint"]
    answer = newcomer.server.answer
    newcomer.server.answer = lambda request: (
        newcomer.refusal if isinstance(request, BootstrapRequest) else answer(request)
    )  # type: ignore[assignment,return-value]
    assert main(["init", "-c", str(tmp_path / "c.yaml"), "-o", "json"]) == 1
    said = json.loads(capsys.readouterr().err)["error"]["hint"]
    assert said.startswith(f"repeat `{restore_command(tmp_path, 'FILE')}`, or empty")


def test_ctrl_c_names_the_command_that_goes_on(
    newcomer: Newcomer, restore: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("raftctl.commands.backup.give", interrupt)
    code, _, said = restore("--yes")
    assert code == 130
    assert f"interrupted; to go on from there: {restore_command(tmp_path)}" in said


def test_where_the_leader_is_lost_in_the_middle_the_command_that_goes_on_is_named(
    newcomer: Newcomer, restore: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise Unreachable("no leader answered within 5s", hint="raftctl status")

    monkeypatch.setattr("raftctl.commands.backup._bring_in", lost)
    code, _, said = restore()
    assert code == 3
    status, go_on = json.loads(said)["error"]["hint"].splitlines()
    assert status == "raftctl status"
    assert go_on.startswith(restore_command(tmp_path))


class Clock:
    """Time that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr("raftctl.byte_progress.time.monotonic", lambda: self.now_s)


def test_the_remaining_time_is_that_of_the_step_and_not_made_of_the_first_instant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    progress = ByteProgress(Context())
    mebibyte = 1 << 20
    for done in range(41):
        progress.show("sending it to m1", done * mebibyte, 80 * mebibyte)
        clock.now_s += 0.1
    for done in range(61):
        progress.show("m1 works it in", done * mebibyte // 10, 80 * mebibyte)
        clock.now_s += 0.1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "sending it to m1, 0 B of 80.0 MiB"
    assert lines[1].endswith("10.0 MiB/s, about 5.9s for this step")
    working = [line for line in lines if line.startswith("m1 works it in")]
    # Ten times as slow as what came before, which has no say in it.
    assert working[0] == "m1 works it in, 0 B of 80.0 MiB"
    assert "1.0 MiB/s, about 1m " in working[1]


def test_the_file_that_is_read_is_the_one_that_was_verified(
    content: Content, tmp_path: Path
) -> None:
    path = tmp_path / "b"
    path.write_bytes(content.data)
    assert verify_backup(path).id == content.id
