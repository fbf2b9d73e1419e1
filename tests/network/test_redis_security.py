"""Redis clients with passwords and certificates: who gets in, what the others are told, limits."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
import trio

from raftd.network.redis_auth import (
    ATTEMPTS_MAX,
    AUTH_TIMEOUT_SECONDS,
    LOCKED_BYTES_MAX,
    NO_AUTH,
    NO_AUTH_FOR_HELLO,
    NO_PASSWORD,
    WRONG_PASSWORD,
)
from raftd.passwords import CurrentPassword
from raftd.tls import ADMIN, APPLICATION, CurrentCredentials
from tests.certificates import OVER, TestAuthority
from tests.network.redis_bed import encoded, opened_bed, text

SECRET = "open-sesame-7f3a"


@pytest.fixture
def password(tmp_path: Path) -> CurrentPassword:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    return CurrentPassword(file)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    return TestAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def credentials(authority: TestAuthority) -> CurrentCredentials:
    return CurrentCredentials(authority.server("n1"), "n1")


# --- the password ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("AUTH", SECRET),
        ("auth", "default", SECRET),
        ("HELLO", "3", "AUTH", "default", SECRET),
        ("HELLO", "2", "SETNAME", "x", "auth", "default", SECRET),
    ],
)
async def test_the_password_lets_a_client_in(password: CurrentPassword, words: Any) -> None:
    async with opened_bed(password=password) as bed:
        client = await bed.client()
        await client.send(words, ("SET", "k", "v"), ("GET", "k"))
        answer = await client.reply()
        assert answer == b"OK" or b"proto" in answer
        assert await client.replies(2) == [b"OK", b"v"]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("GET", "k"), NO_AUTH),
        (("SET", "k", "v"), NO_AUTH),
        (("PING",), NO_AUTH),
        (("MULTI",), NO_AUTH),
        (("CLIENT", "LIST"), NO_AUTH),
        (("NOSUCH",), NO_AUTH),
        (("HELLO",), NO_AUTH_FOR_HELLO),
        (("HELLO", "3"), NO_AUTH_FOR_HELLO),
        (("HELLO", "3", "SETNAME", "x"), NO_AUTH_FOR_HELLO),
        (("AUTH", "wrong"), WRONG_PASSWORD),
        (("AUTH", "default", "wrong"), WRONG_PASSWORD),
        (("AUTH", "root", SECRET), WRONG_PASSWORD),
        (("AUTH", SECRET + "x"), WRONG_PASSWORD),
        (("AUTH", ""), WRONG_PASSWORD),
        (("HELLO", "3", "AUTH", "default", "wrong"), WRONG_PASSWORD),
        (("AUTH",), "ERR wrong number of arguments for 'auth' command"),
        (("HELLO", "3", "AUTH", "default"), "ERR Syntax error in HELLO option"),
    ],
)
async def test_before_the_password_nothing_is_carried_out(
    password: CurrentPassword, words: Any, answer: str
) -> None:
    async with opened_bed(password=password) as bed:
        client = await bed.client()
        # In one piece and in two: alone a command takes another way than behind others.
        assert text(await client.ask(*words)) == answer
        await client.send(words, ("GET", "k"))
        first, second = await client.replies(2)
        assert (text(first), text(second)) == (answer, NO_AUTH)
        assert bed.inputs == []


async def test_a_connection_that_leaves_before_the_password_may_do_so(
    password: CurrentPassword,
) -> None:
    async with opened_bed(password=password) as bed:
        client = await bed.client()
        assert await client.ask("QUIT") == b"OK"
        await client.end()


async def test_without_a_password_auth_says_so_as_redis_does() -> None:
    async with opened_bed() as bed:
        client = await bed.client()
        assert text(await client.ask("AUTH", "x")) == NO_PASSWORD
        assert text(await client.ask("AUTH", "root", "x")) == WRONG_PASSWORD
        assert await client.ask("AUTH", "default", "x") == b"OK"
        assert await client.ask("SET", "k", "v") == b"OK"


async def test_a_new_password_is_asked_of_new_clients_and_old_ones_go_on(
    password: CurrentPassword, tmp_path: Path
) -> None:
    async with opened_bed(password=password) as bed:
        old = await bed.client()
        assert await old.ask("AUTH", SECRET) == b"OK"
        (tmp_path / "password").write_text("another\n")
        assert password.load(tmp_path / "password")
        assert await old.ask("SET", "k", "v") == b"OK"
        new = await bed.client()
        assert text(await new.ask("AUTH", SECRET)) == WRONG_PASSWORD
        assert await new.ask("AUTH", "another") == b"OK"


async def test_who_had_to_say_a_password_is_not_let_in_when_there_is_none_any_more(
    password: CurrentPassword,
) -> None:
    async with opened_bed(password=password) as bed:
        client = await bed.client()
        assert text(await client.ask("GET", "k")) == NO_AUTH
        assert password.load(None)
        assert text(await client.ask("AUTH", "default", "x")) == WRONG_PASSWORD
        assert text(await client.ask("GET", "k")) == NO_AUTH
        assert await (await bed.client()).ask("SET", "k", "v") == b"OK"


# --- limits ---------------------------------------------------------------------------------------


async def test_who_guesses_is_cut_off_and_named_in_the_log_without_the_guesses(
    password: CurrentPassword, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with opened_bed(password=password) as bed:
        client = await bed.client()
        for _ in range(ATTEMPTS_MAX):
            assert text(await client.ask("AUTH", "guess-55aa")) == WRONG_PASSWORD
        await client.gone()
        assert bed.listener._doorstep.wrong_passwords == ATTEMPTS_MAX
    assert "has said a wrong password" in caplog.text
    assert "guess-55aa" not in caplog.text
    assert SECRET not in caplog.text


async def test_who_does_not_say_the_password_is_closed_and_who_has_said_it_stays(
    password: CurrentPassword,
) -> None:
    async with opened_bed(password=password) as bed:
        silent, asking, known = [await bed.client() for _ in range(3)]
        assert await known.ask("AUTH", SECRET) == b"OK"
        assert text(await asking.ask("PING")) == NO_AUTH
        await bed.until(lambda: bed.listener.connection_count == 3)
        bed.tick(AUTH_TIMEOUT_SECONDS - 1)
        assert text(await asking.ask("PING")) == NO_AUTH
        bed.tick(1)
        await silent.gone()
        await asking.gone()
        assert await known.ask("PING") == b"PONG"


async def test_reset_takes_the_password_back_and_it_may_be_said_again(
    password: CurrentPassword,
) -> None:
    async with opened_bed(password=password) as bed:
        late, again = await bed.client(), await bed.client()
        for client in (late, again):
            await client.send(("AUTH", SECRET), ("SET", "k", "v"), ("RESET",), ("GET", "k"))
            *let_in, locked = await client.replies(4)
            assert let_in == [b"OK", b"OK", b"RESET"]
            assert text(locked) == NO_AUTH
        assert await again.ask("AUTH", SECRET) == b"OK"
        bed.tick(AUTH_TIMEOUT_SECONDS)
        await late.gone()
        assert await again.ask("GET", "k") == b"v"


async def test_reset_asks_no_password_of_who_was_let_in_without_one(
    authority: TestAuthority, credentials: CurrentCredentials, password: CurrentPassword
) -> None:
    async with opened_bed(credentials=credentials, password=password) as bed:
        own = authority.issue(APPLICATION, "x2", stem="application-x2")
        client = await bed.secured_client(authority.ca, own)
        assert await client.ask("AUTH", SECRET) == b"OK"
        assert await client.ask("RESET") == b"RESET"
        assert await client.ask("PING") == b"PONG"


async def test_a_long_command_is_not_received_before_the_password(
    password: CurrentPassword,
) -> None:
    async with opened_bed(password=password) as bed:
        stranger, known = await bed.client(), await bed.client()
        value = bytes(8 * LOCKED_BYTES_MAX)
        await stranger.write(encoded(("SET", "k", value))[:-1])
        assert "too long a command" in text(await stranger.reply())
        await stranger.gone()
        assert await known.ask("AUTH", SECRET) == b"OK"
        assert await known.ask("SET", "k", value) == b"OK"


async def test_those_without_the_password_leave_room_for_the_others(
    password: CurrentPassword, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftd.network.redis_doorstep.LOCKED_CONNECTIONS_MAX", 2)
    async with opened_bed(password=password) as bed:
        first, second, third = [await bed.client() for _ in range(3)]
        assert "too many clients" in text(await third.reply())
        await third.end()
        assert await first.ask("AUTH", SECRET) == b"OK"
        fourth = await bed.client()
        assert await fourth.ask("AUTH", SECRET) == b"OK"
        assert await second.ask("AUTH", SECRET) == b"OK"


# --- certificates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("role", [ADMIN, APPLICATION])
@pytest.mark.parametrize("with_password", [False, True])
async def test_a_certificate_takes_the_place_of_the_password(
    authority: TestAuthority,
    credentials: CurrentCredentials,
    password: CurrentPassword,
    role: str,
    version: ssl.TLSVersion,
    with_password: bool,
) -> None:
    options = {"password": password} if with_password else {}
    async with opened_bed(credentials=credentials, **options) as bed:
        own = authority.issue(role, "x1", stem=f"{role}-x1")
        client = await bed.secured_client(authority.ca, own, version)
        value = bytes(range(256)) * 4096
        assert await client.ask("SET", "k", value) == b"OK"
        assert await client.ask("GET", "k") == value
        await client.send(*[("INCR", "n")] * 300)
        assert await client.replies(300) == list(range(1, 301))


async def test_with_a_password_who_has_no_certificate_may_say_it(
    authority: TestAuthority, credentials: CurrentCredentials, password: CurrentPassword
) -> None:
    async with opened_bed(credentials=credentials, password=password) as bed:
        client = await bed.secured_client(authority.ca, None)
        assert text(await client.ask("GET", "k")) == NO_AUTH
        assert await client.ask("AUTH", SECRET) == b"OK"
        assert await client.ask("SET", "k", "v") == b"OK"


async def test_the_certificate_of_a_server_is_worth_nothing_to_a_redis_client(
    authority: TestAuthority, credentials: CurrentCredentials, password: CurrentPassword
) -> None:
    own = authority.server("n2")
    async with opened_bed(credentials=credentials) as bed:
        client = await bed.secured_client(authority.ca, own)
        assert text(await client.reply()).startswith("NOPERM its certificate is that of server n2")
        await client.gone()
    async with opened_bed(credentials=credentials, password=password) as bed:
        client = await bed.secured_client(authority.ca, own)
        assert text(await client.ask("GET", "k")) == NO_AUTH
        assert await client.ask("AUTH", SECRET) == b"OK"


@pytest.mark.parametrize(
    ("who", "with_password"),
    [
        ("nobody", False),
        *(("foreign", with_it) for with_it in (False, True)),
        *(("expired", with_it) for with_it in (False, True)),
        *(("plain", with_it) for with_it in (False, True)),
    ],
)
async def test_who_shows_no_good_certificate_is_refused(
    authority: TestAuthority,
    credentials: CurrentCredentials,
    password: CurrentPassword,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    who: str,
    with_password: bool,
) -> None:
    own = {
        "foreign": lambda: TestAuthority(tmp_path / "foreign", "another CA").admin(),
        "expired": lambda: authority.admin(stem="expired", valid=OVER),
    }.get(who)
    options = {"password": password} if with_password else {}
    async with opened_bed(credentials=credentials, **options) as bed:
        if who == "plain":
            client = await bed.client()
            assert text(await client.ask("GET", "k")) == "ERR this port speaks TLS only"
            await client.gone()
        else:
            with pytest.raises((trio.BrokenResourceError, AssertionError)):
                await call(bed, authority, own() if own else None)
        await bed.until(lambda: "closed the connection of a Redis client" in caplog.text)
        assert bed.listener.connection_count == 0


async def call(bed: Any, authority: TestAuthority, own: Any) -> None:
    client = await bed.secured_client(authority.ca, own)
    await client.ask("GET", "k")


async def test_many_secured_clients_at_once_are_all_served(
    authority: TestAuthority, credentials: CurrentCredentials
) -> None:
    own = authority.application("many")
    async with opened_bed(credentials=credentials) as bed:

        async def one(number: int) -> None:
            client = await bed.secured_client(authority.ca, own)
            assert await client.ask("SET", f"k{number}", number) == b"OK"
            await client.stream.transport_stream.aclose()

        async with trio.open_nursery() as nursery:
            for number in range(150):
                nursery.start_soon(one, number)
