"""Is there an order of a key's operations that a register could have executed?

The search goes through the events in real-time order and keeps every *configuration* that the
register may be in: its value, and which of the operations that are under way have been placed in
the order. Operations are placed just in time: only when one of them completes are sequences of
pending operations tried, and only such that end with it. The history is linearizable as long as a
configuration is left. (Wing and Gong 1993; Lowe 2017, "Testing for linearizability", section 5;
the memo of configurations as in Horn and Kroening 2015.)

Whether a key is linearizable is NP-complete (Gibbons and Korach 1997), so everything rests on not
keeping configurations that cannot do more than another one. Operations are of three sorts:

- a *check* leaves the value alone and needs a certain one, or any but a certain one (get, a
  conditional write that was not applied);
- a *set* writes, whatever the value is (put, delete);
- a *move* writes if the value is a certain one (a conditional write that was applied, or may be).

A configuration is (value, usable, owed): the pending sets and moves that may still take effect,
and the pending operations that must still be placed before they complete. These rules hold:

1. A check that the value satisfies is placed at once: that costs nothing and can only help.
2. An operation with unknown outcome is usable for ever and never owed. Unknown checks are dropped.
3. Where a set is placed, all pending sets could stand invisibly just before it: they are owed no
   longer, but stay usable until they complete. So which of them are placed there is not a choice.
4. (v, usable, owed) makes (v, usable', owed') superfluous if usable contains usable' and owed is
   contained in owed': it can do all that the other can, by leaving more undone.
5. Within a sequence, a set or a move that is not owed is tried only if it ends the sequence, or
   something that is owed comes of it: an owed check is satisfied, or a move is enabled that is owed
   or of which something comes in turn. Any other is followed by a set; leave it out, and it is
   usable still, by rule 3 not owed afterwards, and by rule 4 nothing is lost.
6. Of usable operations with the same effect the one that completes first is taken: whoever used
   another one can exchange the two.
7. Values that nothing looks at any more are one value, `UNSEEN`. A value is looked at by the checks
   and moves that name it; after the last one of them has completed (a move with unknown outcome
   never does) no operation can tell two such values apart: they fail every equality and pass every
   inequality alike, so a configuration with the one can do exactly what it can with the other.

   In particular, the unknown writes of values that were never read are all the same operation. They
   must not be left out altogether: a cas that answered "not applied" may owe that to just such a
   write (x is "1", a put of "2" has no answer, cas("1", "3") is not applied). Without any check of
   inequality leaving them out would be sound: up to the next write nothing that was acknowledged
   can stand in the value that they left, and that next write is a set, or a move from some other
   value, which cannot be. Rule 5 then never tries them.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import attrs

from tests.history.format import CAS, DELETE, GET, PUT, PUT_IF_ABSENT, Operation

VISITED_STATES_MAX = 250_000
"""Configurations that are looked at for one key. A history of unique values needs one to ten for
each operation, so there is room for 25,000 operations on one key; a hopeless search ends within
about ten seconds."""
COMPARED_MAX = 64
"""Configurations of equal value that a new one is compared with under rule 4. It bounds the work;
configurations beyond it are only compared for equality, which keeps more of them than needed."""

ABSENT = 0
UNSEEN = 1
"""Values are numbered; these two are not any value of the history."""
FOREVER = 1 << 60
"""The line at which an operation with unknown outcome completes."""

Configuration: TypeAlias = tuple[int, int, int]
"""Value, usable, owed; the last two are sets of bits."""


@attrs.frozen(kw_only=True)
class Violation:
    """No order exists, and this is the earliest completion at which none is left."""

    operation: Operation
    """Whose completion cannot be explained."""
    values: tuple[str | None, ...]
    """What the key may have held before, by all that had completed by then."""
    values_known: bool
    """False if the search that keeps every value apart was given up; then `values` is empty."""


@attrs.frozen(kw_only=True)
class Undecided:
    """The search was given up."""

    line: int
    """How far it had come."""
    visited: int


class _GivenUp(Exception):
    """More than `VISITED_STATES_MAX`."""


@attrs.define(kw_only=True, eq=False)
class _Step:
    """An operation as the search sees it. `bit` is set while it is pending."""

    operation: Operation
    completes: int
    is_check: bool = False
    is_inequality: bool = False
    needs: int | None = None
    """The value that a check or a move names; None for a set."""
    target: int = UNSEEN
    """What a set or a move writes."""
    bit: int = 0

    @property
    def is_set(self) -> bool:
        return self.needs is None

    def __lt__(self, other: _Step) -> bool:
        return (self.completes, self.operation.invoked) < (
            other.completes,
            other.operation.invoked,
        )


def search(
    operations: Iterable[Operation], *, visited_max: int = VISITED_STATES_MAX
) -> Violation | Undecided | None:
    """Return None if the operations of one key are linearizable.

    Pending operations are judged by what they answered in the end, so a violation may be reported
    earlier than its last cause stands in the file.
    """
    steps = list(operations)
    search = _Search(steps, merge=True, visited_max=visited_max)
    try:
        failed = search.run()
    except _GivenUp:
        return Undecided(line=search.line, visited=search.visited)
    if failed is None:
        return None
    # For people the values are kept apart, which rule 7 does not.
    telling = _Search(steps, merge=False, visited_max=visited_max)
    try:
        telling.run()
    except _GivenUp:
        return Violation(operation=failed, values=(), values_known=False)
    return Violation(operation=failed, values=telling.values(), values_known=True)


class _Antichain:
    """Configurations none of which makes another one superfluous (rule 4)."""

    def __init__(self) -> None:
        self._by_value: dict[int, list[tuple[int, int]]] = {}
        self._seen: set[Configuration] = set()

    def __iter__(self) -> Iterator[Configuration]:
        for value, rest in self._by_value.items():
            for usable, owed in rest:
                yield value, usable, owed

    def add(self, configuration: Configuration) -> bool:
        """Take it in, unless another one makes it superfluous. Returns whether it was new."""
        if configuration in self._seen:
            return False
        self._seen.add(configuration)
        value, usable, owed = configuration
        rest = self._by_value.setdefault(value, [])
        if any(not (usable & ~u or o & ~owed) for u, o in rest[:COMPARED_MAX]):
            return False
        if len(rest) <= COMPARED_MAX:
            rest[:] = [(u, o) for u, o in rest if u & ~usable or owed & ~o]
        rest.append((usable, owed))
        return True


def _remove(steps: dict[int, list[_Step]], place: int, step: _Step) -> None:
    steps[place].remove(step)
    if not steps[place]:
        del steps[place]


class _Search:
    def __init__(self, operations: Sequence[Operation], *, merge: bool, visited_max: int) -> None:
        self.line = 0
        self.visited = 0
        self._visited_max = visited_max
        self._numbers: dict[str | None, int] = {None: ABSENT}
        self._steps = self._compile(operations)
        self._expiring: dict[int, list[int]] = {}
        """Values of which nothing is left to look at them after a line."""
        self._expired: set[int] = set()
        if merge:
            self._plan_expiry()
        self._configurations: list[Configuration] = [(ABSENT, 0, 0)]
        self._bits_free: list[int] = []
        self._bits_count = 0
        self._sets: dict[int, list[_Step]] = {}
        """Pending sets by what they write, in the order of their completions."""
        self._moves: dict[int, list[_Step]] = {}
        """Pending moves by what they need, in the order of their completions."""
        self._moves_to: dict[int, list[_Step]] = {}
        """The same by what they write."""
        self._move_bits = 0
        self._set_bits = 0
        self._equality_bits: dict[int, int] = {}
        """Pending checks by the value they need."""
        self._inequality_bits: dict[int, int] = {}
        """Pending checks by the value they must not find."""
        self._inequalities = 0

    def run(self) -> Operation | None:
        """Return the operation whose completion no configuration survives, or None."""
        events = [(step.operation.invoked, step) for step in self._steps]
        events += [(step.completes, step) for step in self._steps if step.completes < FOREVER]
        events.sort(key=lambda event: event[0])
        for self.line, step in events:
            if self.line != step.completes:
                self._invoke(step)
                continue
            before = self._configurations
            self._complete(step)
            if not self._configurations:
                self._configurations = before
                return step.operation
            for value in self._expiring.get(self.line, ()):
                self._expire(value)
        return None

    def values(self) -> tuple[str | None, ...]:
        """Return what the key may hold, null first."""
        names = {number: value for value, number in self._numbers.items()}
        found = {names[value] for value, _, _ in self._configurations}
        return tuple(sorted(found, key=lambda name: (name is not None, name)))

    def _compile(self, operations: Sequence[Operation]) -> list[_Step]:
        steps = [self._step(each) for each in operations if not each.failed]
        return [step for step in steps if not (step.is_check and step.completes == FOREVER)]

    def _step(self, operation: Operation) -> _Step:
        arguments = operation.arguments
        known = operation.acknowledged
        step = _Step(
            operation=operation,
            completes=operation.completed if known and operation.completed else FOREVER,
        )
        if operation.kind == GET:
            step.is_check = True
            step.needs = self._number(operation.result)
            return step
        if operation.kind in (PUT, DELETE):
            step.target = self._number(arguments["value"] if operation.kind == PUT else None)
            return step
        assert operation.kind in (CAS, PUT_IF_ABSENT)
        step.needs = self._number(arguments["expected"] if operation.kind == CAS else None)
        step.target = self._number(arguments["value"])
        step.is_inequality = known and not operation.result
        step.is_check = step.is_inequality
        return step

    def _number(self, value: str | None) -> int:
        return self._numbers.setdefault(value, len(self._numbers) + UNSEEN)

    def _plan_expiry(self) -> None:
        last_look: dict[int, int] = {}
        for step in self._steps:
            if step.needs is not None:
                last_look[step.needs] = max(step.completes, last_look.get(step.needs, 0))
        for value in self._numbers.values():
            if value == ABSENT:
                continue
            if value not in last_look:
                self._expired.add(value)
            else:
                self._expiring.setdefault(last_look[value], []).append(value)

    # The events ----------------------------------------------------------------------------------

    def _invoke(self, step: _Step) -> None:
        if not self._bits_free:
            self._bits_free.append(1 << self._bits_count)
            self._bits_count += 1
        bit = step.bit = self._bits_free.pop()
        usable = 0 if step.is_check else bit
        owed = bit if step.completes < FOREVER else 0
        if step.is_inequality:
            assert step.needs is not None
            self._inequality_bits[step.needs] = self._inequality_bits.get(step.needs, 0) | bit
            self._inequalities |= bit
        elif step.is_check:
            assert step.needs is not None
            self._equality_bits[step.needs] = self._equality_bits.get(step.needs, 0) | bit
        else:
            step.target = self._current(step.target)
            if step.needs is None:
                insort(self._sets.setdefault(step.target, []), step)
                self._set_bits |= bit
            else:
                insort(self._moves.setdefault(step.needs, []), step)
                insort(self._moves_to.setdefault(step.target, []), step)
                self._move_bits |= bit
        self._configurations = [
            (value, before | usable, self._still_owed(value, due | owed))
            for value, before, due in self._configurations
        ]

    def _complete(self, step: _Step) -> None:
        self._configurations = list(self._place(step))
        bit = step.bit
        self._bits_free.append(bit)
        if step.is_check:
            assert step.needs is not None
            masks = self._inequality_bits if step.is_inequality else self._equality_bits
            masks[step.needs] &= ~bit
            if not masks[step.needs]:
                del masks[step.needs]
            self._inequalities &= ~bit
        elif step.needs is None:
            _remove(self._sets, step.target, step)
            self._set_bits &= ~bit
        else:
            _remove(self._moves, step.needs, step)
            _remove(self._moves_to, step.target, step)
            self._move_bits &= ~bit

    def _expire(self, value: int) -> None:
        self._expired.add(value)
        unknown_moved = False
        for step in self._sets.pop(value, ()):
            step.target = UNSEEN
            unknown_moved |= step.completes == FOREVER
            insort(self._sets.setdefault(UNSEEN, []), step)
        found = _Antichain()
        for held, usable, owed in self._configurations:
            if unknown_moved:
                usable = self._last_unseen(usable)
            found.add((UNSEEN if held == value else held, usable, owed))
        self._configurations = list(found)

    def _last_unseen(self, usable: int) -> int:
        # Only the number of usable ones among equal operations matters. Rule 6 takes them from the
        # front, so that the ones that are left are the last ones.
        bits = [step.bit for step in self._sets[UNSEEN] if step.completes == FOREVER]
        used = sum(1 for bit in bits if not usable & bit)
        for place, bit in enumerate(bits):
            usable = usable | bit if place >= used else usable & ~bit
        return usable

    # The search ----------------------------------------------------------------------------------

    def _place(self, goal: _Step) -> _Antichain:
        """Return all configurations in which `goal` has been placed."""
        placed, seen = _Antichain(), _Antichain()
        bit = goal.bit
        frontier = []
        for configuration in self._configurations:
            _, usable, owed = configuration
            if not owed & bit:
                placed.add((configuration[0], usable & ~bit, owed))
            # A set that is owed no longer may still be wanted for what it writes.
            if owed & bit or (goal.is_set and usable & bit):
                seen.add(configuration)
                frontier.append(configuration)
            else:
                self._count()
        while frontier:
            following = []
            for configuration in frontier:
                self._count()
                for step, reached in self._successors(configuration, goal):
                    if step is goal or (goal.is_check and not reached[2] & bit):
                        placed.add(reached)
                    elif seen.add(reached):
                        following.append(reached)
            # Short sequences first: they leave more undone, so rule 4 drops the longer ones.
            frontier = following
        return placed

    def _successors(
        self, configuration: Configuration, goal: _Step
    ) -> Iterator[tuple[_Step, Configuration]]:
        value, usable, owed = configuration
        worthwhile = self._worthwhile(configuration)
        targets = set()
        for step in self._moves.get(value, ()):
            target = self._current(step.target)
            if not usable & step.bit or target in targets:
                continue
            if owed & step.bit or worthwhile is None or target in worthwhile:
                targets.add(target)
                due = self._still_owed(target, owed & ~step.bit)
                yield step, (target, usable & ~step.bit, due)
        if worthwhile is None:
            targets = set(self._sets)
        else:
            targets = worthwhile & self._sets.keys()
            if goal.is_set:
                targets.add(goal.target)
        for target in targets:
            for step in self._sets[target]:
                if usable & step.bit:
                    due = self._still_owed(target, owed & ~self._set_bits)
                    yield step, (target, usable & ~step.bit, due)
                    break

    def _worthwhile(self, configuration: Configuration) -> set[int] | None:
        """Return the values of which something owed comes (rule 5), None for all but this one."""
        value, usable, owed = configuration
        if owed & self._inequality_bits.get(value, 0):
            return None
        found = {target for target, bits in self._equality_bits.items() if owed & bits}
        if owed & self._move_bits:
            found.update(
                target
                for target, moves in self._moves.items()
                if any(owed & step.bit for step in moves)
            )
        backwards = list(found)
        while backwards:
            for step in self._moves_to.get(backwards.pop(), ()):
                if usable & step.bit and step.needs is not None and step.needs not in found:
                    found.add(step.needs)
                    backwards.append(step.needs)
        return found

    def _still_owed(self, value: int, owed: int) -> int:
        satisfied = self._inequalities & ~self._inequality_bits.get(value, 0)
        return owed & ~(satisfied | self._equality_bits.get(value, 0))

    def _current(self, value: int) -> int:
        return UNSEEN if value in self._expired else value

    def _count(self) -> None:
        self.visited += 1
        if self.visited > self._visited_max:
            raise _GivenUp
