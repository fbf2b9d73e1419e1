"""What is wrong with a server, judged from its own answer, the leader's view and what is missing.

Pure functions that return an `Issue` each, with the steps of the repair where there are any;
`raftd.cluster_status.view` says which server each answer belongs to.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import attrs

from raftd.certificate_files import EXPIRY_WARNING_DAYS, days_left
from raftd.cluster_status.answers import Answer
from raftd.cluster_status.members import members_of
from raftd.cluster_status.operations import INSTALLING, part_of, remaining_ms
from raftd.cluster_status.words import duration, size
from raftd.core.types import server_incarnation, server_name
from raftd.protocol import ConfigurationView, PeerView, StatusReply

LAG_ENTRIES_MAX = 1000
"""More entries behind than this is lagging. Under full load a healthy follower is some hundred
behind, the requests that are on their way; ten times that is no longer the network."""
SILENT_MS_MIN = 500.0
"""Where the leader does not state its election timeout: silence that counts as no contact."""
CLONE_UPTIME_MS_MIN = 3_500.0
"""Two answers of one server whose uptimes differ by more come from two processes. A survey asks all
at once and waits for less, so one process cannot differ so much from itself."""
CLOCK_DIFFERENCE_MS_MAX = 1_000.0
"""Clocks that are set by a network are some milliseconds apart. From a second on, what people read
in logs and in the history is in another order than it happened."""
SYNC_ELECTION_TIMEOUTS_MAX = 0.5
"""The slowest of a hundred syncs may take so much of an election timeout. Votes and
acknowledgements wait for a sync; with more, servers that work look as if they had failed."""


@attrs.frozen
class Issue:
    """What is wrong with one server."""

    kind: str
    """A word for scripts: unreachable, wiped, other-cluster, cloned, blank, removed, not-a-member,
    unconfirmed, no-contact, fenced, diverged, lagging, applying, term, leader, configuration,
    address, version or reported; of warnings disk, slow-disk, clock or
    certificate."""
    words: str
    repair: tuple[str, ...] = ()
    """What to do about it, step by step, where that is known. A command is a step of its own, the
    last one."""
    label: str = "repair"
    """What stands before those steps; next, where nothing is broken."""

    def __str__(self) -> str:
        text = f"{self.kind}: {self.words}"
        return f"{text}; {self.label}: {', then '.join(self.repair)}" if self.repair else text


LOST_ISSUES = frozenset({"wiped", "other-cluster"})
"""With one of these the server runs, but without what the member had: to start it is no help."""
DEAD_ISSUES = frozenset({"unreachable", "wiped", "other-cluster", "no-contact", "fenced"})
"""With one of these a server acknowledges nothing that counts for a quorum."""
MOMENTARY_ISSUES = frozenset({"term", "leader", "configuration", "no-contact"})
"""Normal for a heartbeat: the servers are asked at different moments, and a new leader has yet to
hear from everybody."""


def replacement(name: str, address: str) -> str:
    """Return the command that brings in a new incarnation of the member `name`."""
    return f"raftctl replace {name} {shlex.quote(f'{name}={address}')}"


# --- who answers ---------------------------------------------------------------------------------


def why_unreachable(server: str, answers: Sequence[Answer], address: str) -> str:
    """Return why there is no answer of `server`, in words."""
    for answer in answers:
        if answer.address == address:
            if answer.reply is not None:
                # Two incarnations of a name are members, and the other one lives there now.
                return f"{answer.reply.server} answers at its address"
            return answer.failure
    return f"its address {address} was not asked" if address else "its address is not known"


def instead_issue(
    server: str, instead: Answer, leader: StatusReply | None, cluster_id: str
) -> Issue:
    """Return what it means that another server answers where the member `server` should be."""
    reply = instead.reply
    assert reply is not None
    name, known = server_name(server), server_incarnation(server)
    if reply.cluster_id and reply.cluster_id != cluster_id:
        step = f"start {name} with its own data directory there, or with an empty one if it is lost"
        return attrs.evolve(other_cluster(reply), repair=(step,))
    if server_name(reply.server) != name:
        return Issue("unreachable", f"{server_name(reply.server)} answers at its address")
    if reply.role == "removed":
        return Issue(
            "unreachable",
            f"{reply.server} answers at its address, which was removed for good; the cluster knows "
            f"{known}",
            (f"start {name} with the data directory of {known}",),
        )
    words = f"its disk is new (incarnation {server_incarnation(reply.server)}, the cluster knows "
    words += f"{known}), so it counts for nothing"
    if leader is None:
        return Issue("wiped", f"{words}; it can be replaced as soon as there is a leader")
    return Issue("wiped", words, (replacement(name, instead.address),))


def other_cluster(reply: StatusReply) -> Issue:
    """Return the issue of a server that belongs to another cluster."""
    return Issue(
        "other-cluster",
        f"{reply.server} answers, of cluster {reply.cluster_name or '?'} ({reply.cluster_id})",
    )


def clones(own: Answer, answers: Sequence[Answer]) -> list[Issue]:
    """Return an issue for each other process that claims to be the server of `own`."""
    assert own.reply is not None
    issues = []
    for answer in answers:
        reply = answer.reply
        if reply is None or reply.server != own.reply.server or answer.address == own.address:
            continue
        # One process that is reached at two addresses is nothing special.
        if abs(reply.uptime_ms - own.reply.uptime_ms) > CLONE_UPTIME_MS_MIN:
            issues.append(
                Issue(
                    "cloned",
                    f"another process at {answer.address} is {reply.server} too: its data "
                    "directory was copied, and together they may vote twice",
                    (f"stop the copy at {answer.address} and delete its data directory",),
                )
            )
    return issues


def moved(
    own: Answer,
    address: str,
    answers: Sequence[Answer],
    leader: StatusReply | None,
    peer: PeerView | None,
) -> list[Issue]:
    """Return the issue of a member that answers elsewhere than where the configuration has it.

    Whom the leader hears from is where it should be: from here another address may lead to it.
    """
    assert own.reply is not None
    server = own.reply.server
    is_heard = leader is not None and (leader.server == server or _is_heard(leader, peer))
    if not address or own.address == address or is_heard:
        return []
    words = (
        f"it answers at {own.address}; the configuration has it at {address}, where there is: "
        f"{why_unreachable(server, answers, address)}"
    )
    if leader is None:
        return [Issue("address", words)]
    member = shlex.quote(f"{server_name(server)}={own.address}")
    return [Issue("address", words, (f"raftctl readdress {member}",))]


def stranger_issue(
    answer: Answer,
    reply: StatusReply,
    cluster_id: str,
    configuration: ConfigurationView | None,
    leader: StatusReply | None,
) -> Issue:
    """Return what a server is that answers and is no member."""
    name = server_name(reply.server)
    if reply.cluster_id and reply.cluster_id != cluster_id:
        return other_cluster(reply)
    if not reply.cluster_id:
        steps: tuple[str, ...] = ()
        if configuration is not None and leader is not None:
            names = {server_name(member) for member in members_of(configuration)}
            added = f"raftctl add {shlex.quote(f'{name}={answer.address}')}"
            steps = (replacement(name, answer.address) if name in names else added,)
        return Issue("blank", "it belongs to no cluster yet", steps, label="next")
    if reply.role == "removed":
        return Issue(
            "removed",
            "it was removed from the cluster for good and is about to stop; with an empty data "
            "directory it can be added as a new server",
        )
    index = configuration.index if configuration is not None else 0
    return Issue("not-a-member", f"the configuration of index {index:,} does not list it")


# --- what a member says --------------------------------------------------------------------------


def own_issues(
    reply: StatusReply, leader: StatusReply | None, configuration: ConfigurationView
) -> list[Issue]:
    """Return what a member's own answer says against it."""
    issues = []
    if not reply.cluster_id:
        issues.append(Issue("blank", "it has not been told yet which cluster it belongs to"))
    elif reply.role == "removed":
        issues.append(Issue("removed", "it believes that it was removed from the cluster"))
    elif leader is None:
        if reply.role == "leader":
            issues.append(Issue("unconfirmed", "it leads, but no quorum answers it"))
    elif reply.server != leader.server:
        issues.extend(_differences(reply, leader, configuration))
    if reply.commit_index - reply.applied_index > LAG_ENTRIES_MAX:
        behind = reply.commit_index - reply.applied_index
        issues.append(Issue("applying", f"{behind:,} committed entries are not applied yet"))
    if leader is not None and _speaks(reply) != _speaks(leader):
        issues.append(Issue("version", _versions(reply, leader)))
    issues.extend(Issue("reported", words) for words in reply.issues)
    return issues


def _speaks(reply: StatusReply) -> tuple[str, int]:
    return reply.version, reply.protocol_version_max


def _versions(reply: StatusReply, leader: StatusReply) -> str:
    own, leading = reply.protocol_version_max, leader.protocol_version_max
    parts = []
    if reply.version != leader.version:
        parts.append(f"it runs {reply.version}, the leader runs {leader.version}")
    if own != leading:
        most = "still speaks" if own < leading else "speaks already"
        parts.append(f"it {most} version {own} of the protocol, the leader {leading}")
    return "; ".join(parts)


def _differences(
    reply: StatusReply, leader: StatusReply, configuration: ConfigurationView
) -> list[Issue]:
    issues: list[Issue] = []
    if reply.term != leader.term:
        issues.append(Issue("term", f"it is in term {reply.term:,}, the leader in {leader.term:,}"))
    if reply.leader != leader.server:
        known = f"it follows {server_name(reply.leader)}" if reply.leader else "it knows no leader"
        if reply.role == "leader":
            known = "it believes that it leads"
        issues.append(Issue("leader", f"{known}; {server_name(leader.server)} leads"))
    index = reply.configuration.index if reply.configuration is not None else 0
    if index != configuration.index:
        issues.append(
            Issue(
                "configuration",
                f"its configuration is that of index {index:,}, "
                f"the leader's is that of {configuration.index:,}",
            )
        )
    return issues


def diverged(server: str, address: str, leader: StatusReply | None) -> Issue:
    """Return the issue of a member whose state a majority found to be wrong."""
    name = server_name(server)
    words = (
        "it made something else of the log than a majority: its state is wrong, and it stops by "
        "itself"
    )
    if leader is None:
        # Its log and its vote may still be needed, and nobody could let the new one in.
        return Issue("diverged", f"{words}; it can be replaced as soon as there is a leader")
    steps = (f"empty the data directory of {name}, start it again", replacement(name, address))
    return Issue("diverged", words, steps)


# --- what the leader says ------------------------------------------------------------------------


def _silent_ms(leader: StatusReply) -> float:
    return leader.election_timeout_ms or SILENT_MS_MIN


def _is_heard(leader: StatusReply, peer: PeerView | None) -> bool:
    """Return whether the leader has heard from a member within an election timeout."""
    contact_ms = peer.last_contact_ms if peer is not None else None
    return contact_ms is not None and contact_ms <= _silent_ms(leader)


def leaders_issues(
    leader: StatusReply, peer: PeerView | None, vote: str, own: Answer
) -> list[Issue]:
    """Return what the leader has against a member that answers us with `own`."""
    why = f" ({peer.problem})" if peer is not None and peer.problem else ""
    if peer is None or peer.last_contact_ms is None:
        return [Issue("no-contact", f"the leader has not heard from it{why}")]
    if peer.fenced:
        return [_fenced(server_name(peer.server), own.address)]
    if not _is_heard(leader, peer):
        ago = duration(peer.last_contact_ms)
        return [Issue("no-contact", f"the leader last heard from it {ago} ago{why}")]
    if peer.lag_entries > LAG_ENTRIES_MAX:
        return [Issue("lagging", _catching_up(peer))]
    if not peer.caught_up and (peer.lag_entries > 0 or vote == "learner"):
        return [Issue("lagging", f"catching up, {_catching_up(peer)}")]
    return []


def _catching_up(peer: PeerView) -> str:
    """Return how far a server is behind, how fast it moves and for how long still."""
    parts = [f"{peer.lag_entries:,} entries behind the leader"]
    if peer.snapshot_bytes:
        done, done_bytes = "received", peer.snapshot_received_bytes
        if part_of(peer) == INSTALLING:
            done, done_bytes = "installed", peer.snapshot_installed_bytes
        parts.append(f"{size(done_bytes)} of a snapshot of {size(peer.snapshot_bytes)} {done}")
    if peer.catch_up_bytes_per_second:
        parts.append(f"{size(peer.catch_up_bytes_per_second)}/s")
    left_ms = remaining_ms(peer)
    if left_ms is not None:
        parts.append(f"about {duration(left_ms)}")
    return ", ".join(parts)


def _fenced(name: str, address: str) -> Issue:
    return Issue(
        "fenced",
        "it lacks entries that it had acknowledged: its disk went back in time, so it counts for "
        "nothing",
        (f"stop {name}, empty its data directory, start it again", replacement(name, address)),
    )


# --- warnings ------------------------------------------------------------------------------------


def warnings(reply: StatusReply, clock_difference_ms: float | None, reference: str) -> list[Issue]:
    """Return what will be a problem if nothing is done, and is none yet.

    Args:
        reply: the answer of a member.
        clock_difference_ms: how far its clock is ahead of the others, less what the measurement may
            be wrong by; None if that is not known.
        reference: whose clock it is compared with, in words.
    """
    found = []
    free_bytes, reserve_bytes = reply.disk_free_bytes, reply.disk_reserve_bytes
    # The next snapshot takes about as much as the state, beside the one that there is.
    headroom_bytes = max(reserve_bytes, reply.state_bytes)
    if free_bytes is not None and 0 <= free_bytes - reserve_bytes < headroom_bytes:
        below = f"; below {size(reserve_bytes)} writes are refused" if reserve_bytes else ""
        found.append(Issue("disk", f"{size(free_bytes)} of its disk are left{below}"))
    if _is_slow(reply):
        assert reply.sync_p50_ms is not None
        assert reply.sync_p99_ms is not None
        found.append(
            Issue(
                "slow-disk",
                f"a sync of its log takes {duration(reply.sync_p50_ms)}, one of a hundred "
                f"{duration(reply.sync_p99_ms)}; the heartbeat interval is "
                f"{duration(reply.heartbeat_interval_ms)}, the election timeout "
                f"{duration(reply.election_timeout_ms)}",
            )
        )
    if clock_difference_ms is not None and abs(clock_difference_ms) > CLOCK_DIFFERENCE_MS_MAX:
        found.append(Issue("clock", f"its clock is {clock_words(clock_difference_ms, reference)}"))
    if reply.certificate_expires_ms is not None:
        days = days_left(reply.certificate_expires_ms, reply.wall_clock_ms)
        if days < EXPIRY_WARNING_DAYS:
            found.append(_certificate_issue(server_name(reply.server), days))
    return found


def _certificate_issue(name: str, days: int) -> Issue:
    ends = f"ends within {days + 1} days" if days >= 0 else "has ended: nobody new reaches it"
    return Issue(
        "certificate",
        # What follows the command cannot be a step of the repair: a command is the last one.
        f"its certificate {ends}; a new one counts from the next SIGHUP on",
        (f"raftctl certs issue server {name} --replace",),
    )


def _is_slow(reply: StatusReply) -> bool:
    p50_ms, p99_ms = reply.sync_p50_ms, reply.sync_p99_ms
    if p50_ms is None or p99_ms is None or not reply.election_timeout_ms:
        return False
    return (
        p99_ms > SYNC_ELECTION_TIMEOUTS_MAX * reply.election_timeout_ms
        or p50_ms > reply.heartbeat_interval_ms
    )


def clock_words(difference_ms: float, reference: str) -> str:
    """Return how far a clock is ahead of, or behind, that of `reference`."""
    if abs(difference_ms) < 1:
        return f"within 1ms of {reference}"
    which = "ahead of" if difference_ms > 0 else "behind"
    return f"{duration(abs(difference_ms))} {which} {reference}"
