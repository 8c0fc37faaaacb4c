"""The command that serves a venue on this machine: exchange."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import ssl
from typing import Any, TypeAlias

import msgspec

from obframe.commands.output import Format, say, write
from obframe.errors import ConfigError, Problem
from obframe.testing.exchange import (
    FAULTS,
    CoinbaseExchange,
    Exchange,
    ExchangeOptions,
    KrakenExchange,
    make_exchange,
    serve,
)

AnyExchange: TypeAlias = Exchange | KrakenExchange | CoinbaseExchange

_WITH_REST = ("binance", "coinbase")
_MENDS = {
    errno.EADDRINUSE: "give another --port, or 0 for a free one",
    errno.EACCES: "give a --port above 1023, or 0 for a free one",
}
"""What to do when an address cannot be listened on."""


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
        asyncio.run(_serve(options, output))
    except ValueError as error:
        lines = (line.removeprefix("exchange ") for line in str(error).splitlines())
        problems = [Problem("exchange", "", line) for line in lines]
        raise ConfigError(problems) from error
    except OSError as error:
        raise ConfigError([Problem("exchange", "", _describe(error, values))]) from error
    return 0


def _describe(error: OSError, values: dict[str, Any]) -> str:
    """Say what the system refused, and the mend."""
    if isinstance(error, ssl.SSLError):
        mend = "give a PEM file that holds both"
        return f"tls = {str(values['tls'])!r}: no certificate with its key ({error}); {mend}"
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}; choose another place"
    code = error.errno or 0
    # Asyncio's own text names the address once more; that of a name without address is its own.
    reason = os.strerror(code) if code > 0 else error.strerror
    mend = _MENDS.get(code, "give a --host of this machine, such as 127.0.0.1")
    return f"cannot listen on {values['host']}:{values['port']}: {reason}; {mend}"


async def _serve(options: ExchangeOptions, output: Format) -> None:
    venue = make_exchange(options)

    def announce(rest_url: str, ws_url: str) -> None:
        run = _lead(options, venue, rest_url, ws_url)
        _announce(options, output, {"rest_url": rest_url, "ws_url": ws_url}, run)

    await serve(options, on_ready=announce, venue=venue)


def _lead(options: ExchangeOptions, venue: AnyExchange, rest_url: str, ws_url: str) -> list[str]:
    """Return the options of ``obframe run`` that have it record all of the venue."""
    name, symbols = options.venue, list(venue.source.listings)
    settings = {"rest_url": rest_url, "ws_url": ws_url}
    plugins = "rocksdb"
    if name != "binance":
        symbols = [f"{name}/{symbol}" for symbol in symbols]
        plugins = f"rocksdb,{name}"
        if name not in _WITH_REST:
            del settings["rest_url"]
    elif isinstance(venue, Exchange) and venue.market.name != "spot":
        settings = {"market": venue.market.name, **settings}
    sets = [part for key in settings for part in ("--set", f"{name}.{key}={settings[key]}")]
    return ["--plugins", plugins, "--symbols", ",".join(symbols), *sets]


def _announce(
    options: ExchangeOptions, output: Format, urls: dict[str, str], run: list[str]
) -> None:
    if output is Format.CSV:
        say(",".join(urls) + "\n" + ",".join(urls.values()))
        return
    if output is not Format.TABLE:
        # A line of its own: scripts make a setting of each key of the first.
        say(b"\n".join(map(msgspec.json.encode, (urls, {"run": run}))).decode())
        return
    what = "captures" if options.captures else f"a simulation, seed {options.seed}"
    if options.venue == "binance":
        where = f"venue on {urls['rest_url']} (REST) and {urls['ws_url']} (streams)"
    else:
        where = f"{options.venue} on {urls['ws_url']}"
    say(
        f"{where}, serving {what}\n"
        "record it from another terminal:\n"
        f"  obframe run {shlex.join(run)}\n"
        "Ctrl-C ends it."
    )
