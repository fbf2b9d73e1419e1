"""From a cluster as it is to be to the changes that lead there.

A cluster file lists servers by name, a configuration by name and incarnation. Who has the name of a
member is that member: a server whose disk was lost is not put in its place silently.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftd.config_values import check_name, parse_dialled_address
from raftd.core.membership import ConfigurationAt
from raftd.core.types import server_name
from raftd.planning import MEMBERS_MAX, Refused, is_same_address, place
from raftd.protocol import MemberChange, TargetMember

_HINT = "correct the cluster file: `raftctl config validate FILE`"


def difference(target: Sequence[TargetMember], latest: ConfigurationAt) -> tuple[MemberChange, ...]:
    """Return what makes the members of `latest` those of `target`; empty where they are.

    Servers come in the order of the target, those that leave after them by name. One that changes
    its role and its address as well is named twice.

    Args:
        target: all servers of the cluster as it is to be.
        latest: the latest configuration, which has to be settled.

    Raises:
        Refused: with code `invalid`, because `target` describes no cluster.
    """
    check_target(target)
    configuration = latest.configuration
    members = {server_name(server): server for server in configuration.members}
    changes = []
    for wanted in target:
        member = members.pop(wanted.name, None)
        if member is None:
            changes.append(MemberChange(role=wanted.role, name=wanted.name, address=wanted.address))
            continue
        role = "voter" if member in configuration.voters else "learner"
        if role != wanted.role:
            changes.append(MemberChange(role=wanted.role, name=wanted.name))
        if not is_same_address(latest.entry.addresses.get(member, ""), wanted.address):
            changes.append(MemberChange(role="readdress", name=wanted.name, address=wanted.address))
    changes += [MemberChange(role="remove", name=name) for name in sorted(members)]
    return tuple(changes)


def check_target(target: Sequence[TargetMember]) -> None:
    """Check that `target` describes a cluster.

    Raises:
        Refused: with code `invalid`: it has no server, too many or no voter; a name, role or
            address is wrong; a name or an address is there twice.
    """
    if not 1 <= len(target) <= MEMBERS_MAX:
        raise _invalid(
            f"a cluster of {len(target)} servers",
            f"a cluster has 1 to {MEMBERS_MAX} servers",
        )
    seen_names: set[str] = set()
    by_place: dict[tuple[str, int] | str, TargetMember] = {}
    for member in target:
        try:
            check_name(member.name)
            parse_dialled_address(member.address)
        except ValueError as error:
            raise _invalid("the cluster that is asked for cannot be", str(error)) from None
        if member.role not in ("voter", "learner"):
            raise _invalid(f"{member.role!r} is no role", "roles are voter and learner")
        if member.name in seen_names:
            raise _invalid(f"{member.name} is listed twice", "every server has one entry")
        seen_names.add(member.name)
        other = by_place.setdefault(place(member.address), member)
        if other is not member:
            raise _invalid(
                f"{other.name} and {member.name} have the same address {member.address}",
                "two servers cannot share an address",
            )
    if not any(member.role == "voter" for member in target):
        raise _invalid("nobody would vote", "a cluster needs at least one voter")


def _invalid(message: str, cause: str) -> Refused:
    return Refused("invalid", message, cause, _HINT)
