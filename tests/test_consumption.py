"""What a server says of its own use of processor and memory."""

from __future__ import annotations

import mmap
import time
from pathlib import Path

from raftd.consumption import consumption


def test_processor_time_grows_with_work_and_not_with_waiting() -> None:
    before = consumption()
    used_s = time.process_time()
    while time.process_time() - used_s < 0.05:
        pass
    after = consumption()
    assert 49 <= after.cpu_ms - before.cpu_ms < 5_000


def test_memory_is_that_of_this_process_now() -> None:
    before = consumption()
    assert before.rss_bytes is not None
    assert before.rss_anon_bytes is not None
    assert before.rss_anon_bytes <= before.rss_bytes
    # Not from the heap: it may have as much that nobody uses any more.
    with mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.write(b"x" * len(held))
        during = consumption()
    assert during.rss_anon_bytes is not None
    assert during.rss_anon_bytes - before.rss_anon_bytes > 48 << 20


def test_where_the_kernel_does_not_say_the_sizes_are_not_known(tmp_path: Path) -> None:
    nowhere = consumption(tmp_path / "status")
    assert (nowhere.rss_bytes, nowhere.rss_anon_bytes) == (None, None)
    assert nowhere.cpu_ms > 0
    older = tmp_path / "older"
    older.write_text("Name:\tpython\nVmRSS:\t    2048 kB\nThreads:\t1\n")
    assert consumption(older).rss_bytes == 2048 * 1024
    assert consumption(older).rss_anon_bytes is None
