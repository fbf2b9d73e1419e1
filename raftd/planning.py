"""From what an operator asks to a plan: every refusal of a membership change is decided here.

Pure functions in three steps: `resolve` checks the request against the configuration, `identify`
and `identify_moved` check who answers at the addresses that are new, and `raftd.plan_views.assess`
checks that the quorum is safe.

Source: dissertation section 4.2 (availability around changes).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence

import attrs

from raftd.cluster_status.words import natural_key
from raftd.commands import Plan
from raftd.config_values import normalise_host, parse_address, quoted
from raftd.core.membership import (
    ChangeStep,
    Configuration,
    ConfigurationAt,
    MembershipError,
    change_learners,
    changes_voters,
    enter_joint,
    leave_joint,
)
from raftd.core.types import Index, ServerId, server_name
from raftd.protocol import ConfigurationView, MemberChange, StatusReply
from raftd.storage.identity import check_server

MEMBERS_MAX = 32
"""Servers of one configuration: far more than any quorum should wait for."""
TEXT_CHARACTERS_MAX = 500
"""Of what others say in a reason or a refusal: enough for any sentence of ours, and every entry and
every reply has room for it, although a stranger may send whole frames."""
TLS_FAILED = ": TLS: "
"""In the words of a connection that was not agreed to (`raftd.network.secured`)."""
_INCARNATION = re.compile(r"(?<=[a-z0-9-])/(?:[0-9a-f]{16}\b|\?)")
"""What follows the name of a server in its identity; no member of a settled cluster shares its
name, so that the name alone tells it."""


class Refused(Exception):
    """A change that will not be started. Carries what an `ErrorReply` needs."""

    def __init__(self, code: str, message: str, cause: str, hint: str, operation: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.cause = cause
        self.hint = hint
        self.operation = operation


def all_of(refusals: Sequence[Refused]) -> Refused:
    """Return one refusal that says what all of `refusals` say, at least one."""
    first = refusals[0]
    if len(refusals) == 1:
        return first
    codes = [refusal.code for refusal in refusals]
    return Refused(
        first.code if codes.count(first.code) == len(codes) else "refused",
        "; ".join(refusal.message for refusal in refusals),
        "\n".join(refusal.cause for refusal in refusals),
        "\n".join(dict.fromkeys(refusal.hint for refusal in refusals)),
        operation=first.operation,
    )


@attrs.frozen(kw_only=True)
class NewServer:
    """A server that the change brings in."""

    name: str
    address: str
    voter: bool


@attrs.frozen(kw_only=True)
class MovedServer:
    """A member that is to be dialled at another address than before."""

    server: ServerId
    address: str

    @property
    def name(self) -> str:
        """Its name alone."""
        return server_name(self.server)


@attrs.frozen(kw_only=True)
class Intent:
    """A request, checked against the configuration; who answers where is not known yet."""

    kind: str
    configuration_index: Index
    steps: tuple[ChangeStep, ...]
    """For the servers that are members already."""
    new: tuple[NewServer, ...]
    moved: tuple[MovedServer, ...] = ()


def shortened(text: str) -> str:
    """Return `text`, which others may have written, cut to `TEXT_CHARACTERS_MAX`."""
    if len(text) <= TEXT_CHARACTERS_MAX:
        return text
    return text[: TEXT_CHARACTERS_MAX - 1] + "…"


def without_incarnations(text: str) -> str:
    """Return `text` with the names alone where it has the identities of servers."""
    return _INCARNATION.sub("", text)


def view(at: ConfigurationAt, commit_index: Index) -> ConfigurationView:
    """Return a configuration as status shows it."""
    configuration = at.configuration
    return ConfigurationView(
        index=at.index,
        committed=at.index <= commit_index,
        joint=configuration.is_joint,
        voters=tuple(sorted(configuration.voters)),
        outgoing=tuple(sorted(configuration.outgoing)),
        learners=tuple(sorted(configuration.learners)),
        learners_next=tuple(sorted(configuration.learners_next)),
        addresses={
            server: at.entry.addresses[server]
            for server in sorted(configuration.members & at.entry.addresses.keys())
        },
    )


def names(servers: Collection[ServerId]) -> str:
    """Return the names of `servers` for a sentence, the incarnation only where it tells."""
    plain = [server_name(server) for server in servers]
    shown = [
        server_name(server) if plain.count(server_name(server)) == 1 else server
        for server in sorted(servers, key=lambda server: (natural_key(server_name(server)), server))
    ]
    return ", ".join(shown) or "none"


def is_same_address(first: str, second: str) -> bool:
    """Return whether two spellings of HOST:PORT certainly mean the same place."""
    return first == second or place(first) == place(second)


def place(address: str) -> tuple[str, int] | str:
    """Return what is equal for all spellings of HOST:PORT that certainly mean the same place.

    It takes some microseconds: of many addresses, ask once for each and not for every pair.
    """
    try:
        host, port = parse_address(address)
    except ValueError:
        return address
    return normalise_host(host), port


def resolve(kind: str, changes: Sequence[MemberChange], latest: ConfigurationAt) -> Intent | str:
    """Check what is asked against the latest configuration, which has to be settled.

    Args:
        kind: the verb that the operator used.
        changes: what is to become of which server.

    Returns:
        The intent, or in words why nothing is to be done.

    Raises:
        Refused: a member is missing, named twice, or already there; nobody would vote.
    """
    configuration = latest.configuration
    by_name = {server_name(server): server for server in configuration.members}
    removed = {change.name for change in changes if change.role == "remove"}
    _refuse_repeated(changes)
    steps: list[ChangeStep] = []
    new: list[NewServer] = []
    moved: list[MovedServer] = []
    unmoved: list[str] = []
    for change in changes:
        member = by_name.get(change.name)
        _refuse_bad_change(change, removed)
        if member is None and (not change.address or change.role == "readdress"):
            raise Refused(
                "refused",
                f"{change.name} is not a member",
                f"the members at configuration {latest.index} are {names(configuration.members)}",
                "raftctl status"
                if kind in ("remove", "demote", "readdress") or change.role == "remove"
                else f"raftctl add {change.name}=HOST:PORT",
            )
        if change.role == "readdress":
            assert member is not None
            if is_same_address(latest.entry.addresses.get(member, ""), change.address):
                unmoved.append(f"{change.name} is at {change.address} already")
            else:
                moved.append(MovedServer(server=member, address=change.address))
        elif change.address:
            new.append(_new_server(change, latest, removed, member))
        else:
            assert member is not None
            steps.append((change.role, member))
    nothing = not new and not moved and _nothing_to_do(steps, unmoved, configuration)
    if nothing:
        return nothing
    _refuse_bad_result(kind, changes, configuration, steps, new)
    _refuse_shared_addresses(kind, new, moved, latest, removed)
    return Intent(
        kind=kind,
        configuration_index=latest.index,
        steps=tuple(steps),
        new=tuple(new),
        moved=tuple(moved),
    )


def _refuse_repeated(changes: Sequence[MemberChange]) -> None:
    if not changes:
        raise Refused(
            "invalid",
            "the change names no server",
            "nothing would be changed",
            "`raftctl status` shows the servers that there are",
        )
    seen: set[tuple[str, bool]] = set()
    for change in changes:
        # A server that leaves may be followed by another one of its name, which has an address.
        key = (change.name, bool(change.address))
        if key in seen:
            raise Refused(
                "refused",
                f"{change.name} is named twice",
                "each server can be changed once in one change",
                "name it once; `raftctl status` shows how it is now",
            )
        seen.add(key)


def _refuse_bad_change(change: MemberChange, removed: Collection[str]) -> None:
    """Refuse a change that is wrong in itself."""
    if change.role not in ("voter", "learner", "remove", "readdress"):
        raise Refused(
            "invalid",
            f"{change.role!r} is no role",
            "roles are voter and learner",
            "`raftctl add --help` shows how a server comes in",
        )
    leaves = change.role == "remove" or (change.role == "readdress" and change.name in removed)
    if change.address and leaves:
        raise Refused(
            "invalid",
            f"{change.name} is removed, so that it needs no address",
            f"{change.address} was given for a server that leaves",
            f"raftctl remove {change.name}",
        )
    if not change.address:
        if change.role == "readdress":
            raise Refused(
                "invalid",
                f"no new address was given for {change.name}",
                "to readdress a server is to name the place where it answers now",
                f"raftctl readdress {change.name}=HOST:PORT",
            )
        return
    host, colon, port = change.address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Refused(
            "invalid",
            f"{change.address!r} is no address",
            "an address is HOST:PORT with a port from 1 to 65535",
            f"`raftctl add {change.name}=127.0.0.1:7104`, for example",
        )


def _new_server(
    change: MemberChange,
    latest: ConfigurationAt,
    removed: Collection[str],
    member: ServerId | None,
) -> NewServer:
    """Return the new server that `change` asks for; `member` has its name already."""
    if member is not None and change.name not in removed:
        role = "voter" if member in latest.configuration.voters else "learner"
        address = latest.entry.addresses.get(member, "")
        raise Refused(
            "refused",
            f"{change.name} is already a member",
            f"it is a {role} at {address} (configuration {latest.index})",
            f"raftctl promote {change.name}"
            if role == "learner" and change.role == "voter"
            else f"choose another name, or `raftctl replace {change.name} "
            f"{change.name}={change.address}` if its disk was wiped",
        )
    return NewServer(name=change.name, address=change.address, voter=change.role == "voter")


def _refuse_shared_addresses(
    kind: str,
    new: Sequence[NewServer],
    moved: Sequence[MovedServer],
    latest: ConfigurationAt,
    removed: Collection[str],
) -> None:
    """Refuse an address that two servers would have in the end; on the way to it they may."""
    servers: list[NewServer | MovedServer] = [*new, *moved]
    asked: dict[tuple[str, int] | str, NewServer | MovedServer] = {}
    for server in servers:
        other = asked.setdefault(place(server.address), server)
        if other is not server:
            raise Refused(
                "refused",
                f"{other.name} and {server.name} have the same address {server.address}",
                "two servers cannot share an address",
                _own_address(kind, server.name),
            )
    moving = {server.server for server in moved}
    for member in sorted(latest.configuration.members - moving):
        if server_name(member) in removed:
            continue
        same = asked.get(place(latest.entry.addresses.get(member, "")))
        if same is not None:
            raise Refused(
                "refused",
                f"{same.address} is the address of {server_name(member)}",
                "two servers cannot share an address",
                _own_address(kind, same.name),
            )


def _own_address(kind: str, name: str) -> str:
    """Return what to do about a server that was given the address of another one."""
    if kind == "apply":
        return f"give {name} an address of its own in the file: `raftctl plan -f FILE`"
    if kind == "replace":
        return f"give {name} an address of its own: `raftctl replace OLD {name}=HOST:PORT`"
    if kind == "readdress":
        return f"give {name} an address of its own: `raftctl readdress {name}=HOST:PORT`"
    return f"give {name} an address of its own: `raftctl add {name}=HOST:PORT`"


def _nothing_to_do(
    steps: Sequence[ChangeStep], unmoved: Sequence[str], configuration: Configuration
) -> str:
    """Return in words why nothing is to be done; empty if something is."""
    reasons = [*unmoved]
    for role, server in steps:
        current = {"voter": configuration.voters, "learner": configuration.learners}
        if server not in current.get(role, frozenset()):
            return ""
        reasons.append(f"{server_name(server)} is a {role} already")
    return "; ".join(reasons)


def _refuse_bad_result(
    kind: str,
    changes: Sequence[MemberChange],
    configuration: Configuration,
    steps: Sequence[ChangeStep],
    new: Sequence[NewServer],
) -> None:
    """Refuse what the algebra would refuse, with placeholders for the new servers."""
    placeholders = [("voter" if server.voter else "learner", f"{server.name}/?") for server in new]
    try:
        if changes_voters(configuration, [*steps, *placeholders]):
            after = leave_joint(enter_joint(configuration, [*steps, *placeholders]))
        else:
            after = change_learners(configuration, [*steps, *placeholders])
    except MembershipError as error:
        gone = [server_name(server) for role, server in steps if role == "remove"]
        raise Refused(
            "refused",
            f"cannot {kind} " + (", ".join(gone) or ", ".join(change.name for change in changes)),
            without_incarnations(str(error)),
            f"raftctl replace {gone[0]} NEW=HOST:PORT"
            if len(gone) == 1
            else "keep at least one voter in the cluster: `raftctl status` shows them",
        ) from error
    if len(after.members) > MEMBERS_MAX:
        raise Refused(
            "refused",
            f"{len(after.members)} members are too many",
            f"a cluster has at most {MEMBERS_MAX}",
            "remove servers first: `raftctl remove ID`",
        )


def identify(
    server: NewServer,
    answer: StatusReply | None,
    problem: str,
    *,
    cluster_id: str,
    cluster_name: str,
    members: Collection[ServerId],
    removed_index: Index | None,
    features: int = 0,
) -> ServerId:
    """Return who answers at the address of a new server, if it may come in.

    Args:
        answer: its own view of itself; None if it could not be asked.
        problem: why it could not be asked, in words.
        removed_index: the configuration that removed this identity for good, if any did.
        features: the version whose features the replicated state uses; it has to apply them.

    Raises:
        Refused: nobody, or somebody else, answers there; it has an identity that no data directory
            has; its data does not let it in; or its release is too old.
    """
    what = f"cannot bring in {server.name}"
    found = _identity(what, server.name, server.address, answer, problem)
    assert answer is not None
    if server_name(found) != server.name:
        raise Refused(
            "refused",
            f"{what}: {server.address} is {server_name(found)}",
            f"the raftd at {server.address} calls itself {server_name(found)}",
            f"`raftctl add {server_name(found)}={server.address}`, or correct the address",
        )
    if removed_index is not None or answer.role == "removed":
        at = f" at index {removed_index}" if removed_index else ""
        raise Refused(
            "refused",
            f"{what}: it was removed from this cluster before",
            f"the data of {server_name(found)} was removed for good{at}; a removed server never "
            "comes back with its old data",
            f"stop it, empty its data_dir, start it again with `raftd --config FILE --id "
            f"{server.name}`, and repeat the command: it comes back as a new {server.name}",
        )
    if found in members:
        raise Refused(
            "refused",
            f"{what}: it is a member already",
            f"{server.address} is the member {server_name(found)} itself",
            "raftctl status",
        )
    if answer.cluster_id not in ("", cluster_id):
        raise Refused(
            "refused",
            f"{what}: it belongs to another cluster",
            f"{server.name} at {server.address} has data of cluster "
            f"{quoted(answer.cluster_name)} ({shortened(answer.cluster_id)}); this is "
            f"{cluster_name!r} ({cluster_id})",
            f"use a server with an empty data_dir: `raftd --config FILE --id {server.name} "
            f"--data-dir DIR`; or remove it from {quoted(answer.cluster_name)} and empty its "
            "data_dir",
        )
    if answer.protocol_version_max < features:
        raise Refused(
            "refused",
            f"{what}: its release is too old",
            f"{server.name} at {server.address} runs {shortened(answer.version)} and speaks "
            f"versions up to {answer.protocol_version_max}; the cluster uses the features of "
            f"version {features}, which it could not apply",
            f"install the release of the other servers for {server.name}, start it again with "
            f"`raftd --config FILE --id {server.name}`, and repeat the command",
        )
    return found


def identify_moved(
    server: MovedServer,
    answer: StatusReply | None,
    problem: str,
    *,
    cluster_id: str,
) -> None:
    """Check that the member itself answers at its new address.

    Args:
        answer: the view of whoever answers there; None if nobody could be asked.
        problem: why nobody could be asked, in words.

    Raises:
        Refused: nobody, or anybody else, answers there.
    """
    what = f"cannot readdress {server.name}"
    found = _identity(what, server.name, server.address, answer, problem)
    assert answer is not None
    if found == server.server and answer.cluster_id == cluster_id:
        return
    if server_name(found) == server.name:
        raise _other_disk(what, server.server, server.address, found)
    raise Refused(
        "refused",
        f"{what}: {server.address} is {server_name(found)}",
        f"the raftd at {server.address} is {server_name(found)}, not {server.name}; nothing was "
        "changed",
        f"raftctl readdress {server.name}=HOST:PORT with the address at which {server.name} "
        "answers",
    )


def refuse_other_disk(server: ServerId, address: str, answer: StatusReply | None) -> None:
    """Refuse to take for a member whoever answers under its name with another disk.

    Args:
        answer: the view of whoever answers at the member's address; None if nobody does.

    Raises:
        Refused: the member's data is not there any more.
    """
    if answer is None or answer.server == server:
        return
    try:
        found = check_server(answer.server)
    except ValueError:
        return
    if server_name(found) == server_name(server):
        what = f"{server_name(server)} is not the server that it was"
        raise _other_disk(what, server, address, found)


def _other_disk(what: str, member: ServerId, address: str, found: ServerId) -> Refused:
    name = server_name(member)
    return Refused(
        "refused",
        f"{what}: another disk answers at {address}",
        f"the member is {member}, at {address} is {found}: its data_dir was emptied or exchanged, "
        "so that it is a new server under an old name; nothing was changed",
        f"raftctl replace {name} {name}={address}",
    )


def _identity(
    what: str, name: str, address: str, answer: StatusReply | None, problem: str
) -> ServerId:
    """Return the identity of whoever answers at `address`.

    Raises:
        Refused: nobody does, or what does has no identity; `what` begins the sentence.
    """
    hint = (
        f"start it with `raftd --config FILE --id {name}`, check the address, "
        "and repeat the command"
    )
    if answer is None and TLS_FAILED in problem:
        # It runs; what is wrong is a certificate.
        host = shlex.quote(address.rpartition(":")[0].strip("[]"))
        raise Refused(
            "refused",
            f"{what}: no connection to {address} comes about",
            f"{name} at {address}: {shortened(problem)}; nothing was changed",
            f"where the CA is, `raftctl certs issue server {name} --host {host} --replace`; give "
            f"that to {name}, send it SIGHUP, and repeat the command",
        )
    if answer is None:
        raise Refused(
            "refused",
            f"{what}: no raftd answers at {address}",
            f"{name} at {address}: {shortened(problem)}; nothing was changed",
            hint,
        )
    try:
        # It becomes a part of configurations, of records and of keys: nothing else may get in.
        return check_server(answer.server)
    except ValueError as error:
        raise Refused(
            "refused",
            f"{what}: what answers at {address} is no raftd of this release",
            f"{quoted(answer.server)} is not the identity of a server: {error}",
            hint,
        ) from None


def make_plan(
    intent: Intent, identities: Mapping[str, ServerId], latest: ConfigurationAt
) -> tuple[Plan, Configuration]:
    """Return the plan for `intent` and the configuration that it leads to.

    Args:
        identities: who each new server is, by name.
    """
    configuration = latest.configuration
    steps = [
        *intent.steps,
        *(
            ("voter" if server.voter else "learner", identities[server.name])
            for server in intent.new
        ),
    ]
    joint = changes_voters(configuration, steps)
    after = (
        leave_joint(enter_joint(configuration, steps))
        if joint
        else change_learners(configuration, steps)
    )
    plan = Plan(
        changes=tuple(steps),
        addresses={identities[server.name]: server.address for server in intent.new},
        moved={server.server: server.address for server in intent.moved},
        joint=joint,
        configuration_index=intent.configuration_index,
        voters_before=tuple(sorted(configuration.voters)),
        learners_before=tuple(sorted(configuration.learners)),
        voters_after=tuple(sorted(after.voters)),
        learners_after=tuple(sorted(after.learners)),
    )
    return plan, after
