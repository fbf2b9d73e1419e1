"""Histories of what clients did and were told, and the judges of such histories.

    python -m tests.history FILE...

judges files; `Recorder` (recorder.py) writes them, `check` (checker.py) judges them in memory.

The format
==========
JSON lines: UTF-8, one event in each line, no empty lines. **The order of the lines is the order in
real time**, and the only one that is judged; `time_us` (microseconds of any clock) is for people.
An event may carry further fields, which are ignored.

```
{"type":"invoke","op":7,"client":"c1","time_us":123,"kind":"put","key":"x","value":"1"}
{"type":"ok","op":7,"time_us":456}
{"type":"fail","op":8,"time_us":460,"error":"not-leader"}
{"type":"unknown","op":9,"time_us":470,"error":"timed out"}
{"type":"final","key":"log","value":"t1 t2 t3","time_us":999}
```

| type      | meaning |
|-----------|---------|
| `invoke`  | the client is about to send operation `op`, a whole number that is used once |
| `ok`      | it was acknowledged, with the results below |
| `fail`    | it certainly had no effect, and never will |
| `unknown` | it may take effect once, at any time after its invocation, or never |
| `final`   | the value of an append key or a counter after everything has come to rest; null if it
is absent |

An operation without a completion is judged as `unknown` is. A line may be written a little earlier
than the sending of the request and a little later than the arrival of the answer, never the other
way round: intervals that are too long hide a violation, intervals that are too short invent one.

| kind            | fields of `invoke`  | fields of `ok` |
|-----------------|---------------------|----------------|
| `get`           |                     | `value`: string, or null if the key is absent |
| `put`           | `value`             | |
| `put-if-absent` | `value`             | `applied`: true exactly if the key was absent |
| `delete`        |                     | (absent or not, the key is absent afterwards) |
| `cas`           | `expected`, `value` | `applied`: true exactly if the key held `expected` |
| `append`        | `token`             | |
| `increment`     |                     | `number`: what the counter was afterwards |

Keys and values are strings. Every key is absent at the beginning. The values written to a key
need not be unique, but they should be: such a history says more, and is decided quickly at any
length. With few values, dozens of concurrent operations on one key and thousands of events, the
search may reach its bound.

What is judged
==============
**Linearizability**, of every key that has no appends: there is an order of its operations, one in
which each stands somewhere between its invocation and its completion, such that a register that
executes them one after the other gives the same answers. Linearizability is local (Herlihy and
Wing 1990, theorem 1): the whole history is linearizable exactly if each key is.

**Exactly once**, of every key with appends. Clients compose an append of `token` (not empty,
without spaces, used once for a key) of a get and a cas; these parts are not recorded. Judged
against the `final` event, whose tokens are separated by single spaces: every acknowledged token
stands in it once, every unknown one at most once, no failed one, none that nobody appended, and if
one append was acknowledged before another was invoked then it stands before it. A key has either
appends or increments or register operations.

**Exactly once**, of every key with increments, each by one from an absent key. Judged against the
`final` event: it is at least the number of acknowledged increments and at most that and the unknown
ones; no number was answered twice; none is greater than as many as had been invoked by then, or
than the final one; and if one increment was acknowledged before another was invoked then its number
is smaller.

The verdict
===========
Per file one line, and below it a few lines for each problem. Exit code 0: every file is fine. 1: a
violation, or a key that could not be decided within the bound on the search. 2: a file that cannot
be read, that is not a history (`FILE: line 17: what is wrong`) or in which nothing is wrong but
that acknowledged appends or increments have no `final` event (INCOMPLETE); or the verdict cannot be
written.

Rooms: `format.py` events and operations, `recorder.py`, `linearizability.py` the search,
`explanation.py` violations for people, `exactly_once.py`, `counting.py`, `checker.py` all of it.
"""
