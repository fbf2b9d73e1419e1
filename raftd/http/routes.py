"""What each path answers.

| path | what it is |
|---|---|
| `/livez`, `/readyz` | whether the server lives, and may be sent clients |
| `/metrics` | measurements for Prometheus |
| `/status.json` | the cluster, as `raftctl status -o json` prints it |
| `/events` | the same and more, live |
| `/` and what it needs | the status page |
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from importlib.resources import files

import attrs
import trio

from raftd.http.feed import CONTENT_TYPE as EVENT_STREAM
from raftd.http.feed import VIEWERS_MAX, Feed
from raftd.http.health import Check, Health, passes, report
from raftd.http.metrics import CONTENT_TYPE as METRICS
from raftd.http.serving import Answer, HttpRequest, Live, text_answer
from raftd.http.survey import Survey

METRICS_FRESH_SECONDS = 0.5
"""Measurements are worked out anew after so long: it takes milliseconds, and nobody needs them more
often."""
PAGE = "index.html"
CONTENT_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
"""Of the files of the page, by the ends of their names. Others are not served."""


@attrs.frozen
class _File:
    body: bytes
    content_type: str
    tag: str
    """Changes with the content."""


def page_files() -> dict[str, _File]:
    """Return the files of the status page by their paths."""
    found = {}
    for file in files("raftd").joinpath("page").iterdir():
        content_type = CONTENT_TYPES.get(file.name.rpartition(".")[2])
        if content_type is not None:
            body = file.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            path = "/" if file.name == PAGE else f"/{file.name}"
            found[path] = _File(body, content_type, tag)
    return found


class Routes:
    """Answers requests."""

    def __init__(
        self, *, health: Health, survey: Survey, feed: Feed, metrics: Callable[[], bytes]
    ) -> None:
        """Answer with what these say; the files of the page are read now."""
        self._health = health
        self._survey = survey
        self._feed = feed
        self._metrics = metrics
        self._measured = b""
        self._measured_at = -METRICS_FRESH_SECONDS
        self._files = page_files()
        self._routes: Mapping[str, Callable[[HttpRequest], Awaitable[Answer | Live]]] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._on_metrics,
            "/status.json": self._status,
            "/events": self._events,
        }

    async def respond(self, request: HttpRequest) -> Answer | Live:
        """Return the answer to `request`."""
        route = self._routes.get(request.path)
        if route is not None:
            return await route(request)
        file = self._files.get(request.path)
        if file is None:
            known = ", ".join(sorted((*self._routes, *self._files)))
            return text_answer(HTTPStatus.NOT_FOUND, f"not found; there is {known}")
        headers = (("etag", file.tag),)
        if file.tag in request.headers.get("if-none-match", ""):
            return Answer(status=HTTPStatus.NOT_MODIFIED, cache="no-cache", headers=headers)
        return Answer(
            body=file.body, content_type=file.content_type, cache="no-cache", headers=headers
        )

    async def _livez(self, request: HttpRequest) -> Answer:
        return _health_answer("livez", await self._health.live(), request)

    async def _readyz(self, request: HttpRequest) -> Answer:
        return _health_answer("readyz", await self._health.ready(), request)

    async def _on_metrics(self, request: HttpRequest) -> Answer:
        # Ages are those of the latest turn: without this, of one that was long ago.
        await self._health.turned()
        now = trio.current_time()
        if now - self._measured_at >= METRICS_FRESH_SECONDS:
            self._measured, self._measured_at = self._metrics(), now
        return Answer(body=self._measured, content_type=METRICS)

    async def _status(self, request: HttpRequest) -> Answer:
        sight = await self._survey.look()
        return Answer(body=sight.text, content_type="application/json; charset=utf-8")

    async def _events(self, request: HttpRequest) -> Answer | Live:
        if self._feed.is_full:
            return text_answer(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{VIEWERS_MAX} others follow already; ask for /status.json, or another server",
                ("retry-after", "30"),
            )
        return Live(content_type=EVENT_STREAM, run=self._feed.follow)


def _health_answer(endpoint: str, checks: Sequence[Check], request: HttpRequest) -> Answer:
    status = HTTPStatus.OK if passes(checks) else HTTPStatus.SERVICE_UNAVAILABLE
    return text_answer(status, report(endpoint, checks, verbose="verbose" in request.query))
