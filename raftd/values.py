"""What the values of the native protocol and of the commands have in common: `==`, hash and repr.

attrs would write these three methods anew for each class and compile them whenever a program
starts. For the six dozen classes that every `raftctl` loads that is a sixth of its start-up, and
none of the three is on a hot path; so these classes share one of each. Field by field they say
what the generated ones say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import attrs


class Value:
    """The base of a class that is made with `@attrs.frozen(kw_only=True, repr=False, eq=False)`."""

    __slots__ = ()
    if TYPE_CHECKING:
        # Hidden from whoever evaluates the annotations of a class and its bases: no field.
        __attrs_attrs__: tuple[attrs.Attribute[Any], ...]

    def _compared(self) -> tuple[object, ...]:
        return tuple([getattr(self, field.name) for field in self.__attrs_attrs__ if field.eq])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value) or other.__class__ is not self.__class__:
            return NotImplemented
        return self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash((self.__class__, self._compared()))

    def __repr__(self) -> str:
        shown = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in self.__attrs_attrs__
            if field.repr
        ]
        return f"{self.__class__.__qualname__}({', '.join(shown)})"
