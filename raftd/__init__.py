"""raftd: a Raft daemon whose cluster can be changed while it works.

In reading order:

| module | what it is |
|---|---|
| `core` | the protocol, pure: its own `__init__` tells it as a story |
| `records` | the bytes of log entries, the same on the wire and on disk |
| `commands` | what the commands in the log say; operation records |
| `transactions` | several keys in one command: steps, and what becomes of each |
| `values` | what those and the messages of the native protocol have in common |
| `storage` | log, snapshots and identity on disk; the state machine and what it lives in |
| `protocol`, `codec` | what servers, clients and administrators ask each other; frames |
| `inputs`, `surroundings` | what the driver is told, and what it stands on |
| `node` | the driver: the one place where the order of disk and network is decided |
| `writing` | commands of clients on their way through the log |
| `admission`, `founding` | who may connect; how a blank server becomes a member |
| `planning`, `target`, `plan_views` | membership changes: refusals, plans, what people see |
| `preflight`, `turns`, `operations` | who is asked before, whose turn it is, phase by phase |
| `rollback`, `operation_views`, `handover` | changes that are undone; progress; transfers |
| `administration`, `features`, `rolling` | what else operators ask; upgrades; step by step |
| `whereabouts` | where members answer, and where the log says that they are |
| `compaction`, `background`, `recovery` | snapshots: when, by whom, and what a start finds |
| `applying` | when a server applies what it stores |
| `backup` | snapshots for people, and servers that go on from one |
| `agreement`, `disk_space`, `fencing` | what watches: equal states, room, disks gone back in time |
| `checkup`, `sync_times` | whom this server reaches, and how long its disk takes: for doctor |
| `consumption` | what its process uses of processor and memory |
| `event_log`, `log_words` | lines of the log that tell of events, with fields for programs |
| `node_log`: `role_log`, `peer_log`, `membership_log` | elections, members, changes in the log |
| `standstill` | slow disks, and what else holds a server up, in the log |
| `trace` | what a server does, event by event, for programs and people |
| `replies`, `views` | what the node answers, and how it describes itself |
| `reading`, `state_seen` | who waits to read, from when on, and what the state shows |
| `portions` | long answers, a bounded part of them in each turn |
| `cluster_time`, `watching` | when the lives of keys end; who waits for changes of keys |
| `network` | links to the members, the listeners for them, raftctl and Redis clients, in trio |
| `redis_surroundings` | what Redis clients may see of the cluster |
| `cluster_status` | how the cluster is, from the answers of its servers; for raftctl as well |
| `telemetry`, `activity`, `chronicle` | counters, the last minutes and events, for whoever looks |
| `http` | health, metrics and live status for browsers and monitoring |
| `certificate_files`, `tls`, `passwords` | by what servers and clients prove who they are |
| `roles`, `secrets`, `reloading` | what each role may ask; what SIGHUP reads again |
| `config_values`, `config_yaml`, `config_rules`, `config` | the cluster file and its errors |
| `client` | the Python client: finds the leader, and writes exactly once |
| `offline` | what raftctl may read of the storage: data directories and backups |
| `service_notify` | what the service manager is told: ready, alive, stopping |
| `garbage`, `logs`, `server`, `command_line` | logging, the composition root, the command line |
"""

__version__ = "0.1.0"
