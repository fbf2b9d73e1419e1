"""Cluster files for the tests of what is read from them."""

from __future__ import annotations

from pathlib import Path

CONFIGS = Path(__file__).parent.parent / "configs"
"""The files that are shipped."""


def with_default(key: str, value: str) -> str:
    """Return a cluster file whose defaults have one key."""
    return f"cluster: a\ndefaults: {{{key}: {value}}}\nservers: {{n1: {{address: 127.0.0.1:1}}}}\n"
