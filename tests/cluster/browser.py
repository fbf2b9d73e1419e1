"""A headless Chromium, driven through the DevTools protocol over a pair of pipes.

With `--remote-debugging-pipe` the browser reads commands from descriptor 3 and writes replies and
events to descriptor 4, JSON each, with a zero byte after it. It ends when the pipes are closed, so
none outlives the tests. Source: chromedevtools.github.io/devtools-protocol.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
"""Debian's name, and that of others; empty where there is none."""
ANSWER_S = 30.0
"""For one command. The first one waits for the browser's start, on a machine that is busy."""
END_S = 5.0
"""For its end, once it was asked; then it is killed."""
READ_BYTES = 1 << 16
POLL_S = 0.05
FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu"),
    # Tests run as root in containers, where its sandbox and large shared memory are not to be had.
    *("--no-sandbox", "--disable-dev-shm-usage", "--disable-extensions", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Browser:
    """A browser with one page. Close it."""

    def __init__(self, folder: Path, flags: Sequence[str] = ()) -> None:
        """Start it; its profile and what it prints go into `folder`."""
        self.complaints: list[str] = []
        """What its console said since the last `open`: errors, warnings, refused contents."""
        self._received = b""
        self._last_id = 0
        self._commands, self._answers, self._pid = _spawn(folder, flags)
        created = self._call("Target.createTarget", {"url": "about:blank"})
        attach = {"targetId": created["targetId"], "flatten": True}
        self._session = ""
        self._session = self._call("Target.attachToTarget", attach)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def close(self) -> None:
        """End it and wait until it is gone."""
        for descriptor in (self._commands, self._answers):
            os.close(descriptor)
        deadline_s = time.monotonic() + END_S
        while os.waitpid(self._pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline_s:
                os.killpg(self._pid, signal.SIGKILL)
            time.sleep(POLL_S)

    def open(self, url: str) -> None:
        """Load a page, and forget what the console said before."""
        # The page before may complain until it is left.
        self._call("Page.navigate", {"url": "about:blank"})
        self.run("0")
        self.complaints.clear()
        found = self._call("Page.navigate", {"url": url})
        assert "errorText" not in found, f"{url}: {found['errorText']}"
        self.wait_for("document.readyState === 'complete'")

    def run(self, expression: str) -> Any:
        """Return what a JavaScript expression is in the page: null, a number, a text, a list..."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        found = self._call("Runtime.evaluate", asked)
        assert "exceptionDetails" not in found, f"{expression}: {found['exceptionDetails']}"
        return found["result"].get("value")

    def wait_for(self, expression: str, *, within_s: float = ANSWER_S) -> Any:
        """Return the first true value of an expression."""
        deadline_s = time.monotonic() + within_s
        while not (found := self.run(expression)):
            assert time.monotonic() < deadline_s, (
                f"waited {within_s} s in vain for {expression}; the page says:\n"
                f"{self.run('document.body.innerText')}\n{self.complaints}"
            )
            time.sleep(POLL_S)
        return found

    def look(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Give the window a size in CSS pixels, and say whether the user likes it dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self._call("Emulation.setEmulatedMedia", {"features": [scheme, still]})
        # Whoever draws by the size of an element has done so two frames later.
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def press(self, key: str) -> None:
        """Press a key that has a name, such as Tab, where the focus is."""
        for kind in ("rawKeyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", {"type": kind, "key": key})

    def screenshot(self, path: Path) -> None:
        """Write the whole page, as long as it is; the name says whether as png or webp."""
        asked = {"captureBeyondViewport": True, "format": path.suffix.removeprefix(".")}
        found = self._call("Page.captureScreenshot", asked)
        path.write_bytes(base64.b64decode(found["data"]))

    def _call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        self._last_id += 1
        command = {"id": self._last_id, "method": method, "params": parameters or {}}
        if getattr(self, "_session", ""):
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        deadline_s = time.monotonic() + ANSWER_S
        while True:
            found = self._receive(deadline_s, method)
            if found.get("id") == self._last_id:
                assert "error" not in found, f"{method}: {found.get('error')}"
                return dict(found["result"])
            self._note(found)

    def _receive(self, deadline_s: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._received:
            left_s = max(0.0, deadline_s - time.monotonic())
            assert select.select([self._answers], [], [], left_s)[0], f"no answer to {method}"
            read = os.read(self._answers, READ_BYTES)
            assert read, f"the browser has ended instead of answering {method}"
            self._received += read
        message, _, self._received = self._received.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        """Keep an event if it is a complaint."""
        said = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(said["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if said["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(said["args"]))
            case "Log.entryAdded" if said["entry"]["level"] in ("error", "warning"):
                entry = said["entry"]
                self.complaints.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")


def _spawn(folder: Path, flags: Sequence[str]) -> tuple[int, int, int]:
    """Return where commands are written to, where answers are read from, and the process."""
    commands_end, commands = os.pipe()
    answers, answers_end = os.pipe()
    # Out of the way of 3 and 4, which the browser's ends become.
    far = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (commands_end, answers_end)]
    log = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, str(folder / "browser.log"), log, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        (os.POSIX_SPAWN_DUP2, far[0], 3),
        (os.POSIX_SPAWN_DUP2, far[1], 4),
    ]
    words = [PROGRAM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, "about:blank"]
    pid = os.posix_spawn(PROGRAM, words, os.environ, file_actions=actions, setpgroup=0)
    for descriptor in (commands_end, answers_end, *far):
        os.close(descriptor)
    return commands, answers, pid
