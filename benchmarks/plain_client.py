"""The plainest client of a venue: reads every depth message of some symbols as JSON, keeps nothing.

``python benchmarks/plain_client.py URL SYMBOL ...`` prints a line once it is connected, and reads
until the venue closes or it is ended. What it takes is what the machine asks for its wake-ups.
"""

from __future__ import annotations

import argparse
import asyncio
import json

from websockets.asyncio.client import connect


async def read(url: str, symbols: list[str]) -> None:
    """Read until the venue closes."""
    streams = "/".join(f"{symbol.lower()}@depth@100ms" for symbol in symbols)
    async with connect(f"{url}/stream?streams={streams}", compression=None) as socket:
        print("connected", flush=True)
        async for message in socket:
            json.loads(message)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="where the venue's streams are, such as ws://127.0.0.1:8000")
    parser.add_argument("symbols", nargs="+", metavar="SYMBOL")
    chosen = parser.parse_args()
    asyncio.run(read(chosen.url, chosen.symbols))
