"""What a server tells by HTTP: its health, its measurements, and how the cluster is, live.

Read-only: there is no request that changes anything.

| module | what it is |
|---|---|
| `events` | the shape of the live events, for whoever shows them |
"""
