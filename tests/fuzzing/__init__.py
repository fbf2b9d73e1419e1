"""Byte streams that no client would send, at every listener of a server.

In reading order:

| module | what it is |
|---|---|
| `streams` | what is sent: garbage, requests with any arguments, and those damaged |
| `attack` | sends it over many connections, and sees that others are served meanwhile |
| `bed` | a real server, its listeners, and what it takes of memory |
| `run` | one protocol after the other, and what has to hold after each |
| `__main__` | `python -m tests.fuzzing`: a long run that prints its figures |

What has to hold, whatever comes: the process goes on, in the same term; a client that behaves is
answered all the time; and when those that do not behave have gone, so has what they took of memory.
"""
