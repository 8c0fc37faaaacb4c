"""The sinks of ours that need no server keep the contract; the others have files of their own."""

from __future__ import annotations

from obframe_plugins._contracts_files import CsvContract, JsonLinesContract


class TestJsonLines(JsonLinesContract):
    pass


class TestSmallFiles(JsonLinesContract):
    max_bytes = 20_000


class TestSmallPackedFilesOfEachSymbol(JsonLinesContract):
    template = "{symbol}/{period}"
    max_bytes = 20_000
    compression = "gzip"


class TestCsv(CsvContract):
    pass
