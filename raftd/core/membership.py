"""The algebra of configurations, and the configurations that a log contains.

Configurations are log entries. The latest one in the log is in force from the moment it is
appended, committed or not; truncation rolls it back. Three steps lead from one voter set to
another: `enter_joint` (C_old,new), then either `leave_joint` (C_new) or `abort_joint` (C_old
again). All three are pure functions from a configuration to a new one.

Source: paper section 6, dissertation chapter 4.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import attrs

from raftd.core.types import Index, ServerId


class MembershipError(ValueError):
    """A change that the algebra refuses; the message says which rule stands against it."""


def _frozenset(servers: Iterable[ServerId]) -> frozenset[ServerId]:
    return frozenset(servers)


@attrs.frozen
class Configuration:
    """Who votes and who listens. A value; the functions below make new ones.

    Invariants: a server is in at most one of `voters` and `learners`; `learners_next` is a part of
    `outgoing` and of neither `voters` nor `learners`; `learners_next` is empty unless joint.
    """

    voters: frozenset[ServerId] = attrs.field(default=frozenset(), converter=_frozenset)
    """C_new while joint, else the only voter set."""
    outgoing: frozenset[ServerId] = attrs.field(default=frozenset(), converter=_frozenset)
    """C_old while joint, else empty."""
    learners: frozenset[ServerId] = attrs.field(default=frozenset(), converter=_frozenset)
    """Servers that receive the log and have no vote."""
    learners_next: frozenset[ServerId] = attrs.field(default=frozenset(), converter=_frozenset)
    """Voters of C_old that become learners when the joint state is left."""

    @property
    def is_joint(self) -> bool:
        """Whether two majorities are needed."""
        return bool(self.outgoing)

    @property
    def members(self) -> frozenset[ServerId]:
        """Every server that the log is sent to: both halves and the learners."""
        return self.voters | self.outgoing | self.learners | self.learners_next

    @property
    def all_voters(self) -> frozenset[ServerId]:
        """The voters of either half."""
        return self.voters | self.outgoing

    def __str__(self) -> str:
        """Print the halves as `(n1 n2)&&(n3 n4)`, then the learners."""

        def names(servers: Iterable[ServerId]) -> str:
            return "(" + " ".join(sorted(str(server) for server in servers)) + ")"

        text = names(self.voters)
        if self.is_joint:
            text = f"{names(self.outgoing)}&&{text}"
        if self.learners:
            text += f" learners={names(self.learners)}"
        if self.learners_next:
            text += f" learners_next={names(self.learners_next)}"
        return text


ChangeStep = tuple[str, ServerId]
"""`("voter" | "learner" | "remove", id)`: what the server is to be afterwards."""


def validate(configuration: Configuration) -> Configuration:
    """Return `configuration` if it keeps its invariants and has a voter.

    Raises:
        MembershipError: an invariant is broken, or nobody votes.
    """
    both = configuration.voters & configuration.learners
    if both:
        raise MembershipError(f"both voter and learner: {_listed(both)}")
    if not configuration.voters:
        raise MembershipError("a configuration needs at least one voter")
    if configuration.learners_next - configuration.outgoing:
        raise MembershipError("only a voter of the outgoing half can become a learner later")
    if configuration.learners_next & (configuration.voters | configuration.learners):
        raise MembershipError("a server that becomes a learner later is neither yet")
    if configuration.learners & configuration.outgoing:
        raise MembershipError("a voter of the outgoing half is not a learner yet")
    return configuration


def enter_joint(configuration: Configuration, changes: Sequence[ChangeStep]) -> Configuration:
    """Return C_old,new: the joint configuration that leads to `changes`.

    Changes are applied in order, the last one for a server wins. A voter that is demoted stays a
    voter of the outgoing half and becomes a learner only with C_new. Promoting a voter, demoting
    a learner and removing a stranger change nothing. The result is joint even where both halves
    are equal.

    Raises:
        MembershipError: already joint, nobody votes now, or nobody would vote afterwards.

    Source: dissertation section 4.3.
    """
    if configuration.is_joint:
        raise MembershipError(
            f"a change is under way: {configuration}; it has to end before the next one starts"
        )
    if not configuration.voters:
        raise MembershipError("the cluster has no voters; it has to be initialised first")
    validate(configuration)
    voters, learners = _apply(configuration, changes)
    if not voters:
        raise MembershipError(
            "the change leaves no voter; "
            f"at least one of {_listed(configuration.voters)} or a new server has to stay one"
        )
    return validate(
        Configuration(
            voters=voters,
            outgoing=configuration.voters,
            # A voter of C_old has its vote until C_new: it cannot be a learner before.
            learners=learners - configuration.voters,
            learners_next=learners & configuration.voters,
        )
    )


def leave_joint(configuration: Configuration) -> Configuration:
    """Return C_new, once C_old,new is committed.

    Raises:
        MembershipError: not joint.
    """
    if not configuration.is_joint:
        raise MembershipError(f"no change is under way: {configuration} is not joint")
    return validate(
        Configuration(
            voters=configuration.voters,
            learners=configuration.learners | configuration.learners_next,
        )
    )


def abort_joint(configuration: Configuration) -> Configuration:
    """Return C_old again; learners and voters of C_new only are learners afterwards.

    Raises:
        MembershipError: not joint.
    """
    if not configuration.is_joint:
        raise MembershipError(f"no change is under way: {configuration} is not joint")
    return validate(
        Configuration(
            voters=configuration.outgoing,
            learners=(configuration.learners | configuration.voters) - configuration.outgoing,
        )
    )


def change_learners(configuration: Configuration, changes: Sequence[ChangeStep]) -> Configuration:
    """Return the configuration after a change that touches no voter.

    Raises:
        MembershipError: joint, or the change would add or take away a vote.
    """
    if configuration.is_joint:
        raise MembershipError(f"a change is under way: {configuration}")
    voters, learners = _apply(configuration, changes)
    if voters != configuration.voters:
        raise MembershipError("a change of voters needs joint consensus")
    return validate(Configuration(voters=voters, learners=learners))


def changes_voters(configuration: Configuration, changes: Sequence[ChangeStep]) -> bool:
    """Return whether `changes` would give or take a vote, and so need joint consensus."""
    return _apply(configuration, changes)[0] != configuration.voters


def _apply(
    configuration: Configuration, changes: Sequence[ChangeStep]
) -> tuple[set[ServerId], set[ServerId]]:
    """Return voters and learners after `changes`, whatever the rules say about them."""
    voters, learners = set(configuration.voters), set(configuration.learners)
    for role, server in changes:
        if role == "voter":
            learners.discard(server)
            voters.add(server)
        elif role == "learner":
            voters.discard(server)
            learners.add(server)
        elif role == "remove":
            voters.discard(server)
            learners.discard(server)
        else:
            raise MembershipError(f"unknown role {role!r}; it is voter, learner or remove")
    return voters, learners


def _listed(servers: Iterable[ServerId]) -> str:
    return ", ".join(sorted(str(server) for server in servers))


class ConfigurationKind(StrEnum):
    """Which step of which change a configuration entry is."""

    BOOTSTRAP = "bootstrap"
    """The first configuration of a cluster, written by `init`."""
    SIMPLE = "simple"
    """Learners or addresses changed; no vote was given or taken."""
    JOINT = "joint"
    """C_old,new."""
    FINAL = "final"
    """C_new."""
    ABORT = "abort"
    """C_old again."""


@attrs.frozen(kw_only=True)
class ConfigurationEntry:
    """What a configuration entry of the log says.

    A membership operation is resumed by whichever leader comes next, so everything that leader
    needs stands in the entry.
    """

    configuration: Configuration
    addresses: Mapping[ServerId, str] = attrs.field(factory=dict)
    """HOST:PORT of every member, where the others and raftctl dial it."""
    kind: ConfigurationKind
    operation: str = ""
    """The operation that this entry belongs to, or empty."""
    outcome: str = ""
    """Empty while the operation goes on; else how it ended: done, failed or aborted."""
    reason: str = ""
    """Why, in words, when the outcome is not done."""
    learners_before: frozenset[ServerId] = attrs.field(default=frozenset(), converter=_frozenset)
    """The learners from before the operation, which an abort goes back to."""
    left_out: Mapping[ServerId, str] = attrs.field(factory=dict)
    """Servers that this entry drops, with their addresses: they are fed until they know."""
    tombstones: frozenset[ServerId] = attrs.field(default=frozenset(), converter=_frozenset)
    """Those of `left_out` that are removed for good and never admitted again."""
    leader: ServerId = ""
    """Who appended it."""
    time_ms: int = 0
    """When, by that leader's wall clock, in milliseconds since 1970. For people only."""


@attrs.frozen(kw_only=True)
class MembershipChange:
    """What a leader is asked to change, and what the log is to say about it."""

    changes: tuple[ChangeStep, ...]
    addresses: Mapping[ServerId, str] = attrs.field(factory=dict)
    """HOST:PORT of the servers that are new, or whose address changes."""
    operation: str = ""
    expected_index: Index | None = None
    """Refuse unless this is still the latest configuration."""
    learners_before: frozenset[ServerId] | None = None
    """What an abort goes back to; None for the learners of now."""
    outcome: str = ""
    """For a simple change only: how it ends its operation, or empty if that goes on."""
    reason: str = ""
    tombstones: bool = True
    """For a simple change only: whether what it drops is removed for good."""


def encode_configuration(entry: ConfigurationEntry) -> bytes:
    """Return the data of a configuration entry: JSON with sorted keys, equal for equal values."""
    configuration = entry.configuration
    document = {
        "voters": sorted(configuration.voters),
        "outgoing": sorted(configuration.outgoing),
        "learners": sorted(configuration.learners),
        "learners_next": sorted(configuration.learners_next),
        "addresses": dict(entry.addresses),
        "kind": entry.kind.value,
        "operation": entry.operation,
        "outcome": entry.outcome,
        "reason": entry.reason,
        "learners_before": sorted(entry.learners_before),
        "left_out": dict(entry.left_out),
        "tombstones": sorted(entry.tombstones),
        "leader": entry.leader,
        "time_ms": entry.time_ms,
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def decode_configuration(data: bytes) -> ConfigurationEntry:
    """Return the configuration entry that `encode_configuration` made.

    Raises:
        ValueError: `data` is not such an entry, in any respect.
    """
    try:
        document: dict[str, Any] = json.loads(data)
        return ConfigurationEntry(
            configuration=validate(
                Configuration(
                    voters=_servers(document["voters"]),
                    outgoing=_servers(document["outgoing"]),
                    learners=_servers(document["learners"]),
                    learners_next=_servers(document["learners_next"]),
                )
            ),
            addresses=_addresses(document["addresses"]),
            kind=ConfigurationKind(document["kind"]),
            operation=_text(document["operation"]),
            outcome=_text(document["outcome"]),
            reason=_text(document["reason"]),
            learners_before=_servers(document["learners_before"]),
            left_out=_addresses(document["left_out"]),
            tombstones=_servers(document["tombstones"]),
            leader=_text(document["leader"]),
            time_ms=int(document["time_ms"]),
        )
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no configuration entry: {error!r}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text, not {value!r}")
    return value


def _servers(value: object) -> list[ServerId]:
    if not isinstance(value, list):
        raise TypeError(f"a list of servers, not {value!r}")
    return [_text(server) for server in value]


def _addresses(value: object) -> dict[ServerId, str]:
    if not isinstance(value, dict):
        raise TypeError(f"addresses of servers, not {value!r}")
    return {_text(server): _text(address) for server, address in value.items()}


@attrs.frozen
class ConfigurationAt:
    """A configuration entry and where it stands in the log."""

    index: Index
    entry: ConfigurationEntry

    @property
    def configuration(self) -> Configuration:
        """Who votes and who listens."""
        return self.entry.configuration


class ConfigurationHistory:
    """The configurations of a log, oldest first, starting with the one that its snapshot carries.

    Invariants: indexes grow; `latest` is the newest configuration in the log, committed or not.

    Source: LogCabin's ConfigurationManager; dissertation section 4.1.
    """

    def __init__(self, base: ConfigurationAt | None = None) -> None:
        self._stack: list[ConfigurationAt] = [base] if base is not None else []

    @property
    def latest(self) -> ConfigurationAt | None:
        """The configuration in force, or None on a server that knows none yet."""
        return self._stack[-1] if self._stack else None

    def append(self, index: Index, entry: ConfigurationEntry) -> None:
        """Put the configuration entry at `index` in force."""
        assert not self._stack or index > self._stack[-1].index
        self._stack.append(ConfigurationAt(index, entry))

    def truncate_from(self, index: Index) -> None:
        """Forget the configurations at `index` and above, however many they are."""
        while self._stack and self._stack[-1].index >= index:
            self._stack.pop()

    def compact(self, index: Index) -> None:
        """Forget what was in force before `index`; the newest at or below it stays."""
        while len(self._stack) > 1 and self._stack[1].index <= index:
            del self._stack[0]

    def at(self, index: Index) -> ConfigurationAt | None:
        """Return the newest configuration at or below `index`."""
        for candidate in reversed(self._stack):
            if candidate.index <= index:
                return candidate
        return None

    def may_campaign(self, server: ServerId, commit_index: Index) -> bool:
        """Return whether `server` may start an election.

        Dissertation 4.2.2: a voter of the latest configuration may; so may one of the
        configuration before it while the latest is not known to be committed, because it may be
        the only one whose log is complete enough to win.
        """
        latest = self.latest
        if latest is None:
            return False
        if server in latest.configuration.all_voters:
            return True
        if latest.index <= commit_index:
            return False
        previous = self.at(latest.index - 1)
        return previous is not None and server in previous.configuration.all_voters

    def since(self, index: Index) -> tuple[ConfigurationAt, ...]:
        """Return the configurations above `index`, oldest first."""
        return tuple(candidate for candidate in self._stack if candidate.index > index)
