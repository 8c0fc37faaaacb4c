"""Runs a coroutine in an event loop of its own, to its end whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


def run_to_end(work: Awaitable[None], limit: float) -> None:
    """Run the work in a new loop of this thread, then cancel whatever it left behind.

    The thread's current loop and its policy stay as they are.

    Raises:
        TimeoutError: It took longer than ``limit`` seconds.
    """
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_within(work, limit))
    finally:
        try:
            loop.run_until_complete(_cancel_others())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()


async def _within(work: Awaitable[None], limit: float) -> None:
    try:
        async with asyncio.timeout(limit) as timeout:
            await work
    except TimeoutError:
        if timeout.expired():
            raise TimeoutError(f"not at its end after {limit:g} s") from None
        raise


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    # What refuses to be cancelled is left to the closing of the loop.
    await asyncio.wait(others, timeout=1.0) if others else None
