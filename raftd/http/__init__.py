"""What a server tells by HTTP: its health, its measurements, and how the cluster is, live.

Read-only: there is no request that changes anything.

| module | what it is |
|---|---|
| `serving` | HTTP on connections: what is answered, refused, bounded |
| `routes` | what each path answers |
| `health` | /livez and /readyz: check by check |
| `metrics` | /metrics, for Prometheus |
| `survey` | asks the other servers how they see the cluster |
| `feed` | the live events, for all who follow |
| `events` | their shape, for whoever shows them |
| `monitor` | all of it put together for one server |
"""
