"""raftd: a Raft daemon whose cluster can be changed while it works."""

__version__ = "0.1.0"
