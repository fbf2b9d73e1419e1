"""What a mutant is: this tree with one line changed, so that it has one bug.

A suite that does not notice the bug would not notice the same mistake of ours either.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from pathlib import Path

import attrs


class PlaceNotFound(Exception):
    """The text that a mutant replaces is not in its file exactly once; the message names both."""


@attrs.frozen(kw_only=True)
class Mutant:
    """One bug, as one changed line."""

    name: str
    """What goes wrong, in a few words with hyphens. Unique."""
    why: str
    """One sentence: what the bug breaks."""
    file: str
    """Path of the changed file, from the root of the tree."""
    old: str
    """The text that is replaced; other lines than the changed one only say which place is meant."""
    new: str
    test: str
    """Node id of the scripted test that fails, from the root of the tree."""
    found_by_search: bool = False
    """Whether the simulator has to find it, too: a rule that scripts alone cannot vouch for."""
    unreachable: str = ""
    """Why no simulated run can show the bug, as for a system call that the simulated disk replaces.
    Such a mutant has its scripted test alone."""
    equivalent: str = ""
    """Why the change is no bug after all. Such a mutant has no test, and need not be caught."""

    def mutated(self, source: str) -> str:
        """Return the file with the bug in it.

        Raises:
            PlaceNotFound: the place is missing, or there are several.
        """
        count = source.count(self.old)
        if count != 1:
            raise PlaceNotFound(
                f"{self.name}: its place in {self.file} is found {count} times instead of once"
            )
        return source.replace(self.old, self.new)

    def apply(self, root: Path) -> None:
        """Change the file below `root`.

        Raises:
            PlaceNotFound: as for `mutated`.
        """
        path = root / self.file
        path.write_text(self.mutated(path.read_text()))

    def changed_lines(self) -> int:
        """Return how many lines differ between the old and the new text."""
        old, new = self.old.splitlines(), self.new.splitlines()
        return sum(
            max(old_end - old_begin, new_end - new_begin)
            for tag, old_begin, old_end, new_begin, new_end in SequenceMatcher(
                None, old, new, autojunk=False
            ).get_opcodes()
            if tag != "equal"
        )
