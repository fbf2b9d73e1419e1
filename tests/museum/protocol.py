"""Exhibits 40 to 92: elections, replication, reads, storage, the state machine and its sessions."""

from __future__ import annotations

from tests.museum.catalogue import Exhibit
from tests.museum.elections import ELECTIONS
from tests.museum.reads import READS
from tests.museum.replication import REPLICATION
from tests.museum.sessions import SESSIONS
from tests.museum.storage import STORAGE

PROTOCOL: tuple[Exhibit, ...] = ELECTIONS + REPLICATION + READS + STORAGE + SESSIONS
