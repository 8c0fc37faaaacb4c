"""The plainest client of a venue: reads every depth message of some symbols as JSON, keeps nothing.

``python benchmarks/plain_client.py URL SYMBOL ...`` prints a line once it is connected, and reads
until it is ended. What it takes is what the machine asks for its wake-ups.
"""

from __future__ import annotations

import asyncio
import json
import sys

from websockets.asyncio.client import connect


async def read(url: str, symbols: list[str]) -> None:
    """Read until the venue closes."""
    streams = "/".join(f"{symbol.lower()}@depth@100ms" for symbol in symbols)
    async with connect(f"{url}/stream?streams={streams}", compression=None) as socket:
        print("connected", flush=True)
        async for message in socket:
            json.loads(message)


if __name__ == "__main__":
    asyncio.run(read(sys.argv[1], sys.argv[2:]))
