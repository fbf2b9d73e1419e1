"""From what an operator asks to a plan: every refusal of a membership change is decided here.

Pure functions in three steps: `resolve` checks the request against the configuration, `identify`
checks who answers at the addresses of the new servers, `assess` checks that the quorum is safe.

Source: dissertation section 4.2 (availability around changes).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import attrs

from raftd.commands import Plan
from raftd.config_values import quoted
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
from raftd.core.quorum import majority
from raftd.core.types import Index, ServerId, server_incarnation, server_name
from raftd.protocol import ChangeRequest, ConfigurationView, MemberChange, PlanView, StatusReply
from raftd.storage.identity import check_server

MEMBERS_MAX = 32
"""Servers of one configuration: far more than any quorum should wait for."""
TEXT_CHARACTERS_MAX = 500
"""Of what others say in a reason or a refusal: enough for any sentence of ours, and every entry and
every reply has room for it, although a stranger may send whole frames."""


class Refused(Exception):
    """A change that will not be started. Carries what an `ErrorReply` needs."""

    def __init__(self, code: str, message: str, cause: str, hint: str, operation: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.cause = cause
        self.hint = hint
        self.operation = operation


@attrs.frozen(kw_only=True)
class NewServer:
    """A server that the change brings in."""

    name: str
    address: str
    voter: bool


@attrs.frozen(kw_only=True)
class Intent:
    """A request, checked against the configuration; who the new servers are is not known yet."""

    kind: str
    configuration_index: Index
    steps: tuple[ChangeStep, ...]
    """For the servers that are members already."""
    new: tuple[NewServer, ...]


def shortened(text: str) -> str:
    """Return `text`, which others may have written, cut to `TEXT_CHARACTERS_MAX`."""
    if len(text) <= TEXT_CHARACTERS_MAX:
        return text
    return text[: TEXT_CHARACTERS_MAX - 1] + "…"


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
        for server in sorted(servers)
    ]
    return ", ".join(shown) or "none"


def resolve(request: ChangeRequest, latest: ConfigurationAt) -> Intent | str:
    """Check a request against the latest configuration, which has to be settled.

    Returns:
        The intent, or in words why nothing is to be done.

    Raises:
        Refused: a member is missing, named twice, or already there; nobody would vote.
    """
    configuration = latest.configuration
    by_name = {server_name(server): server for server in configuration.members}
    removed = {change.name for change in request.changes if change.role == "remove"}
    _refuse_repeated(request.changes)
    steps: list[ChangeStep] = []
    new: list[NewServer] = []
    for change in request.changes:
        member = by_name.get(change.name)
        if change.role not in ("voter", "learner", "remove"):
            raise Refused(
                "invalid", f"{change.role!r} is no role", "roles are voter and learner", ""
            )
        if change.address and change.role == "remove":
            raise Refused(
                "invalid",
                f"{change.name} is removed, so that it needs no address",
                f"{change.address} was given for a server that leaves",
                f"raftctl remove {change.name}",
            )
        if change.address:
            new.append(_new_server(change, latest, removed, by_name))
        elif member is None:
            raise Refused(
                "refused",
                f"{change.name} is not a member",
                f"the members at configuration {latest.index} are {names(configuration.members)}",
                "raftctl status"
                if change.role == "remove"
                else f"raftctl add {change.name}=HOST:PORT",
            )
        else:
            steps.append((change.role, member))
    _refuse_shared_addresses(new)
    nothing = _nothing_to_do(steps, new, configuration)
    if nothing:
        return nothing
    _refuse_bad_result(request, configuration, steps, new)
    return Intent(
        kind=request.kind,
        configuration_index=latest.index,
        steps=tuple(steps),
        new=tuple(new),
    )


def _refuse_repeated(changes: Sequence[MemberChange]) -> None:
    if not changes:
        raise Refused("invalid", "the change names no server", "nothing would be changed", "")
    seen: set[tuple[str, bool]] = set()
    for change in changes:
        # A server that leaves may be followed by another one of its name, which has an address.
        key = (change.name, bool(change.address))
        if key in seen:
            raise Refused(
                "refused",
                f"{change.name} is named twice",
                "each server can be changed once in one change",
                "name it once",
            )
        seen.add(key)


def _new_server(
    change: MemberChange,
    latest: ConfigurationAt,
    removed: Collection[str],
    by_name: Mapping[str, ServerId],
) -> NewServer:
    """Return the new server that `change` asks for."""
    member = by_name.get(change.name)
    if member is not None and change.name not in removed:
        role = "voter" if member in latest.configuration.voters else "learner"
        address = latest.entry.addresses.get(member, "")
        raise Refused(
            "refused",
            f"{change.name} is already a member",
            f"it is a {role} at {address} (configuration {latest.index})",
            f"raftctl promote {change.name}"
            if role == "learner" and change.role == "voter"
            else f"choose another name, or raftctl replace {change.name} "
            f"{change.name}={change.address} if its disk was wiped",
        )
    host, colon, port = change.address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Refused(
            "invalid",
            f"{change.address!r} is no address",
            "an address is HOST:PORT with a port from 1 to 65535",
            f"{change.name}=127.0.0.1:7104, for example",
        )
    for server, address in sorted(latest.entry.addresses.items()):
        if (
            address == change.address
            and server in latest.configuration.members
            and server_name(server) not in removed
        ):
            raise Refused(
                "refused",
                f"{change.address} is the address of {server_name(server)}",
                "two servers cannot share an address",
                f"give {change.name} an address of its own",
            )
    return NewServer(name=change.name, address=change.address, voter=change.role == "voter")


def _refuse_shared_addresses(new: Sequence[NewServer]) -> None:
    seen: dict[str, str] = {}
    for server in new:
        other = seen.setdefault(server.address, server.name)
        if other != server.name:
            raise Refused(
                "refused",
                f"{other} and {server.name} have the same address {server.address}",
                "two servers cannot share an address",
                f"give {server.name} an address of its own",
            )


def _nothing_to_do(
    steps: Sequence[ChangeStep], new: Sequence[NewServer], configuration: Configuration
) -> str:
    """Return in words why a promotion or demotion changes nothing; empty if something is new."""
    if new:
        return ""
    reasons = []
    for role, server in steps:
        current = {"voter": configuration.voters, "learner": configuration.learners}
        if server not in current.get(role, frozenset()):
            return ""
        reasons.append(f"{server_name(server)} is a {role} already")
    return "; ".join(reasons)


def _refuse_bad_result(
    request: ChangeRequest,
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
            f"cannot {request.kind} "
            + (", ".join(gone) or ", ".join(change.name for change in request.changes)),
            str(error),
            f"raftctl replace {gone[0]} NEW=HOST:PORT"
            if len(gone) == 1
            else "keep at least one voter in the cluster",
        ) from error
    if len(after.members) > MEMBERS_MAX:
        raise Refused(
            "refused",
            f"{len(after.members)} members are too many",
            f"a cluster has at most {MEMBERS_MAX}",
            "remove servers first",
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
) -> ServerId:
    """Return who answers at the address of a new server, if it may come in.

    Args:
        answer: its own view of itself; None if it could not be asked.
        problem: why it could not be asked, in words.
        removed_index: the configuration that removed this identity for good, if any did.

    Raises:
        Refused: nobody, or somebody else, answers there; it has an identity that no data directory
            has; or its data does not let it in.
    """
    what = f"cannot bring in {server.name}"
    if answer is None:
        raise Refused(
            "refused",
            f"{what}: no raftd answers at {server.address}",
            f"{server.name} at {server.address}: {shortened(problem)}; nothing was changed",
            f"start it with `raftd --config FILE --id {server.name}`, check the address, "
            "and repeat the command",
        )
    try:
        # It becomes a part of configurations, of records and of keys: nothing else may get in.
        found = check_server(answer.server)
    except ValueError as error:
        raise Refused(
            "refused",
            f"{what}: what answers at {server.address} is no raftd of this release",
            f"{quoted(answer.server)} is not the identity of a server: {error}",
            f"start it with `raftd --config FILE --id {server.name}`, check the address, "
            "and repeat the command",
        ) from None
    if server_name(found) != server.name:
        raise Refused(
            "refused",
            f"{what}: {server.address} is {server_name(found)}",
            f"the raftd at {server.address} calls itself {server_name(found)}",
            f"use {server_name(found)}={server.address}, or correct the address",
        )
    if removed_index is not None or answer.role == "removed":
        at = f" at index {removed_index}" if removed_index else ""
        raise Refused(
            "refused",
            f"{what}: it was removed from this cluster before",
            f"the data of {found} was removed for good{at}; a removed server never comes back "
            "with its old data",
            f"stop it, empty its data_dir, start it again, and repeat the command: it comes back "
            f"as a new {server.name}",
        )
    if found in members:
        raise Refused(
            "refused",
            f"{what}: it is a member already",
            f"{server.address} is the member {found} itself",
            "raftctl status",
        )
    if answer.cluster_id not in ("", cluster_id):
        raise Refused(
            "refused",
            f"{what}: it belongs to another cluster",
            f"{server.name} at {server.address} has data of cluster "
            f"{quoted(answer.cluster_name)} ({shortened(answer.cluster_id)}); this is "
            f"{cluster_name!r} ({cluster_id})",
            f"use a server with an empty data_dir, or remove it from {quoted(answer.cluster_name)} "
            "and empty its data_dir",
        )
    return found


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
        joint=joint,
        configuration_index=intent.configuration_index,
        voters_before=tuple(sorted(configuration.voters)),
        learners_before=tuple(sorted(configuration.learners)),
        voters_after=tuple(sorted(after.voters)),
        learners_after=tuple(sorted(after.learners)),
    )
    return plan, after


def tolerance(voters: Collection[ServerId], reachable: Collection[ServerId]) -> int:
    """Return how many further failures a voter set survives; negative without a majority."""
    alive = sum(1 for server in voters if server in reachable)
    return alive - majority(len(voters))


def assess(
    plan: Plan,
    latest: ConfigurationAt,
    reachable: Collection[ServerId],
    *,
    commit_index: Index,
) -> PlanView:
    """Return the plan as people see it, with what each phase survives.

    Args:
        reachable: members in contact just now, this leader, and the new servers that answered.

    Raises:
        Refused: with code `unsafe`, because a majority would be missing on the way or afterwards.
    """
    before = tolerance(plan.voters_before, reachable)
    after = tolerance(plan.voters_after, reachable)
    silent = [
        server
        for server in sorted({*plan.voters_before, *plan.voters_after})
        if server not in reachable
    ]
    if plan.joint and min(before, after) < 0:
        half = plan.voters_after if after < 0 else plan.voters_before
        alive = [server for server in half if server in reachable]
        raise Refused(
            "unsafe",
            "the change would lose the quorum",
            f"{names(half)} need {majority(len(half))} of {len(half)} to answer; "
            f"{names(alive)} {'does' if len(alive) == 1 else 'do'}, {names(silent)} not",
            _safe_way(plan, silent),
        )
    after_configuration = Configuration(voters=plan.voters_after, learners=plan.learners_after)
    addresses = {**latest.entry.addresses, **plan.addresses}
    return PlanView(
        changes=_sentences(plan, latest),
        joint=plan.joint,
        before=view(latest, commit_index),
        after=ConfigurationView(
            index=0,
            committed=False,
            joint=False,
            voters=plan.voters_after,
            outgoing=(),
            learners=plan.learners_after,
            addresses={server: addresses[server] for server in sorted(after_configuration.members)},
        ),
        tolerance_before=max(0, before),
        tolerance_during=max(0, min(before, after) if plan.joint else before),
        tolerance_after=max(0, after),
        warnings=_warnings(plan, reachable),
    )


def _safe_way(plan: Plan, silent: Sequence[ServerId]) -> str:
    """Return the command that would reach the aim without losing the quorum."""
    staying = [server for server in silent if server in plan.voters_after]
    if staying:
        first = server_name(staying[0])
        return (
            f"start {names(staying)} first, or replace the dead server instead: "
            f"raftctl replace {first} NEW=HOST:PORT"
        )
    return f"start {names(silent)} first"


def _sentences(plan: Plan, latest: ConfigurationAt) -> tuple[str, ...]:
    configuration = latest.configuration
    sentences = []
    for role, server in plan.changes:
        name = server_name(server)
        if server in plan.addresses:
            same_name = any(server_name(member) == name for member in configuration.members)
            fresh = f" (new incarnation {server_incarnation(server)})" if same_name else ""
            sentences.append(f"{name} at {plan.addresses[server]} joins as a {role}{fresh}")
        elif role == "remove":
            was = "voter" if server in configuration.voters else "learner"
            sentences.append(f"{name} ({was}) is removed for good and stops")
        elif role == "voter" and server in configuration.learners:
            sentences.append(f"{name} becomes a voter")
        elif role == "learner" and server in configuration.voters:
            sentences.append(f"{name} becomes a learner and loses its vote")
    return tuple(sentences)


def _warnings(plan: Plan, reachable: Collection[ServerId]) -> tuple[str, ...]:
    warnings = []
    count = len(plan.voters_after)
    if plan.joint and count % 2 == 0:
        warnings.append(
            f"{count} voters survive no more failures than {count - 1}; an odd number is better"
        )
    if plan.joint and count == 1:
        warnings.append("one voter: the loss of this server is the loss of the cluster")
    gone = [server for role, server in plan.changes if role == "remove" and server not in reachable]
    if gone:
        warnings.append(
            f"{names(gone)} cannot be told now; started again with its old data it is told that "
            "it was removed, and stops"
        )
    return tuple(warnings)
