"""Names of files by symbol and period, and back: what a template says."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

Rotation = Literal["hour", "day"]

_LENGTH: Final = {"hour": 3600, "day": 86_400}
_TEXT: Final = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d"}
_LONGEST: Final = 180
_FIELD = re.compile(r"\{([^{}]*)\}")


def check_template(template: str) -> None:
    """Raise unless files of different periods get different names.

    Raises:
        ValueError: The template names no file, lacks ``{period}`` or has another field.
    """
    if not template or "\0" in template or template.endswith("/"):
        raise ValueError(f"path must name a file, got {template!r}")
    fields = _FIELD.findall(template)
    if wrong := [field for field in fields if field not in ("period", "symbol")]:
        raise ValueError(f"path has the field {{{wrong[0]}}}; there are {{period}} and {{symbol}}")
    if re.search(r"[{}]", _FIELD.sub("", template)):
        raise ValueError(f"path has a single brace: {template!r}")
    if "period" not in fields:
        raise ValueError(f"path needs {{period}}, such as 'rows/{{period}}', got {template!r}")


class PathTemplate:
    """Gives each row the name of its file, without extension.

    Args:
        template: A path with the fields ``{period}`` and, if each symbol is to have files of its
            own, ``{symbol}``.
        rotation: How long a period is.
    """

    def __init__(self, template: str, rotation: Rotation) -> None:
        check_template(template)
        self._template = str(Path(template).expanduser())
        self._rotation = rotation
        self._length = _LENGTH[rotation]
        self._has_symbol = "{symbol}" in template
        self._pattern = re.compile(self._make_pattern())

    @property
    def directory(self) -> Path:
        """The directory that holds all files, at any depth."""
        fixed = self._template.partition("{")[0]
        return Path(fixed if fixed.endswith("/") else Path(fixed).parent)

    def _make_pattern(self) -> str:
        patterns = {"period": r"\d{4}-\d\d-\d\d(?:T\d\d)?", "symbol": r"[^/]+?"}
        pattern, seen = "", set()
        for index, part in enumerate(_FIELD.split(self._template)):
            if index % 2 == 0:
                pattern += re.escape(part)
            elif part in seen:
                pattern += f"(?P={part})"
            else:
                pattern += f"(?P<{part}>{patterns[part]})"
                seen.add(part)
        return pattern

    def period(self, second: int) -> int:
        """Return the first second of a second's period."""
        return second - second % self._length

    def stem(self, symbol: str, second: int) -> str:
        """Return the path of a row's file, without number and extension."""
        start = datetime.fromtimestamp(self.period(second), UTC)
        stem = self._template.replace("{period}", start.strftime(_TEXT[self._rotation]))
        return stem.replace("{symbol}", encode_symbol(symbol)) if self._has_symbol else stem

    def read_period(self, stem: str) -> int | None:
        """Return the first second of a file's period; None when it is none of ours."""
        match = self._pattern.fullmatch(stem)
        if match is None:
            return None
        try:
            start = datetime.fromisoformat(
                match["period"] + ("" if "T" in match["period"] else "T00")
            )
        except ValueError:
            return None
        return int(start.replace(tzinfo=UTC).timestamp())


def encode_symbol(symbol: str) -> str:
    """Return a symbol as part of a file's name; two symbols never have the same."""
    encoded = quote(symbol, safe="").replace("~", "%7E")
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    if len(encoded) > _LONGEST:
        digest = hashlib.sha256(symbol.encode()).hexdigest()[:16]
        encoded = f"{encoded[:_LONGEST]}~{digest}"
    return encoded
