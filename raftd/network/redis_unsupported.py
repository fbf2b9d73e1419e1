"""Commands of Redis that this server does not carry out, and what to use instead.

Most of them are about values that are more than bytes, or about one process with memory of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from raftd.network.redis_actions import CommandError, name_of

_STRUCTURE = (
    "values are strings here; keep what belongs together as one value (as JSON, say), or under "
    "keys with a common prefix, which MSET, MULTI and SCAN take together"
)
_BITS = "change values with WATCH, GET, MULTI, SET and EXEC"
_PUBLISHING = "nothing is published here; `raftctl watch PREFIX` tells of every change of keys"
_SCRIPT = "there are no scripts; use WATCH, MULTI and EXEC, or conditions like SET NX"
_PERSISTENCE = (
    "every acknowledged write is on the disks of a majority; `raftctl backup FILE` makes a copy"
)
_MEMBERSHIP = "the membership cannot be changed here; use raftctl add, remove, replace and transfer"
_ACCOUNTS = "there are no users here"
_DIAGNOSIS = "use `raftctl status`, `raftctl doctor` and INFO"
_FLUSH = (
    "it would not be bounded; remove keys with SCAN and DEL, or begin a new cluster with raftctl"
)
_MOVE = "use WATCH, GET, MULTI, SET, DEL and EXEC"

_ADVICE: tuple[tuple[str, str], ...] = (
    (
        "HSET HGET HMSET HMGET HGETALL HDEL HEXISTS HINCRBY HINCRBYFLOAT HKEYS HLEN HSCAN HSETNX "
        "HSTRLEN HVALS HRANDFIELD HEXPIRE HPEXPIRE HTTL HGETDEL HGETEX HSETEX "
        "LPUSH RPUSH LPOP RPOP LRANGE LLEN LINDEX LINSERT LPUSHX RPUSHX LREM LSET LTRIM LMOVE "
        "LMPOP LPOS RPOPLPUSH BLPOP BRPOP BLMOVE BLMPOP BRPOPLPUSH "
        "SADD SREM SMEMBERS SISMEMBER SMISMEMBER SCARD SDIFF SDIFFSTORE SINTER SINTERCARD "
        "SINTERSTORE SMOVE SPOP SRANDMEMBER SSCAN SUNION SUNIONSTORE "
        "ZADD ZCARD ZCOUNT ZINCRBY ZRANGE ZRANGEBYSCORE ZRANGEBYLEX ZRANGESTORE ZRANK ZREM "
        "ZREVRANGE ZREVRANGEBYSCORE ZREVRANGEBYLEX ZREVRANK ZSCORE ZMSCORE ZSCAN ZPOPMIN ZPOPMAX "
        "BZPOPMIN BZPOPMAX ZMPOP BZMPOP ZDIFF ZDIFFSTORE ZINTER ZINTERCARD ZINTERSTORE ZUNION "
        "ZUNIONSTORE ZLEXCOUNT ZRANDMEMBER ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE "
        "XADD XLEN XRANGE XREVRANGE XREAD XREADGROUP XGROUP XACK XDEL XTRIM XINFO XPENDING XCLAIM "
        "XAUTOCLAIM XSETID PFADD PFCOUNT PFMERGE GEOADD GEODIST GEOHASH GEOPOS GEORADIUS "
        "GEORADIUSBYMEMBER GEOSEARCH GEOSEARCHSTORE SORT SORT_RO",
        _STRUCTURE,
    ),
    ("SETBIT GETBIT BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS SETRANGE LCS", _BITS),
    (
        "INCRBYFLOAT",
        "numbers are integers of 64 bits here; count in the smallest unit with INCRBY",
    ),
    ("RENAME RENAMENX COPY MOVE SWAPDB", _MOVE),
    ("RANDOMKEY", "keys are in order here; SCAN goes through them"),
    ("FLUSHDB FLUSHALL", _FLUSH),
    ("DUMP RESTORE MIGRATE", "use GET, SET and PTTL"),
    (
        "SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE PUBLISH SPUBLISH "
        "PUBSUB MONITOR",
        _PUBLISHING,
    ),
    (
        "EVAL EVALSHA EVAL_RO EVALSHA_RO SCRIPT FUNCTION FCALL FCALL_RO",
        _SCRIPT,
    ),
    ("SAVE BGSAVE BGREWRITEAOF LASTSAVE WAITAOF", _PERSISTENCE),
    (
        "REPLICAOF SLAVEOF FAILOVER PSYNC SYNC REPLCONF ASKING SENTINEL SHUTDOWN MODULE",
        _MEMBERSHIP,
    ),
    ("ACL", _ACCOUNTS),
    ("SLOWLOG LATENCY MEMORY DEBUG LOLWUT", _DIAGNOSIS),
)

ADVICE: Mapping[bytes, str] = {
    name.encode(): advice for names, advice in _ADVICE for name in names.split()
}
"""By their names in capitals."""


def unsupported(command: list[bytes]) -> CommandError:
    """Return the refusal of a command that is not carried out here, whatever it is."""
    advice = ADVICE.get(command[0].upper(), "COMMAND LIST names those that it knows")
    return CommandError(
        f"ERR unknown command '{name_of(command)}', not supported by this server: {advice}"
    )
