"""Makes limits of the product small for one run, so that their edges are met by chance."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def small_limits(limits: Sequence[tuple[str, int]]) -> Iterator[None]:
    """Set `module.NAME` to a value for each of `limits`, and back when the block ends."""
    before = []
    for path, value in limits:
        module_name, _, name = path.rpartition(".")
        module = importlib.import_module(module_name)
        before.append((module, name, getattr(module, name)))
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
