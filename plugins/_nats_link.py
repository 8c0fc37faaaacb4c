"""One connection to NATS: opened, checked against the stream that is wanted, given up as a whole.

A lost connection is not mended by the library: what it would send afterwards of its own could
come when nobody waits for it any more. The sink opens another and looks what is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from obframe import SinkError
from obframe_plugins._brokers import SYMBOL, hide

_HEADER = "Nats-Msg-Id"
_CLOCK_ALLOWANCE = 30
"""Seconds that a server's clock may be behind the recorder's."""
_READ_AT_ONCE = 1000
_NEVER = str(2**63)
"""A number that no stream comes to: a message that expects it is refused."""
_REFUSED = re.compile(r"wrong last sequence: (\d+)")
_SETTLING = 0.05
"""Seconds between two looks at whether a leader has stored what it took."""


def _split_user(url: str) -> tuple[str, dict[str, str]]:
    """Take user and password out of a URL: the library does not unquote them."""
    parts = urlsplit(url)
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if parts.username is None:
        return bare, {}
    if parts.password is None:
        return bare, {"token": unquote(parts.username)}
    return bare, {"user": unquote(parts.username), "password": unquote(parts.password)}


def token_of(symbol: str) -> str:
    """Return a symbol as one token of a subject; ``urllib.parse.unquote`` gives it back."""
    return quote(symbol, safe="/").replace(".", "%2E")


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach and to enter the servers; ``options`` are those of ``nats.connect``."""

    servers: tuple[str, ...]
    options: Mapping[str, Any]
    timeout: float
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """The stream that is wanted. Times in seconds, 0 is no limit."""

    name: str
    subject: str
    create: bool
    replication: int
    max_age: float
    max_bytes: int
    max_rows_per_symbol: int
    duplicate_window: float

    def subject_of(self, symbol: str) -> str:
        """Return the subject of a symbol's rows."""
        return self.subject.replace(SYMBOL, token_of(symbol))

    @property
    def subjects(self) -> str:
        """The subjects of all symbols: a wildcard stands for a whole token only."""
        return ".".join("*" if SYMBOL in token else token for token in self.subject.split("."))


@dataclass(slots=True)
class Link:
    """An open connection with a checked stream."""

    client: Any
    jetstream: Any
    plan: StreamPlan
    timeout: float
    created: object = None  # when the stream was made
    is_readable: bool = True  # a queue's messages go to its consumers, and not to us
    pending: list[asyncio.Future[Any]] = field(default_factory=list)
    trouble: str = ""

    @classmethod
    async def open(cls, access: Access, plan: StreamPlan) -> Link:
        """Connect to the first server that answers, in random order, and check the stream.

        Raises:
            SinkError: No server can be reached, or the stream is not as it must be.
        """
        from nats.aio.client import Client  # noqa: PLC0415
        from nats.errors import Error  # noqa: PLC0415

        troubles = []
        for server in random.sample(access.servers, len(access.servers)):
            url, user = _split_user(server)
            link = cls(Client(), None, plan, access.timeout)
            connecting = link.client.connect(
                [url],
                name="obframe",
                allow_reconnect=False,
                max_reconnect_attempts=1,  # without it the library never gives up
                reconnect_time_wait=0,
                connect_timeout=access.timeout,
                error_cb=link._note,
                closed_cb=link._end,
                **{**access.options, **user},
            )
            try:
                await asyncio.wait_for(connecting, access.timeout)
            except (OSError, TimeoutError, Error) as error:
                told = link.trouble or str(error) or f"no answer within {access.timeout:g} s"
                troubles.append(hide(f"{server}: {told}", access.secrets))
                await link.close()
                continue
            except BaseException:
                await link.close()
                raise
            link.jetstream = link.client.jetstream(
                timeout=access.timeout, publish_async_max_pending=1 << 20
            )
            try:
                await link._check()
            except BaseException:
                await link.close()
                raise
            return link
        told = "; ".join(troubles)
        raise SinkError(f"nats: no server can be used: {told}; check nats.servers and the user")

    async def _note(self, error: Exception) -> None:
        self.trouble = str(error).removeprefix("nats: ") or type(error).__name__
        # The library raises a refusal here that belongs to one of the rows, and does not say which.
        if type(error).__module__ == "nats.js.errors":
            self._fail(error)

    async def _end(self) -> None:
        told = self.trouble or "closed by the server"
        self._fail(ConnectionError(f"the connection was lost: {told}"))

    def _fail(self, error: Exception) -> None:
        for future in self.pending:
            if not future.done():
                future.set_exception(error)

    async def close(self) -> None:
        """Close it for good; never raises, never takes long."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.client.close(), self.timeout)
        for future in self.pending:
            future.cancel()
            if not future.cancelled():
                future.exception()  # seen

    # -- the stream ------------------------------------------------------------------------------

    async def _check(self) -> None:
        from nats.js.errors import NotFoundError  # noqa: PLC0415

        plan = self.plan
        try:
            info = await self.jetstream.stream_info(plan.name)
        except NotFoundError:
            info = await self._create()
        config, self.created = info.config, info.created
        window = float(config.duplicate_window or 0)
        if window < plan.duplicate_window:
            raise SinkError(
                f"nats: the stream {plan.name} knows message ids for {window:g} s, "
                f"{plan.duplicate_window:g} s are wanted; set its duplicate window higher "
                f"(nats stream edit {plan.name} --dupe-window), or nats.duplicate_window lower"
            )
        self.is_readable = str(getattr(config.retention, "value", config.retention)) == "limits"

    async def _create(self) -> Any:
        from nats.js.api import DiscardPolicy, StorageType, StreamConfig  # noqa: PLC0415

        plan = self.plan
        if not plan.create:
            raise SinkError(
                f"nats: there is no stream {plan.name}; make it for the subjects {plan.subjects}, "
                "or set nats.create to true"
            )
        wanted = StreamConfig(
            name=plan.name,
            description="order-book rows of obframe",
            subjects=[plan.subjects],
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
            num_replicas=plan.replication,
            max_age=plan.max_age,
            max_bytes=plan.max_bytes or -1,
            max_msgs_per_subject=plan.max_rows_per_symbol or -1,
            duplicate_window=plan.duplicate_window,
            allow_direct=True,
        )
        return await self.jetstream.add_stream(wanted)

    # -- rows ------------------------------------------------------------------------------------

    async def publish(self, messages: Sequence[tuple[str, str, bytes]]) -> int:
        """Publish messages of (subject, id, payload); return when each is acknowledged.

        Returns:
            How many the stream had already.
        """
        self.pending = pending = []
        for subject, message_id, payload in messages:
            headers = {_HEADER: message_id}
            pending.append(
                await self.jetstream.publish_async(
                    subject, payload, stream=self.plan.name, headers=headers
                )
            )
        done, waiting = await asyncio.wait(
            pending, timeout=self.timeout, return_when=asyncio.FIRST_EXCEPTION
        )
        for future in done:
            if (error := future.exception()) is not None:
                raise error
        duplicates = sum(bool(future.result().duplicate) for future in done)
        if waiting:
            raise SinkError(
                f"nats: {len(waiting)} of {len(pending)} rows were not acknowledged within "
                f"{self.timeout:g} s; see nats.timeout, and whether the stream has a leader"
            )
        self.pending = []
        return duplicates

    async def read_ids(
        self, since: int, after: int | None, sample: tuple[str, bytes]
    ) -> AsyncIterator[tuple[int, str]]:
        """Yield place and id of each message that may be of a row from this second on.

        What was sent before, on whatever connection, is stored or refused by then, and none of it
        is left out. A row is stored after its second, so what the server stored before is passed
        over. A stream that is a queue yields nothing.

        Args:
            since: The second.
            after: The place to go on after, where reading was broken off.
            sample: Subject and payload of a row, for ``_ask_end``.

        Raises:
            SinkError: It takes too long for one call.
        """
        from nats.errors import TimeoutError as NatsTimeout  # noqa: PLC0415

        if not self.is_readable:
            return
        deadline = time.monotonic() + self.timeout
        await self._settle(sample, deadline)
        last = await self._find_last()
        start = datetime.datetime.fromtimestamp(since - _CLOCK_ALLOWANCE, datetime.UTC)
        place = after or 0
        if last is None or last.seq <= place or last.time < start:
            return
        consumer = await self._subscribe(start, after)
        try:
            left = (await consumer.consumer_info()).num_pending or 0
            # The consumer lives on any of the stream's servers. One that has been away lags behind
            # the leader, and has no more to give for the moment although there is more.
            while place < last.seq:
                if (seconds := deadline - time.monotonic()) <= 0:
                    what = f"{left} more message ids" if left else "message ids that a server lacks"
                    raise SinkError(
                        f"nats: {what} of the stream {self.plan.name} are to be "
                        "read back before rows can be sent; it goes on with the next call "
                        "(to give it more time: nats.timeout and recorder.sink_timeout)"
                    )
                with contextlib.suppress(NatsTimeout):
                    count = min(max(left, 1), _READ_AT_ONCE)
                    for message in await consumer.fetch(count, timeout=seconds):
                        left = message.metadata.num_pending
                        place = message.metadata.sequence.stream
                        yield place, (message.headers or {}).get(_HEADER, "")
        finally:
            with contextlib.suppress(Exception):
                await consumer.unsubscribe()

    async def _settle(self, sample: tuple[str, bytes], deadline: float) -> None:
        """Wait until the stream has stored what it was sent before, or refused it.

        A leader that its peers do not answer holds rows that count for nothing yet, and stores
        them when the peers are back, be that long after their connection is gone and their ids
        are forgotten. Looked through in between, the stream seems not to have them.
        """
        wanted = await self._ask_end(sample)
        while (await self.jetstream.stream_info(self.plan.name)).state.last_seq < wanted:
            if time.monotonic() >= deadline:
                raise SinkError(
                    "nats: rows that were sent before are still under way in the stream "
                    f"{self.plan.name}, and others are sent when that is over; see whether enough "
                    "of its servers are up, and if they are, have another one lead it "
                    f"(nats stream cluster step-down {self.plan.name})"
                )
            await asyncio.sleep(_SETTLING)
            # It falls when rows are refused, or lost with their leader; it grows by new ones only.
            wanted = min(wanted, await self._ask_end(sample))

    async def _ask_end(self, sample: tuple[str, bytes]) -> int:
        """Return the place of the last message when all is stored that the leader has taken.

        No request tells that. It is told to who sends a message that expects another place to be
        the last one, and is refused. The stream does not keep that message; subscribers who do
        without a stream get it, so it is a row like any other.
        """
        from nats.js.errors import APIError  # noqa: PLC0415

        subject, payload = sample
        headers = {"Nats-Expected-Last-Sequence": _NEVER}
        try:
            await self.jetstream.publish(subject, payload, stream=self.plan.name, headers=headers)
        except APIError as error:
            if told := _REFUSED.search(error.description or ""):
                return int(told[1])
            raise
        raise SinkError(
            f"nats: the stream {self.plan.name} keeps a message that expects another to be its "
            "last; update nats-server"
        )

    async def _find_last(self) -> Any:
        """Return the last message of our subjects, as the leader knows it; None without any."""
        from nats.js.errors import NotFoundError  # noqa: PLC0415

        try:
            return await self.jetstream.get_last_msg(self.plan.name, self.plan.subjects)
        except NotFoundError:
            return None

    async def _subscribe(self, start: datetime.datetime, after: int | None) -> Any:
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy  # noqa: PLC0415

        wanted = ConsumerConfig(
            ack_policy=AckPolicy.NONE,
            filter_subject=self.plan.subjects,
            headers_only=True,
            mem_storage=True,
            num_replicas=1,
            inactive_threshold=30,
        )
        if after is None:
            wanted.deliver_policy = DeliverPolicy.BY_START_TIME
            wanted.opt_start_time = start
        else:
            wanted.deliver_policy = DeliverPolicy.BY_START_SEQUENCE
            wanted.opt_start_seq = after + 1
        return await self.jetstream.pull_subscribe(
            self.plan.subjects, stream=self.plan.name, config=wanted
        )
