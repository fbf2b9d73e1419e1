"""No stream of bytes ends a server, keeps others from being served, or stays in its memory."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import hiredis
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzzing.bed import FuzzingBed
from tests.fuzzing.run import PROTOCOLS, run_protocol
from tests.fuzzing.streams import STREAMS, cut, redis_command, redis_framed
from tests.network.redis_bed import PATIENCE_SECONDS, opened_bed

STREAMS_ORDINARY = 250
STREAMS_SOAK = 20_000


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuzzingBed]:
    bed = FuzzingBed(tmp_path_factory.mktemp("fuzzing"))
    try:
        yield bed
    finally:
        bed.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_real_server_outlives_whatever_is_sent_to_it(
    bed: FuzzingBed, protocol: str, seed: int
) -> None:
    run = run_protocol(bed, protocol, first_seed=seed, count=STREAMS_ORDINARY)
    assert run.figures.streams == STREAMS_ORDINARY
    assert run.figures.asked > 1
    assert run.holds, run


@pytest.mark.soak
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_many_streams_leave_nothing_in_memory(bed: FuzzingBed, protocol: str, seed: int) -> None:
    run = run_protocol(bed, protocol, first_seed=seed, count=STREAMS_SOAK)
    print(run)
    assert run.holds, run


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_seed_says_what_is_sent(protocol: str, seed: int) -> None:
    for stream in STREAMS[protocol]:
        assert stream(Random(seed)) == stream(Random(seed))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=30))
async def test_every_command_that_is_framed_well_has_one_reply(seeds: list[int]) -> None:
    commands = [redis_command(Random(seed)) for seed in seeds]
    # What turns the replies into others is tried elsewhere.
    commands = [each for each in commands if each[0].upper() not in (b"HELLO", b"RESET")]
    content = b"".join(map(redis_framed, [*commands, [b"DISCARD"], [b"PING", b"that is all"]]))
    reader = hiredis.Reader(replyError=str)
    replies = []
    async with opened_bed() as bed:
        client, other = await bed.client(), await bed.client()
        for piece in cut(content, Random(seeds[0])):
            await client.write(piece)
        with trio.fail_after(PATIENCE_SECONDS):
            while not replies or replies[-1] != b"that is all":
                reader.feed(await client.stream.receive_some())
                while (reply := reader.gets()) is not False:
                    replies.append(reply)
        assert await other.ask("PING") == b"PONG"
    assert len(replies) == len(commands) + 2


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(STREAMS["redis"]), st.integers(0, 2**32)), max_size=6))
async def test_no_connection_is_left_behind_by_any_stream(
    streams: list[tuple[object, int]],
) -> None:
    # The bed sees at its end that nothing is held for anybody any more.
    async with opened_bed() as bed:
        for stream, seed in streams:
            client, other = await bed.client(), await bed.client()
            for piece in stream(Random(seed)):  # type: ignore[operator]
                with trio.move_on_after(0.01):
                    try:
                        await client.stream.send_all(piece)
                    except trio.BrokenResourceError:
                        break
            assert await other.ask("PING") == b"PONG"
            client.reset()
            bed.clients.remove(client)
