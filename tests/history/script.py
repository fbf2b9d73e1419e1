"""Hand-made histories, written as one would tell them.

Each line of a script is an event; op numbers are the names of the operations:

    1 put x 1           op 1 is invoked: kind, key, arguments
    1 ok                and acknowledged; a get with its value (`null`), a cas with true or false
    2 get x
    2 ok 1
    3 cas x 1 2
    3 unknown           or fail
    final log t1 t2     the tokens of an append key

`put x 1 -> ok` in place of an invocation and a completion is an operation without any overlap.
"""

from __future__ import annotations

from typing import Any

from tests.history.format import ARGUMENTS, CAS, COMPLETIONS, GET, OK, PUT_IF_ABSENT

Event = dict[str, Any]
ANSWERS = {"true": True, "false": False}


def history(script: str) -> list[Event]:
    """Return the events of a script."""
    events: list[Event] = []
    kinds: dict[int, str] = {}
    for line in script.strip().splitlines():
        words = line.split()
        time_us = len(events)
        if words[0] == "final":
            value = " ".join(words[2:])
            events.append({"type": "final", "key": words[1], "value": value, "time_us": time_us})
        elif "->" in words:
            number = 1000 + len(events)
            arrow = words.index("->")
            events.append(_invocation(number, words[:arrow], time_us))
            events.append(_completion(number, words[0], words[arrow + 1 :], time_us + 1))
        elif words[1] in ARGUMENTS:
            number = int(words[0])
            kinds[number] = words[1]
            events.append(_invocation(number, words[1:], time_us))
        else:
            number = int(words[0])
            events.append(_completion(number, kinds[number], words[1:], time_us))
    return events


def _invocation(number: int, words: list[str], time_us: int) -> Event:
    kind, key, *arguments = words
    names = ARGUMENTS[kind]
    return {
        "type": "invoke",
        "op": number,
        "client": f"c{number}",
        "time_us": time_us,
        "kind": kind,
        "key": key,
        **dict(zip(names, arguments, strict=True)),
    }


def _completion(number: int, kind: str, words: list[str], time_us: int) -> Event:
    outcome, *results = words if words[0] in COMPLETIONS else [OK, *words]
    event: Event = {"type": outcome, "op": number, "time_us": time_us}
    if outcome == OK and kind == GET:
        event["value"] = None if results == ["null"] else results[0]
    elif outcome == OK and kind in (CAS, PUT_IF_ABSENT):
        event["applied"] = ANSWERS[results[0]]
    return event
