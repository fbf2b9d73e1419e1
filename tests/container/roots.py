"""Does what a Dockerfile says without a container engine: in roots of Debian, by chroot.

What an engine gives a container is here what Linux gives: a mount namespace with the root and the
volumes, a namespace of processes in which the server is the first one, and a name of its own for
the host. The network is that of the machine: names of servers lead to loopback addresses.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from tests.container.dockerfile import Instruction, Stage

SUITES = {"debian:bookworm-slim": "bookworm"}
"""What images of Debian are made of, by their names. A slim image lacks documentation beside it."""
STEP_SECONDS_MAX = 900
ENDS_WITHIN_SECONDS = 30.0
MACHINE_FILES = (
    *("/etc/resolv.conf", "/etc/apt/apt.conf", "/etc/apt/apt.conf.d"),
    "/etc/apt/sources.list.d/debian.sources",
)
"""How this machine reaches the mirrors of Debian: an engine would have that from its own settings.
Taken out again before anything runs in the root."""
MACHINE_ENVIRONMENT = (
    *("PIP_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
"""How it reaches PyPI."""
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Whom it trusts on the way there, be it a proxy of its own."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PREPARE = """
set -eu
mount --make-rprivate /
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
"""


def missing_programs() -> list[str]:
    """Return what this takes and this machine does not have."""
    wanted = {"mmdebstrap": "mmdebstrap", "unshare": "util-linux", "chroot": "coreutils"}
    return [package for program, package in wanted.items() if shutil.which(program) is None]


class Builder:
    """Builds the stages of a Dockerfile, each in a root of its own below `folder`."""

    def __init__(self, context: Path, folder: Path) -> None:
        """Prepare it.

        Args:
            context: what COPY takes files from.
            folder: some gigabytes are written there.
        """
        self._context = context
        self._folder = folder
        self._roots: dict[str, Path] = {}

    def build(self, stage: Stage) -> Path:
        """Return the root of a stage, which those that it copies from have to come before."""
        root = self._folder / (stage.name or "image")
        self._debian(SUITES[stage.base], root)
        self._roots[stage.name] = root
        brought = _bring(root)
        folder, environment = "/", dict[str, str]()
        for step in stage.instructions:
            if step.name == "RUN":
                print(f"  RUN {step.text}")
                self._run(root, folder, environment, step)
            elif step.name == "COPY":
                print(f"  COPY {step.text}")
                self._copy(root, folder, step)
            elif step.name == "ENV":
                name, value = step.text.split("=", 1)
                environment[name] = value
            elif step.name == "WORKDIR":
                folder = step.text
                (root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        _take_back(brought)
        (root / "run" / "authorities.crt").unlink(missing_ok=True)
        return root

    def _debian(self, suite: str, root: Path) -> None:
        archive = self._folder / f"{suite}.tar"
        if not archive.exists():
            print(f"mmdebstrap --variant=minbase {suite}")
            _call(["mmdebstrap", "--quiet", "--variant=minbase", suite, str(archive)])
        root.mkdir()
        _call(["tar", "--extract", "--file", str(archive), "--directory", str(root)])

    def _run(
        self, root: Path, folder: str, environment: Mapping[str, str], step: Instruction
    ) -> None:
        own = {name: os.environ[name] for name in MACHINE_ENVIRONMENT if name in os.environ}
        if AUTHORITIES.exists():
            # Not where the packages of the image put theirs.
            own["PIP_CERT"] = "/run/authorities.crt"
            shutil.copy(AUTHORITIES, root / "run" / "authorities.crt")
        own |= {"PATH": DEFAULT_PATH, "DEBIAN_FRONTEND": "noninteractive"}
        command = ["/bin/sh", "-c", f"cd {folder} && {step.text}"]
        script = PREPARE + _enter(own | environment, command)
        _call(["unshare", "--mount", "sh", "-c", script], environment=_outside(root))

    def _copy(self, root: Path, folder: str, step: Instruction) -> None:
        origin = step.options.get("from")
        source = self._roots[origin] if origin else self._context
        *names, target = step.words
        inside = root / (target if target.startswith("/") else f"{folder}/{target}").lstrip("/")
        for name in names:
            path = source / name.lstrip("/")
            if path.is_dir():
                # The content of a folder, not the folder, and not what was compiled here.
                ignore = None if origin else shutil.ignore_patterns("__pycache__")
                shutil.copytree(path, inside, symlinks=True, dirs_exist_ok=True, ignore=ignore)
            else:
                into = inside / path.name if target.endswith("/") else inside
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, into)


def _bring(root: Path) -> list[tuple[Path, Path | None]]:
    """Give a root what the machine needs to reach its mirrors; return what to take back."""
    brought: list[tuple[Path, Path | None]] = []
    for name in MACHINE_FILES:
        path, inside = Path(name), root / name.lstrip("/")
        if not path.exists():
            continue
        kept = None
        if inside.exists() or inside.is_symlink():
            kept = inside.with_name(inside.name + ".kept")
            inside.rename(kept)
        inside.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, inside)
        else:
            shutil.copy(path, inside)
        brought.append((inside, kept))
    return brought


def _take_back(brought: Sequence[tuple[Path, Path | None]]) -> None:
    for inside, kept in brought:
        if inside.is_dir():
            shutil.rmtree(inside)
        else:
            inside.unlink(missing_ok=True)
        if kept is not None:
            kept.rename(inside)


@attrs.define
class Container:
    """A server that runs in the root of an image, as its stage says."""

    root: Path
    stage: Stage
    hostname: str
    volume: Path
    """Bound where the stage has its VOLUME."""
    files: Mapping[str, Path]
    """Bound, read-only, at these paths of the root."""
    log_path: Path
    process: subprocess.Popen[bytes] | None = None

    def __attrs_post_init__(self) -> None:
        """Make the mount points that are missing, as an engine does."""
        for target in self.files:
            inside = self.root / target.lstrip("/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.touch()

    def start(self, *arguments: str) -> None:
        """Start the ENTRYPOINT with these arguments, as the first process of its namespace."""
        command = [*self.stage.last("ENTRYPOINT").command, *arguments]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *("unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"),
                    *("sh", "-c", self._script(command)),
                ],
                env=_outside(self.root),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end beside the server: same root, user, volume and host name."""
        return subprocess.run(
            ["unshare", "--mount", "--uts", "sh", "-c", self._script(command)],
            env=_outside(self.root),
            capture_output=True,
            text=True,
            timeout=120,
        )

    def stop(self) -> int:
        """Send the STOPSIGNAL to the server and return its exit code."""
        assert self.process is not None
        os.kill(self.pid, signal.Signals[self.stage.last("STOPSIGNAL").text])
        return self.process.wait(ENDS_WITHIN_SECONDS)

    @property
    def pid(self) -> int:
        """Of the server, as the machine sees it."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        deadline = time.monotonic() + ENDS_WITHIN_SECONDS
        while not (found := children.read_text().split()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return int(found[0])

    @property
    def users(self) -> tuple[int, int]:
        """The user and the group that the server runs as."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        numbers = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line}
        return int(numbers["Uid"]), int(numbers["Gid"])

    @property
    def log(self) -> str:
        """What it has written to stderr."""
        return self.log_path.read_text()

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _script(self, command: Sequence[str]) -> str:
        user = self.stage.last("USER").text
        inside = shlex.quote(str(self.root / self.stage.last("VOLUME").text.lstrip("/")))
        lines = [PREPARE, f"mount --bind {shlex.quote(str(self.volume))} {inside}"]
        for target, path in self.files.items():
            at = shlex.quote(str(self.root / target.lstrip("/")))
            lines.append(f"mount --bind {shlex.quote(str(path))} {at}")
        lines.append(f"hostname {shlex.quote(self.hostname)}")
        lines.append(_enter(self.stage.environment, command, f"--userspec={user}:{user}"))
        return "\n".join(lines)


def _outside(root: Path) -> dict[str, str]:
    """Return the environment of the script that enters `root`."""
    return {"PATH": DEFAULT_PATH, "ROOT": str(root)}


def _enter(environment: Mapping[str, str], command: Sequence[str], *options: str) -> str:
    """Return the end of that script: nothing of the environment here gets in."""
    pairs = [f"{name}={value}" for name, value in environment.items()]
    inside = shlex.join(["/usr/bin/env", "-i", *pairs, *command])
    return f'exec chroot {shlex.join(options)} "$ROOT" {inside}'


def _call(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
    ended = subprocess.run(
        command,
        env=None if environment is None else dict(environment),
        capture_output=True,
        text=True,
        timeout=STEP_SECONDS_MAX,
    )
    output = (ended.stdout + ended.stderr)[-4_000:]
    assert ended.returncode == 0, f"{shlex.join(command)[:300]}: {ended.returncode}\n{output}"
