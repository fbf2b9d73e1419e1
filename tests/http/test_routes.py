"""What each path answers: health, measurements, the page and what it needs."""

from __future__ import annotations

from http import HTTPStatus

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from raftd.http.feed import VIEWERS_MAX, Feed, Own
from raftd.http.metrics import make_metrics
from raftd.http.routes import METRICS_FRESH_SECONDS, Routes, page_files
from raftd.http.serving import Answer, HttpRequest, Live
from tests.http.members import Members, activity, survey_of
from tests.http.sources import health_of, sources_of
from tests.node.world import World
from tests.raftctl.status_answers import THREE, reply


@pytest.fixture
def world() -> World:
    world = World()
    world.form(3)
    return world


@pytest.fixture
def routes(world: World, nursery: trio.Nursery) -> Routes:
    survey = survey_of(Members(nursery))
    own = Own(
        status=lambda: reply("n2/b", THREE), activity=lambda: activity("n2/b"), readiness=tuple
    )
    leader = world.leader()
    return Routes(
        health=health_of(world, leader),
        survey=survey,
        feed=Feed(survey, own, address="127.0.0.1:7102", http="127.0.0.1:8102"),
        metrics=make_metrics(sources_of(leader)),
    )


async def get(routes: Routes, path: str, **fields: str) -> Answer:
    answer = await routes.respond(
        HttpRequest(path=path, headers={name.replace("_", "-"): v for name, v in fields.items()})
    )
    assert isinstance(answer, Answer)
    return answer


async def test_a_leader_is_alive_and_ready(routes, autojump_clock):
    for path in ("/livez", "/readyz"):
        answer = await get(routes, path)
        assert (answer.status, answer.body, answer.cache) == (HTTPStatus.OK, b"ok\n", "no-store")
    verbose = await routes.respond(HttpRequest(path="/readyz", query={"verbose": ""}))
    assert isinstance(verbose, Answer)
    assert verbose.body.splitlines()[-1] == b"readyz check passed"
    assert b"[+]caught-up ok" in verbose.body


async def test_a_server_that_is_not_ready_is_unavailable_with_reasons(
    routes, world, autojump_clock
):
    world.cut([world.leader().name])
    world.run(20)
    answer = await get(routes, "/readyz")
    assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert b"[-]leader failed: " in answer.body
    assert (await get(routes, "/livez")).status == HTTPStatus.OK


async def test_measurements_are_worked_out_anew_after_a_while(routes, world, autojump_clock):
    def revision(answer: Answer) -> float:
        families = text_string_to_metric_families(answer.body.decode())
        return next(f.samples[0].value for f in families if f.name == "raftd_revision")

    assert revision(await get(routes, "/metrics")) == 0
    world.open_session("s")
    world.call(world.leader(), world.put("a"))
    assert revision(await get(routes, "/metrics")) == 0
    await trio.sleep(METRICS_FRESH_SECONDS)
    assert revision(await get(routes, "/metrics")) == 1


async def test_every_file_of_the_page_is_served_with_its_type(routes):
    types = {path: (await get(routes, path)).content_type for path in page_files()}
    assert types["/"] == "text/html; charset=utf-8"
    assert types["/page.js"] == "text/javascript; charset=utf-8"
    assert types["/page.css"] == "text/css; charset=utf-8"
    assert types["/favicon.svg"] == "image/svg+xml"


async def test_a_file_that_a_browser_has_is_not_sent_again(routes):
    first = await get(routes, "/page.js")
    tag = dict(first.headers)["etag"]
    assert first.cache == "no-cache"

    again = await get(routes, "/page.js", if_none_match=tag)
    assert (again.status, again.body) == (HTTPStatus.NOT_MODIFIED, b"")
    assert dict(again.headers)["etag"] == tag
    other = await get(routes, "/page.js", if_none_match='"other"')
    assert other.body == first.body


@pytest.mark.parametrize(
    "path", ["/nothing", "/index.html", "/../config.py", "/__init__.py", "//", "", "*", "/metrics/"]
)
async def test_nothing_else_is_there_and_the_answer_names_what_is(routes, path):
    answer = await get(routes, path)
    assert answer.status == HTTPStatus.NOT_FOUND
    assert b"/readyz" in answer.body


async def test_those_for_whom_there_is_no_room_are_told_where_else_to_ask(
    routes, nursery, autojump_clock
):
    async def send(piece: bytes) -> None:
        pass

    for _ in range(VIEWERS_MAX):
        live = await routes.respond(HttpRequest(path="/events"))
        assert isinstance(live, Live)
        nursery.start_soon(live.run, send)
    await trio.testing.wait_all_tasks_blocked()
    answer = await get(routes, "/events")
    assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert b"/status.json" in answer.body
