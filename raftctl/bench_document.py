"""A benchmark for programs: the lines of `raftctl bench -o json`."""

from __future__ import annotations

from typing import Any

import attrs

from raftctl.bench import Progress, Result
from raftctl.bench_clients import GET, PUT
from raftctl.bench_keys import ReadBack
from raftctl.latencies import Latencies

_PERCENTS = (("p50_ms", 50.0), ("p90_ms", 90.0), ("p99_ms", 99.0), ("p999_ms", 99.9))


def progress_document(progress: Progress) -> dict[str, Any]:
    """Return one line of progress."""
    latest = progress.latest
    seconds = progress.latest_seconds
    return {
        "type": "progress",
        "phase": progress.phase,
        "seconds": round(progress.seconds, 3),
        "total_seconds": progress.total_seconds,
        "done": progress.done,
        "total": progress.total,
        "per_second": round(latest.count / seconds, 1) if seconds else 0.0,
        "p50_ms": _percentile_ms(latest, 50.0),
        "p99_ms": _percentile_ms(latest, 99.0),
        "max_ms": _ms(latest.max_ns) if latest.count else None,
        "errors": attrs.asdict(progress.errors),
        "leader": progress.leader or None,
    }


def result_document(
    result: Result, verified: ReadBack | None, keys_removed: int | None
) -> dict[str, Any]:
    """Return the result.

    Args:
        result: what was measured.
        verified: what was found when the keys were read back; None if they were not.
        keys_removed: at the end; None if they were left there.
    """
    options = result.options
    return {
        "clients": options.clients,
        "pipeline": options.pipeline,
        "read_fraction": options.read_fraction,
        "stale": options.stale,
        "value_bytes": options.value_bytes,
        "keys": options.keys,
        "prefix": options.prefix,
        "warm_up_ms": options.warm_up_ms,
        "seconds": round(result.seconds, 3),
        "interrupted": result.interrupted,
        "count": result.count,
        "per_second": round(result.per_second(result.count), 1),
        "puts": _latencies_document(result, PUT),
        "gets": _latencies_document(result, GET),
        "errors": attrs.asdict(result.errors),
        "unresolved": result.unresolved,
        "missed": result.missed,
        "refusal": result.refusal or None,
        "longest_gap_ms": round(result.longest_gap_ms, 3),
        "leaders": [{"seconds": round(seconds, 3), "id": name} for seconds, name in result.leaders],
        "servers": [
            {
                "id": server.name,
                "role": server.role,
                "reachable": server.reachable,
                "restarted": server.restarted,
                "cpu_ms": server.cpu_ms,
                "cpu_fraction": _rounded(server.cpu_fraction),
                "rss_bytes": server.rss_bytes,
                "rss_anon_bytes": server.rss_anon_bytes,
                "rss_anon_max_bytes": server.rss_anon_max_bytes,
            }
            for server in result.servers
        ],
        "generator_cpu_fraction": _rounded(result.generator_fraction),
        "verified": None
        if verified is None
        else {**attrs.asdict(verified), "lost": list(verified.lost)},
        "keys_removed": keys_removed,
    }


def _latencies_document(result: Result, kind: str) -> dict[str, Any] | None:
    latencies = result.latencies.get(kind)
    if latencies is None:
        return None
    return {
        "count": latencies.count,
        "per_second": round(result.per_second(latencies.count), 1),
        **{name: _percentile_ms(latencies, percent) for name, percent in _PERCENTS},
        "max_ms": _ms(latencies.max_ns) if latencies.count else None,
        "buckets": [
            {"from_ms": _ms(each.start_ns), "to_ms": _ms(each.end_ns), "count": each.count}
            for each in latencies.buckets()
        ],
    }


def _percentile_ms(latencies: Latencies, percent: float) -> float | None:
    return _ms(latencies.percentile_ns(percent)) if latencies.count else None


def _ms(latency_ns: int) -> float:
    return latency_ns / 1e6


def _rounded(fraction: float | None) -> float | None:
    return None if fraction is None else round(fraction, 4)
