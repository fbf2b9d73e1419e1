"""A Dockerfile as a list of instructions: those that ours uses, and an error for any other."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import attrs

KNOWN = {
    *("FROM", "RUN", "COPY", "WORKDIR", "ENV", "USER", "VOLUME", "EXPOSE"),
    *("STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
}


@attrs.frozen
class Instruction:
    name: str
    text: str
    """What stands behind the name, in one line."""

    @property
    def words(self) -> list[str]:
        """The words of the text, without options (`--from=build`)."""
        return [word for word in shlex.split(self.text) if not word.startswith("--")]

    @property
    def options(self) -> dict[str, str]:
        """Options before the other words, without their dashes."""
        found = re.findall(r"--([a-z-]+)=(\S+)", self.text.split(" CMD ")[0])
        return dict(found)

    @property
    def command(self) -> list[str]:
        """The command of ENTRYPOINT, CMD or HEALTHCHECK, which has to be a list."""
        command = json.loads(self.text[self.text.index("[") :])
        assert all(isinstance(word, str) for word in command)
        return list(command)


@attrs.frozen
class Stage:
    """The instructions behind one FROM."""

    base: str
    name: str
    """Empty for the last one."""
    instructions: tuple[Instruction, ...]

    def last(self, name: str) -> Instruction:
        """Return the one of this name that is in force at the end."""
        return [found for found in self.instructions if found.name == name][-1]

    @property
    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        pairs = [one.text.split("=", 1) for one in self.instructions if one.name == "ENV"]
        return dict(pairs)  # type: ignore[arg-type]


def stages(path: Path) -> list[Stage]:
    """Return the stages of a Dockerfile in their order."""
    found: list[Stage] = []
    for instruction in _instructions(path.read_text()):
        if instruction.name == "FROM":
            base, _, name = instruction.text.partition(" AS ")
            found.append(Stage(base, name, ()))
        else:
            before = found.pop()
            found.append(attrs.evolve(before, instructions=(*before.instructions, instruction)))
    return found


def _instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        name, _, rest = line.partition(" ")
        assert name in KNOWN, f"{name}: what it does is not known here"
        yield Instruction(name, rest.strip())
