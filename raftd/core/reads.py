"""Read index: linearizable reads without a log entry.

A read is answered from the state machine once the leader has shown that it still led *after* the
read had arrived, and once everything committed by then is applied. All reads that wait at the same
time share one send round.

Source: dissertation section 6.4.
"""

from __future__ import annotations

from collections import deque

from raftd.core.ready import ReadAnswer
from raftd.core.types import Index

PENDING_READS_MAX = 65_536
"""Reads that wait for a leader's confirmation: far more than connections can ask at once."""


class PendingReads:
    """The reads of one leader in one term."""

    def __init__(self) -> None:
        self._before_first_commit: list[object] = []
        self._unsent: list[tuple[object, Index]] = []
        self._sent: deque[tuple[int, object, Index]] = deque()

    def __len__(self) -> int:
        return len(self._before_first_commit) + len(self._unsent) + len(self._sent)

    @property
    def want_round(self) -> bool:
        """Whether a read waits for a send round that has not started."""
        return bool(self._unsent)

    def add(self, token: object, commit_index: Index | None) -> None:
        """Note a read.

        Args:
            token: what the answer will carry.
            commit_index: the leader's, or None while it has committed nothing in its own term and
                so cannot know what its predecessors committed.
        """
        if commit_index is None:
            self._before_first_commit.append(token)
        else:
            self._unsent.append((token, commit_index))

    def first_commit(self, commit_index: Index) -> None:
        """Let the early reads go on: the leader has committed an entry of its term."""
        self._unsent.extend((token, commit_index) for token in self._before_first_commit)
        self._before_first_commit.clear()

    def round_started(self, round_number: int) -> None:
        """Note that requests of `round_number` are sent now, after every waiting read arrived."""
        self._sent.extend((round_number, token, index) for token, index in self._unsent)
        self._unsent.clear()

    def confirmed(self, round_number: int) -> list[ReadAnswer]:
        """Return the reads that are confirmed because a quorum has answered `round_number`."""
        answers = []
        while self._sent and self._sent[0][0] <= round_number:
            _, token, index = self._sent.popleft()
            answers.append(ReadAnswer(token, index))
        return answers

    def fail(self) -> list[ReadAnswer]:
        """Return every read as unanswerable, in the order of arrival."""
        tokens = [token for _, token, _ in self._sent]
        tokens += [token for token, _ in self._unsent]
        tokens += self._before_first_commit
        self._sent.clear()
        self._unsent.clear()
        self._before_first_commit.clear()
        return [ReadAnswer(token, None) for token in tokens]
