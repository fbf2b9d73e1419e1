"""Connections: links to the other servers, and the one listener for servers and clients.

In reading order:

| module | what it is |
|---|---|
| `inputs` | what the network tells the node, and the inbox that carries it |
| `connection` | frames over one stream: a reader, a writer, a bounded outbox |
| `dialling` | from HOST:PORT to a stream whose other end has said who it is |
| `secured_stream`, `secured` | the same with TLS, and with certificates that say who it is |
| `links` | the outbound connection to one member, kept up |
| `listener`, `complaints` | inbound connections, of servers and of clients; of those refused |
| `contacts` | a few requests to a server that need not be a member |
| `redis_framing`, `redis_actions` | the Redis protocol: its bytes, and what a command may ask for |
| `redis_plans`, `redis_scan`, `redis_cursors` | commands on keys; going through all keys |
| `redis_transactions`, `redis_sessions` | several at once, or each exactly once |
| `redis_answers`, `redis_cluster` | about the connection, the server and the cluster |
| `redis_catalogue`, `redis_unsupported` | what there is, and what to use for what there is not |
| `redis_commands` | what each command asks: the quickest way for the usual ones |
| `redis_auth`, `redis_doorstep`, `redis_secured` | who may come in: by password or certificate |
| `accepting`, `redis_connection`, `redis_listener` | its clients, in one set of sockets |
| `network` | all of it behind one object with a synchronous face |

The rule of this package: what comes from the other side of a connection can end that connection
and nothing else. Any other exception is a bug and takes the process down.
"""
