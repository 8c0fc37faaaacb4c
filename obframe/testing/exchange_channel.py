"""A depth stream on its way to the clients, and what faults make of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from obframe.testing import exchange_mangle as mangle
from obframe.testing.exchange_faults import Fault, FaultPlan, Scope
from obframe.testing.exchange_market import Depth, Event
from obframe.testing.exchange_socket import Connection, frame

_NEVER = float("inf")


def wrap(name: str, data: bytes, combined: bool) -> bytes:
    """Return the message as a connection wants it."""
    return b'{"stream":"' + name.encode() + b'","data":' + data + b"}" if combined else data


class Hub(Protocol):
    """What a channel needs of its venue."""

    faults: FaultPlan

    def audience(self, name: str) -> Iterable[Connection]:
        """Return the connections that are subscribed to a stream."""
        ...

    def depth(self, symbol: str) -> Depth:
        """Return the whole true book of a symbol."""
        ...

    def halt(self, symbol: str, until: float) -> None:
        """Have ``exchangeInfo`` tell of a halt until then (monotonic seconds)."""
        ...

    def shut_down(self, seconds: float) -> None:
        """Announce the end on every connection, and close them all after that."""
        ...

    def touch(self, connection: Connection) -> None:
        """Have the connection flushed soon."""
        ...

    def note(self, fault: Fault, where: str) -> None:
        """Note that a fault struck, and where."""
        ...

    def count_message(self) -> None:
        """Note one more message to one client."""
        ...


class Channel:
    """All depth streams of one symbol that carry the same events.

    Args:
        hub: The venue.
        symbol: Whose.
        names: The streams' full names.
        seconds: Between events: 0 for every event, else they are merged.
        futures: Whether merged events carry ``pu``.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        hub: Hub,
        symbol: str,
        names: tuple[str, ...],
        *,
        seconds: float,
        futures: bool,
        clock: Callable[[], float],
    ) -> None:
        self.names = names
        self._hub = hub
        self._symbol = symbol
        self._seconds = seconds
        self._futures = futures
        self._clock = clock
        self._key = names[0]
        self._gathered: list[Event] = []
        self._window = -1.0
        self._quiet_until = 0.0
        self._held: list[bytes] | None = None
        self._late: list[tuple[str, bytes]] = []
        self._phantom = ("", _NEVER)
        self._emptied = ("", _NEVER)

    def publish(self, event: Event) -> None:
        """Send an event to whoever is subscribed, or keep it for the next merged one."""
        if not self._seconds:
            self._deliver(event)
            return
        if not any(self._hub.audience(name) for name in self.names):
            self._gathered.clear()
            return
        window = self._clock() // self._seconds
        self._gathered.append(event)
        if window != self._window:
            # With the event that opens the window, so that what goes out is the book as it is now.
            merged, self._gathered = mangle.merge(self._gathered, self._futures), []
            self._window = window
            self._deliver(merged)

    def _deliver(self, event: Event) -> None:
        audience = [
            (connection, name) for name in self.names for connection in self._hub.audience(name)
        ]
        if not audience:
            return
        struck = self._hub.faults.due(Scope.MESSAGE, self._key, event.symbol)
        links = self._hub.faults.due(Scope.CONNECTION, self._key, event.symbol)
        where = f"{self._key} u={event.last}"
        for fault, first in (*struck, *links):
            if first or fault.name != "slices":
                self._hub.note(fault, where)
        messages = self._mangle(event, [fault for fault, _ in struck])
        self._send(event, audience, messages, [fault for fault, _ in links])

    def _mangle(self, event: Event, faults: list[Fault]) -> list[tuple[str, bytes]]:
        """Return what to send: ``("data" | "cut" | "raw", bytes)``."""
        now = self._clock()
        data = self._heal(event.data, now)
        how, copies, before = "data", 1, list[tuple[str, bytes]]()
        reordered = False
        for fault in faults:
            match fault.name:
                case "drop":
                    copies = 0
                case "dup":
                    copies = 2
                case "reorder":
                    reordered = True
                case "garbage":
                    before.append(("raw", b"<garbage, not JSON \xe2\x9c\x82>"))
                    copies = copies if fault.text("mode") == "before" else 0
                case "truncate":
                    how = "cut"
                case "nan":
                    data = mangle.break_number(data, fault)
                case "badid":
                    data = mangle.break_id(data, fault)
                case "dup-level":
                    data = mangle.repeat_level(data)
                case "crossed":
                    data, price = mangle.cross(data, self._hub.depth(self._symbol))
                    self._phantom = (price, now + (fault.number("seconds") or _NEVER))
                case "empty":
                    side = fault.text("side")
                    data = mangle.delete_all(data, side, self._hub.depth(self._symbol))
                    self._emptied = (side, now + (fault.number("seconds") or _NEVER))
                case "silence":
                    self._quiet_until = now + fault.number("seconds")
                    self._held = [] if fault.text("mode") == "hold" else None
                case "halt":
                    self._quiet_until = now + (fault.number("seconds") or _NEVER)
                    self._held = None
                    self._hub.halt(self._symbol, self._quiet_until)
        if now < self._quiet_until:
            if self._held is not None:
                self._held.append(data)
            return []
        messages = [("data", held) for held in self._held or ()]
        self._held = None
        messages += before + [(how, data)] * copies
        if reordered:
            late, self._late = self._late, messages
            return late
        messages += self._late
        self._late = []
        return messages

    def _heal(self, data: bytes, now: float) -> bytes:
        side, until = self._emptied
        if side:
            if now < until:
                data = mangle.withhold(data, side)
            else:
                data = mangle.restore(data, side, self._hub.depth(self._symbol))
                self._emptied = ("", _NEVER)
        price, until = self._phantom
        if price and now >= until:
            data = mangle.withdraw(data, price, self._hub.depth(self._symbol))
            self._phantom = ("", _NEVER)
        return data

    def _send(
        self,
        event: Event,
        audience: list[tuple[Connection, str]],
        messages: list[tuple[str, bytes]],
        faults: list[Fault],
    ) -> None:
        frames: dict[tuple[str, bool], list[bytes]] = {}
        slice_size = 0
        before: list[tuple[str, bytes]] = []
        named = {fault.name: fault for fault in faults}
        if "slices" in named:
            slice_size = int(named["slices"].number("size"))
        if "unknown-event" in named:
            before.append(("data", mangle.unknown_event(event)))
        if "stray" in named:
            before.append(("data", mangle.stray(event.data)))
        if "big" in named:
            size = int(named["big"].number("size"))
            before.append(("data", mangle.unknown_event(event, size)))
        for connection, name in audience:
            if "black-hole" in named:
                connection.flush()
                connection.hole = True
            elif "abort" in named:
                connection.reset()
            if connection.hole or connection.closing:
                continue
            key = (name, connection.subscriptions.combined)
            built = frames.get(key)
            if built is None:
                built = frames[key] = [_build(message, *key) for message in before + messages]
            for data in built:
                connection.send(data, slice_size)
                self._hub.count_message()
            self._hub.touch(connection)
            if "close" in named:
                connection.drop(1001, "Going away")
        if "shutdown" in named:
            self._hub.shut_down(named["shutdown"].number("seconds"))


def _build(message: tuple[str, bytes], name: str, combined: bool) -> bytes:
    how, data = message
    if how != "raw":
        data = wrap(name, data, combined)
    return frame(data[: len(data) // 2] if how == "cut" else data)


def now_ms() -> int:
    """Return the wall clock in milliseconds."""
    return time.time_ns() // 1_000_000
