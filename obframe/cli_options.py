"""Options that several commands share."""

from __future__ import annotations

from typing import Literal

FormatName = Literal["table", "json", "jsonl", "csv"]
SummaryFormatName = Literal["table", "json", "jsonl"]
