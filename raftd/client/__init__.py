"""The client of a cluster: finds the leader, outlives its servers, and writes exactly once.

| module | what it is |
|---|---|
| `errors` | what a call that did not succeed says: not applied, or unknown |
| `calls` | the rules, as steps without sockets, clock or randomness |
| `judging` | what requests and replies mean for them |
| `members`, `sessions`, `deadlines` | whom to ask; what makes writes happen once; when to give up |
| `conversation` | the bytes of one connection |
| `blocking` | the driver with plain sockets, which raftctl uses |
"""
