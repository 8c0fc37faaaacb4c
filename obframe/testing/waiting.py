"""Waiting for something to become true, with a deadline, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Let the event loop run until the condition holds.

    Raises:
        TimeoutError: It did not within ``timeout`` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    pause = 0.0
    while not condition():
        if loop.time() > deadline:
            raise TimeoutError(f"not true within {timeout} s")
        await asyncio.sleep(pause)
        pause = min(pause + 0.0005, 0.02)
