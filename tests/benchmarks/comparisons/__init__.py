"""raftd beside its peers: the same load, the same disk, the same minutes.

    python -m tests.benchmarks side-by-side    throughput and latency: all peers
    python -m tests.benchmarks fail-over       after kill -9 of the leader: etcd
    python -m tests.benchmarks replacement     of one of three servers: etcd
    python -m tests.benchmarks idle            processor and memory without clients: all peers

The peers are etcd, ZooKeeper, one Redis, and PySyncObj in two settings.

What is not installed is left out, and says how to get it. All of it on Debian, as root, and in the
virtual environment:

    apt-get install etcd-server zookeeper redis-server \\
        golang-go golang-etcd-server-dev golang-github-samuel-go-zookeeper-dev
    .venv/bin/pip install pysyncobj

Debian starts some of these as services: stop them (`systemctl stop etcd zookeeper redis-server`),
since they take processor and memory. Everything runs on free ports of 127.0.0.1 with its data in a
temporary folder, and has ended and is gone afterwards, also after Ctrl-C. Tables come to standard
output, progress to standard error, and every single point to the file after `--jsonl`. A first
look: `python -m tests.benchmarks side-by-side --rounds 1 --seconds 1 --clients 1 64`.

Durability is equal: each of them has a majority (Redis: itself, it has no copies) sync its log
before it acknowledges. PySyncObj never does, and is marked so.

In reading order:

| module | what it is |
|---|---|
| `command_line` | what is asked for |
| `side_by_side`, `fail_over`, `replacement`, `idle` | one comparison each, with its targets |
| `systems`, `catalogue` | what a system looks like to the one who measures; all of them |
| `raftd_cluster`, `etcd`, `zookeeper`, `redis` | the systems |
| `pysyncobj_cluster`, `pysyncobj_node` | one more, whose clients are inside of it |
| `generator` | the compiled load generator, whose source is in `tests/benchmarks/generator` |
| `children`, `quiet` | processes that end with this one; waiting for a quiet machine |
| `medians`, `targets`, `points` | ratios by rounds; verdicts; the file of points |
"""
