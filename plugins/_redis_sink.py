"""Rows into streams: in one transaction, known by their ids when they come again."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from obframe import SinkError, Snapshot, snapshot_id
from obframe_plugins._brokers import ENCODERS, SYMBOL, hide

logger = logging.getLogger("obframe_plugins.redis")

_AT_ONCE = 500
"""Rows in one transaction: the server does nothing else for some milliseconds."""
_REFUSED_ID = "The ID specified in XADD"
_ANNOTATION = "of pipeline caused error: "
_QUOTED = re.compile(r"""\((["'])(.*)\1,?\)""", re.DOTALL)  # as it quotes what it annotates
_SMALLER_ID = "The ID specified in XSETID"
_TRIES = 3
_PATIENCE = 0.6
"""Share of the time-out that the server waits for disk or replicas: its answer takes time too."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a stream keeps at least; 0 is no limit."""

    length: int
    age: int

    def trim_on_add(self, second: int) -> tuple[object, ...]:
        """Return the arguments of XADD that trim: it takes one limit."""
        if self.age:
            return ("MINID", "~", second - self.age)
        return ("MAXLEN", "~", self.length) if self.length else ()

    def trims(self, key: str) -> Iterator[tuple[object, ...]]:
        """Yield the command for the other limit, where both are set."""
        if self.age and self.length:
            yield ("XTRIM", key, "MAXLEN", "~", self.length)


class Verdict(StrEnum):
    """What becomes of a row whose id does not lie above its stream's newest."""

    DUPLICATE = "duplicates"  # it is there
    CONFLICT = "conflicts"  # another row of this second is there, and stays
    EXPIRED = "expired"  # older than what the stream still keeps
    REMOVED = "removed"  # its place lies among what a consumer deleted
    LATE = "late"  # never delivered, and its place is passed


class Stream(NamedTuple):
    """A stream as XINFO tells it: ids as (milliseconds, sequence), our first part is seconds."""

    first: tuple[int, int] | None
    last: tuple[int, int]
    deleted: tuple[int, int]


def judge(
    second: int, found: bytes | None, message: bytes, stream: Stream, limits: Limits
) -> Verdict:
    """Say what becomes of a row that XADD refused.

    Args:
        second: The row's.
        found: The message under its id, empty when it has another format, None when there is none.
        message: The row's.
        stream: What else there is.
        limits: What the stream keeps.
    """
    if found is not None:
        return Verdict.DUPLICATE if found in (b"", message) else Verdict.CONFLICT
    place = (second, 0)
    is_trimmed = bool(limits.length or limits.age)
    if place <= stream.deleted:
        return Verdict.REMOVED
    if is_trimmed and (stream.first is None or place < stream.first):
        return Verdict.EXPIRED
    return Verdict.LATE


class _Row(NamedTuple):
    snapshot: Snapshot
    key: str
    message: bytes

    @property
    def id(self) -> str:
        return f"{self.snapshot.timestamp}-0"


class RedisSink:
    """Writes rows to the streams of their symbols.

    Args:
        client: A ``redis.asyncio.Redis`` that holds one connection.
        key: Template of a stream's key.
        format: Of the messages, and the name of the entries' one field.
        limits: What streams keep.
        fsync: Whether rows must be on the disk.
        replicas: How many replicas must have them.
        timeout: Seconds to wait for these.
        secrets: What no message may show.

    Attributes:
        counters: Rows by what became of them.
    """

    def __init__(
        self,
        client: Any,
        *,
        key: str,
        format: str,  # noqa: A002 - as the setting is called
        limits: Limits,
        fsync: bool,
        replicas: int,
        timeout: float,
        secrets: Sequence[str],
    ) -> None:
        self._client = client
        self._key = key
        self._field = format
        self._encode: Callable[[Snapshot], bytes] = ENCODERS[format]
        self._limits = limits
        self._fsync = fsync
        self._replicas = replicas
        self._timeout = timeout
        self._secrets = secrets
        self._is_checked = False
        self.counters: Counter[str] = Counter()

    async def write(self, snapshots: Sequence[Snapshot]) -> None:
        """Add rows to their streams; return when the server has them as safely as was asked for.

        Raises:
            SinkError: The server cannot be reached, or did not take every row.
        """
        try:
            if not self._is_checked:
                await self._check_server()
                self._is_checked = True
            for start in range(0, len(snapshots), _AT_ONCE):
                await self._write_some(snapshots[start : start + _AT_ONCE])
            if snapshots and (self._fsync or self._replicas):
                await self._confirm(self._key_of(snapshots[-1].symbol))
        except (OSError, TimeoutError) as error:
            raise self._failure(error) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "redis":
                raise
            raise self._failure(error) from error

    def _key_of(self, symbol: str) -> str:
        return self._key.replace(SYMBOL, symbol)

    # -- adding ----------------------------------------------------------------------------------

    async def _write_some(self, snapshots: Sequence[Snapshot]) -> None:
        rows = [_Row(each, self._key_of(each.symbol), self._encode(each)) for each in snapshots]
        # A transaction, so that no row is taken after one before it was not: the server judges its
        # memory, its disk and its role before the first.
        async with self._client.pipeline(transaction=True) as pipeline:
            for row in rows:
                trim = self._limits.trim_on_add(row.snapshot.timestamp)
                pipeline.execute_command("XADD", row.key, *trim, row.id, self._field, row.message)
            for key in dict.fromkeys(row.key for row in rows):
                for command in self._limits.trims(key):
                    pipeline.execute_command(*command)
            answers = await pipeline.execute(raise_on_error=False)
        refused = []
        for row, answer in zip(rows, answers, strict=False):
            if not isinstance(answer, Exception):
                self.counters["written"] += 1
            elif _REFUSED_ID in str(answer):
                refused.append(row)
            else:
                raise self._failure(answer, row.key) from answer
        for answer in answers[len(rows) :]:
            if isinstance(answer, Exception):
                raise self._failure(answer) from answer
        if refused:
            await self._settle(refused)

    async def _settle(self, rows: Sequence[_Row]) -> None:
        """Find out why ids were refused, and keep what has no place in its stream beside it."""
        streams = await self._look_up(dict.fromkeys(row.key for row in rows))
        async with self._client.pipeline(transaction=False) as pipeline:
            for row in rows:
                pipeline.execute_command("XRANGE", row.key, row.id, row.id)
            entries = await pipeline.execute()
        judged: dict[Verdict, list[_Row]] = {}
        for row, found in zip(rows, entries, strict=True):
            message = _message_in(found, self._field)
            second = row.snapshot.timestamp
            verdict = judge(second, message, row.message, streams[row.key], self._limits)
            judged.setdefault(verdict, []).append(row)
        late = judged.pop(Verdict.LATE, [])
        if late:
            async with self._client.pipeline(transaction=True) as pipeline:
                for row in late:
                    second = row.snapshot.timestamp
                    pipeline.execute_command("HSETNX", f"{row.key}:late", second, row.message)
                are_new = await pipeline.execute()
            new = [row for row, is_new in zip(late, are_new, strict=True) if is_new]
            old = [row for row, is_new in zip(late, are_new, strict=True) if not is_new]
            judged.setdefault(Verdict.DUPLICATE, []).extend(old)
            judged[Verdict.LATE] = new
        for verdict, those in judged.items():
            if those:
                self.counters[verdict] += len(those)
                self._tell(verdict, those)

    async def _look_up(self, keys: Iterable[str]) -> dict[str, Stream]:
        wanted = list(keys)
        async with self._client.pipeline(transaction=False) as pipeline:
            for key in wanted:
                pipeline.xinfo_stream(key)
            answers = await pipeline.execute()
        return {key: _read_info(info) for key, info in zip(wanted, answers, strict=True)}

    def _tell(self, verdict: Verdict, rows: Sequence[_Row]) -> None:
        which = snapshot_id(rows[0].snapshot)
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        match verdict:
            case Verdict.LATE:
                logger.warning(
                    "redis: %s%s came after a newer row of its stream, which takes rows in order "
                    "only; kept in the hash %s:late. Does another recorder write these streams?",
                    which, more, rows[0].key,
                )  # fmt: skip
            case Verdict.CONFLICT:
                logger.warning(
                    "redis: another row than %s%s stands under its id in %s and stays. "
                    "Does another recorder write these streams?", which, more, rows[0].key,
                )  # fmt: skip
            case _:
                logger.debug("redis: %s: %s%s", verdict, which, more)

    # -- safety ----------------------------------------------------------------------------------

    async def _confirm(self, key: str) -> None:
        """Wait until all that was written is on the disk, or on so many replicas."""
        milliseconds = int(self._timeout * 1000 * _PATIENCE)
        for _ in range(_TRIES):
            top = (await self._look_up([key]))[key].last
            # The server waits for the last write of this very connection. A row that was there
            # already wrote nothing, so one is made that changes nothing.
            async with self._client.pipeline(transaction=False) as pipeline:
                pipeline.execute_command("XSETID", key, f"{top[0]}-{top[1]}")
                if self._fsync:
                    pipeline.execute_command("WAITAOF", 1, self._replicas, milliseconds)
                else:
                    pipeline.execute_command("WAIT", self._replicas, milliseconds)
                set_id, reached = await pipeline.execute(raise_on_error=False)
            if _SMALLER_ID in str(set_id):
                continue  # another recorder was faster
            for answer in (set_id, reached):
                if isinstance(answer, Exception):
                    raise self._failure(answer, key) from answer
            on_disk, replicas = reached if self._fsync else (0, reached)
            if self._fsync and on_disk < 1:
                raise SinkError(
                    f"redis: the rows were not on the server's disk after {milliseconds} ms; "
                    "set appendfsync to always there, or redis.timeout higher"
                )
            if replicas < self._replicas:
                raise SinkError(
                    f"redis: {replicas} of {self._replicas} replicas had the rows after "
                    f"{milliseconds} ms; look at the replicas, or set redis.replicas lower"
                )
            return
        raise SinkError(f"redis: the stream {key} is written by others too fast to be confirmed")

    async def _check_server(self) -> None:
        """Warn of a server that forgets; it may well be wanted so."""
        try:
            info: Mapping[str, Any] = await self._client.info("everything")
        except Exception as error:
            if type(error).__name__ not in ("NoPermissionError", "ResponseError"):
                raise
            return
        if not info.get("aof_enabled") and not self._fsync:
            logger.warning(
                "redis: the server keeps no append-only file: rows that it took are gone when it "
                "dies, and do not come again; set appendonly and appendfsync always there"
            )
        policy = str(info.get("maxmemory_policy", ""))
        if info.get("maxmemory") and policy.startswith("allkeys"):
            logger.warning(
                "redis: the server drops whole streams when its memory is full (maxmemory-policy "
                "%s); use noeviction, and limit the streams with redis.max_length", policy,
            )  # fmt: skip

    def _failure(self, error: BaseException, key: str = "") -> SinkError:
        told = hide(error, self._secrets).rpartition(_ANNOTATION)[2]
        quoted = _QUOTED.fullmatch(told)
        text = (quoted[2] if quoted else told).rstrip(".") or type(error).__name__
        where = f"{key}: " if key else ""
        return SinkError(f"redis: {where}{text}{_mend(type(error).__name__, text)}")


_MENDS = (
    ("maxmemory", "raise maxmemory on the server, or lower redis.max_length"),
    ("ReadOnly", "redis.url must name the primary, not a replica"),
    ("WRONGTYPE", "another program uses this key; choose another redis.key"),
    ("MISCONF", "look at the server's log and disk"),
    ("Authentication", "check redis.username and redis.password"),
    ("NoPermission", "see the rights that docs/sinks-redis.md lists"),
    ("unknown command", "Redis 5 or newer has streams; redis.fsync wants 7.2 or Valkey"),
    ("WAITAOF cannot be used", "set appendonly yes on the server, or redis.fsync false"),
    ("Timeout", "see redis.timeout"),
    ("Connection", "check redis.url, and that the server runs"),
)


def _mend(kind: str, text: str) -> str:
    for sign, mend in _MENDS:
        if sign in text or sign in kind:
            return f"; {mend}"
    return ""


def _message_in(entries: Any, field: str) -> bytes | None:
    """Return what XRANGE found under one id: the message, empty when it is of another format."""
    if not entries:
        return None
    _, values = entries[0]
    if not isinstance(values, Mapping):
        values = dict(zip(values[::2], values[1::2], strict=True))
    return bytes(values.get(field.encode(), b""))


def _read_info(info: Mapping[str, Any]) -> Stream:
    first = info.get("first-entry")
    return Stream(
        _read_id(first[0]) if first else None,
        _read_id(info["last-generated-id"]),
        _read_id(info.get("max-deleted-entry-id", b"0-0")),  # from Redis 7 on
    )


def _read_id(text: Any) -> tuple[int, int]:
    whole, _, sequence = (text.decode() if isinstance(text, bytes) else str(text)).partition("-")
    return int(whole), int(sequence or 0)
