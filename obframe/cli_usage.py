"""Mistakes in usage, in words: where the library behind the options leaves out what was given."""

from __future__ import annotations

from typing import Final

import typer

_EXPECTED: Final = {
    "float_parsing": "a number",
    "greater_than_equal": "{ge:g} or more",
    "int_parsing": "an integer",
}
"""What each refusal of a value asks for, by its kind."""


def tell_usage(error: typer.TyperException) -> int:
    """Tell a mistake in usage on standard error; return the exit code."""
    # Typer hands on the words of the library that checks values, without the value.
    refusals = getattr(error.__cause__, "errors", None)
    if refusals is not None:
        refusal = refusals()[0]
        error.message = str(refusal["msg"]).removeprefix("Value error, ")
        if refusal["type"] in _EXPECTED:
            expected = _EXPECTED[refusal["type"]].format(**refusal.get("ctx", {}))
            error.message = f"expected {expected}, got {refusal['input']!r}"
    error.show()  # type: ignore[attr-defined]  # all that Typer raises have it
    return error.exit_code
