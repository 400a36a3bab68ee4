"""Waiting for what no event tells."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], limit: float = 30.0) -> None:
    """Wait until something is so; `limit` in seconds only bounds a failure, for a machine may be busy."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < limit, f"not so within {limit} s: {condition}"
        time.sleep(0.01)
