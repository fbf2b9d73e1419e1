"""Whole clusters in one process, one thread and one second, attacked as one seed says.

Core, driver, operations, log, snapshots, identity and state machine are production's. Underneath
them the network, the disks, the clocks, all randomness, what goes on in the background, and the
ordered map of the state machine's store are simulated, so a seed repeats its run byte for byte.

    python -m tests.simulation --help

| module | what it is |
|---|---|
| `profile` | what a seed draws before its run: sizes, rates of faults, small limits, the schedule |
| `run` | one run: form a cluster, attack it (safety), heal it (liveness), judge the history |
| `world` | the clock, the queue of events, the trace, the counters |
| `machine` | a disk, a clock, power, and a server; the numbered points where it may end |
| `storage` | log, snapshots and state of one process, production's, with those points in them |
| `durable` | what a data directory has certainly kept: snapshot and log as the log they stand for |
| `network`, `disk` | messages late, lost, double; writes torn, bits flipped, disks full |
| `clients`, `batches` | who writes and reads: in sessions, and without them, several at once |
| `operator` | who changes the membership all the time |
| `adversary` | what goes wrong by chance, and what is aimed at a change that is under way |
| `watch`, `invariants/` | what must hold after every step, one property in each module |
| `limits`, `coverage` | constants made small for one run; what a run has met |
| `elections` | cores alone that lose their leaders: how long it takes, how often votes are split |
| `search`, `soak`, `replay`, `shrink`, `report` | the commands |

Each fault is drawn for itself, at a time that the schedule has fixed, from a generator of its own;
so a part of a schedule can be left out and the rest stays as it is.
"""
