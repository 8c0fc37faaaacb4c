"""The settings of the recorder, and what a settings dataclass is made of.

``obframe.config`` fills these and the plugins' own dataclasses from file, environment and command
line.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])", re.ASCII)


class Duration(float):
    """A length of time in seconds, written ``90``, ``"500ms"``, ``"12h"`` or ``"1h30m"``."""

    @classmethod
    def parse(cls, value: object) -> Duration:
        """Read a duration.

        Args:
            value: A number of seconds, or text: a number of seconds or parts with the units ms, s,
                m, h, d, w.

        Raises:
            ValueError: It is neither, negative, or not finite.
        """
        if isinstance(value, str):
            seconds = _parse_duration(value.strip())
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value)
        else:
            raise ValueError(f"expected a duration such as 90, '12h' or '7d', got {value!r}")
        if not math.isfinite(seconds) or seconds < 0:
            raise ValueError(f"a duration must be 0 or more and finite, got {value!r}")
        return cls(seconds)

    def __str__(self) -> str:
        for unit in ("d", "h", "m", "s"):
            count = float(self) / _UNITS[unit]
            if count >= 1 and count.is_integer():
                return f"{int(count)}{unit}"
        return f"{float(self):g}s"


def _parse_duration(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        return float(text)
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"expected a duration such as 90, '12h' or '7d', got {text!r}")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


_BYTES = {"": 1} | {
    unit: base**power
    for power, prefix in enumerate("KMGT", 1)
    for unit, base in ((f"{prefix}B", 1000), (f"{prefix}iB", 1024))
}
_BYTES["B"] = 1
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)


class Size(int):
    """A number of bytes, written ``500000``, ``"50GB"`` or ``"1.5TiB"``."""

    @classmethod
    def parse(cls, value: object) -> Size:
        """Read a size.

        Args:
            value: A number of bytes, or text: a number and B, KB, MB, GB, TB, KiB, MiB, GiB, TiB.

        Raises:
            ValueError: It is neither, or negative.
        """
        if isinstance(value, str):
            match = _SIZE.fullmatch(value.strip())
            if match is not None and match[2] in _BYTES:
                return cls(float(match[1]) * _BYTES[match[2]])
        elif isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return cls(value)
        raise ValueError(f"expected a size such as 500000, '50GB' or '1.5TiB', got {value!r}")

    def __str__(self) -> str:
        for unit in ("TB", "GB", "MB", "KB"):
            if self and self % _BYTES[unit] == 0:
                return f"{self // _BYTES[unit]}{unit}"
        return str(int(self))


@dataclass(frozen=True, slots=True)
class RecorderSettings:
    """How the recorder samples, holds and stops. Times in seconds."""

    queue_rows: int = field(
        default=100_000,
        metadata={
            "help": "Rows held while storage cannot take them; past it rows become a gap `disk`."
        },
    )
    late_tolerance: float = field(
        default=0.5,
        metadata={"help": "A tick later than this into its second becomes a gap `stalled`."},
    )
    drain_timeout: float = field(
        default=10.0, metadata={"help": "How long an orderly stop may take to store what is held."}
    )
    summary_interval: float = field(
        default=60.0, metadata={"help": "Time between two summary lines in the log."}
    )
    sink_timeout: float = field(
        default=5.0, metadata={"help": "How long one call of a sink may take."}
    )
    sink_queue_rows: int = field(
        default=20_000,
        metadata={
            "help": "Rows held for each sink. Past it the oldest are dropped, or, for a sink with "
            "back-fill, read back from the storage later."
        },
    )
    sink_batch_rows: int = field(
        default=1000,
        metadata={"help": "Rows that one call hands to a sink that catches up; at least a second."},
    )
    sink_break_after: int = field(
        default=5,
        metadata={
            "help": "Failures in a row after which a sink is closed, left alone and opened anew."
        },
    )
    sink_backoff_max: float = field(
        default=60.0, metadata={"help": "Most time between two attempts at a sink that fails."}
    )
    sink_start: Literal["now", "oldest"] = field(
        default="now",
        metadata={
            "help": "Where a sink with back-fill begins that has no position yet: with what comes, "
            "or with the oldest stored row."
        },
    )
    state: str = field(
        default="",
        metadata={
            "help": "Directory of the sinks' delivery positions; empty: beside the rows, in "
            "PATH.obframe/sinks of rocksdb. A storage that has no such place keeps them only here."
        },
    )
    event_loop: Literal["auto", "asyncio", "uvloop"] = field(
        default="auto",
        metadata={"help": "What `obframe run` waits with; auto: uvloop when it is installed."},
    )

    def __post_init__(self) -> None:
        if self.event_loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
            raise ValueError(
                "event_loop is 'uvloop', which is not installed; "
                "pip install 'obframe[fast]', or use 'auto'"
            )
        _at_least(1, self, "queue_rows", "sink_queue_rows", "sink_batch_rows", "sink_break_after")
        _more_than_zero(
            self, "drain_timeout", "summary_interval", "sink_timeout", "sink_backoff_max"
        )
        if not 0 < self.late_tolerance < 1:
            raise ValueError(f"late_tolerance must lie between 0 and 1, got {self.late_tolerance}")


_MINUTE = Duration(60)
_WEEK = Duration(7 * 86400)
_LEAST_BYTES = 50_000_000


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """How long rows are kept, and how much disk they may take.

    Attributes:
        ages: ``overrides``, read: patterns with the age that each gives.
    """

    max_age: Duration = field(
        default=_WEEK,
        metadata={
            "help": "Rows, gaps and marks older than this are deleted; 0 keeps them for ever."
        },
    )
    max_bytes: Size = field(
        default=Size(0),
        metadata={
            "help": 'How much disk the storage may take, such as "50GB": the oldest rows of all '
            "symbols go before it is reached; 0: no limit."
        },
    )
    overrides: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": 'Other ages for some symbols, such as ["BTCUSDT=30d", "*BTC=1d"]; the first '
            "that fits counts, 0 keeps for ever. `max_bytes` spares these symbols to the last."
        },
    )
    interval: Duration = field(
        default=_MINUTE, metadata={"help": "Time between two passes of deletion."}
    )

    def __post_init__(self) -> None:
        _more_than_zero(self, "interval")
        if 0 < self.max_bytes < _LEAST_BYTES:
            raise ValueError(
                f"max_bytes must be 0 or at least {_LEAST_BYTES}, got {int(self.max_bytes)}: "
                f"logs and files in the making need some of it"
            )
        _ = self.ages

    @property
    def ages(self) -> list[tuple[str, Duration]]:
        found = []
        for text in self.overrides:
            pattern, equals, age = text.rpartition("=")
            if not (equals and pattern.strip()):
                raise ValueError(f"overrides: {text!r} is not of the form SYMBOL=AGE")
            try:
                found.append((pattern.strip(), Duration.parse(age)))
            except ValueError as error:
                raise ValueError(f"overrides: {text!r}: {error}") from None
        return found


def _at_least(least: int, settings: object, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < least:
            raise ValueError(f"{name} must be {least} or more, got {getattr(settings, name)}")


def _more_than_zero(settings: object, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be more than 0 and finite, got {value}")


CORE_SECTIONS: Mapping[str, type[Any]] = {
    "recorder": RecorderSettings,
    "retention": RetentionSettings,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one run.

    Attributes:
        recorder: Section ``recorder``.
        retention: Section ``retention``.
        providers: Each other section of the loaded plugins, an instance of its dataclass.
    """

    recorder: RecorderSettings
    retention: RetentionSettings
    providers: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FieldHelp:
    """One setting, as help and documentation show it."""

    name: str
    type: str
    default: str
    help: str


def describe(settings: type[Any]) -> list[FieldHelp]:
    """List the fields of a settings dataclass with type, default and help text."""
    hints = get_type_hints(settings, include_extras=True)
    return [
        FieldHelp(
            item.name,
            type_text(hints[item.name]),
            _default_text(item),
            item.metadata.get("help", ""),
        )
        for item in dataclasses.fields(settings)
    ]


def _default_text(item: dataclasses.Field[Any]) -> str:
    default = item.default
    if item.default_factory is not dataclasses.MISSING:
        default = item.default_factory()
    match default:
        case bool():
            return str(default).lower()
        case Duration():
            return f'"{default}"'
        case Size():
            return f'"{default}"' if default else "0"
        case tuple() | list() | frozenset():
            return "[" + ", ".join(f'"{each}"' for each in default) + "]"
        case int() | float():
            return str(default)
        case None:
            return ""
        case _:
            return f'"{default}"'


def type_text(annotation: Any) -> str:
    """Name the type of a setting for a person."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in arguments)
    if origin in (Union, UnionType):
        return " or ".join(type_text(each) for each in arguments if each is not type(None))
    if is_list(annotation):
        return "list of " + type_text(arguments[0]) if arguments else "list"
    names: dict[Any, str] = {str: "text", Path: "path", Duration: "duration", Size: "size"}
    names |= {int: "integer", float: "number", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def is_list(annotation: Any) -> bool:
    """Tell whether a setting of this type is a list, and so comma-separated as text."""
    origin = get_origin(annotation) or annotation
    if origin is Annotated:
        return is_list(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return any(is_list(each) for each in get_args(annotation))
    return origin in (tuple, list, set, frozenset)
