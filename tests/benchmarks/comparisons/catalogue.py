"""All systems that can be compared, in the order in which they take turns."""

from __future__ import annotations

from tests.benchmarks.comparisons.etcd import ETCD
from tests.benchmarks.comparisons.pysyncobj_cluster import PYSYNCOBJ, PYSYNCOBJ_UNBATCHED
from tests.benchmarks.comparisons.raftd_cluster import RAFTD
from tests.benchmarks.comparisons.redis import REDIS
from tests.benchmarks.comparisons.systems import System
from tests.benchmarks.comparisons.zookeeper import ZOOKEEPER

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (ETCD, RAFTD, ZOOKEEPER, REDIS, PYSYNCOBJ, PYSYNCOBJ_UNBATCHED)
}
