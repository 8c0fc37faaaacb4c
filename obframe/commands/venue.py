"""The command that serves a venue on this machine: exchange."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from typing import Any

import msgspec

from obframe.commands.output import Format, say, write
from obframe.errors import ConfigError, Problem
from obframe.testing.exchange import FAULTS, ExchangeOptions, serve

_FIRST_NAMES = {"kraken": "BTC/USD", "coinbase": "BTC-USD"}
_WITH_REST = ("coinbase",)
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
        asyncio.run(serve(options, on_ready=lambda rest, ws: _announce(options, output, rest, ws)))
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
