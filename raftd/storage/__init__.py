"""What a server keeps, and how it is sure of it.

| module | what it is |
|---|---|
| `files` | what is asked of a disk, and what a fault means |
| `wal`, `wal_segments`, `wal_position`, `wal_recovery` | the log; with the snapshot, the truth |
| `snapshot_file`, `snapshots` | snapshots: their bytes; those of a server |
| `identity` | who a data directory is |
| `store`, `lmdb_store` | ordered maps that a state may live in |
| `map_room` | room on the disk for what a transaction in LMDB writes |
| `live` | where the live database is, and whether it can be trusted after a restart |
| `state` | the state machine: keys, sessions, tombstones |
| `results`, `ledger`, `history` | its parts: answers, operations, configurations of the past |
| `worker` | the child process that copies a whole state |
"""
