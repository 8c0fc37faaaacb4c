"""The command that serves a venue on this machine: exchange."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from obframe.commands.output import Format, say, write
from obframe.errors import ConfigError, Problem
from obframe.testing.exchange import FAULTS, ExchangeOptions, serve

_FIRST_NAMES = {"kraken": "BTC/USD", "coinbase": "BTC-USD"}
_WITH_REST = ("coinbase",)


def list_faults(output: Format) -> int:
    """Print every fault that can be asked for."""
    write(
        output,
        FAULTS.items(),
        columns=("fault", "what happens"),
        cells=lambda item: item,
        value=lambda item: {"fault": item[0], "help": item[1]},
        title="faults, as in --fault drop@100",
    )
    return 0


def exchange(values: dict[str, Any], output: Format) -> int:
    """Serve the venue until a signal, or with ``at_end="exit"`` until the captures' end.

    Raises:
        ConfigError: The options do not make a venue.
    """
    try:
        options = ExchangeOptions(**values)
        asyncio.run(serve(options, on_ready=lambda rest, ws: _announce(options, output, rest, ws)))
    except ValueError as error:
        lines = (line.removeprefix("exchange ") for line in str(error).splitlines())
        problems = [Problem("exchange", "", line) for line in lines]
        raise ConfigError(problems) from error
    except OSError as error:
        reason = f"cannot listen on {values['host']}:{values['port']}: {error.strerror}"
        raise ConfigError([Problem("exchange", "", reason)]) from error
    return 0


def _announce(options: ExchangeOptions, output: Format, rest_url: str, ws_url: str) -> None:
    urls = {"rest_url": rest_url, "ws_url": ws_url}
    if output is Format.CSV:
        say(",".join(urls) + "\n" + ",".join(urls.values()))
        return
    if output is not Format.TABLE:
        say(msgspec.json.encode(urls).decode())
        return
    if options.venue != "binance":
        venue, names = options.venue, options.symbols
        if isinstance(names, int):
            names = (_FIRST_NAMES[venue],)
        wanted = ",".join(f"{venue}/{name}" for name in names)
        rest = f" --set {venue}.rest_url={rest_url}" if venue in _WITH_REST else ""
        say(
            f"{venue} on {ws_url}, serving a simulation, seed {options.seed}\n"
            "record it from another terminal:\n"
            f"  obframe run --plugins rocksdb,{venue} --symbols {wanted}{rest}"
            f" --set {venue}.ws_url={ws_url}\n"
            "Ctrl-C ends it."
        )
        return
    what = "captures" if options.captures else f"a simulation, seed {options.seed}"
    say(
        f"venue on {rest_url} (REST) and {ws_url} (streams), serving {what}\n"
        "record it from another terminal:\n"
        f"  obframe run --plugins rocksdb --set binance.rest_url={rest_url}"
        f" --set binance.ws_url={ws_url}\n"
        "Ctrl-C ends it."
    )
