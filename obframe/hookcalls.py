"""Calls a plugin's implementation of a hook; tells of it where ``OBFRAME_TRACE_HOOKS`` asks."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import pluggy

TRACE_VARIABLE = "OBFRAME_TRACE_HOOKS"

_ARGUMENT_WIDTH = 100
_RESULT_WIDTH = 200


def is_traced(environ: Mapping[str, str]) -> bool:
    """Tell whether every call of a hook is to be told on standard error."""
    return environ.get(TRACE_VARIABLE, "") not in ("", "0")


def call_hook(
    hook: str,
    implementation: pluggy.HookImpl,
    arguments: Mapping[str, Any] | None = None,
    *,
    trace: bool = False,
) -> Any:
    """Call one implementation with those of the arguments that it takes.

    Args:
        hook: Name of the hook.
        implementation: One plugin's.
        arguments: The hook's, by name; None for none.
        trace: Print a line to standard error when the call is over: hook and arguments, plugin,
            what came of it, how long it took.

    Raises:
        BaseException: Whatever the implementation raises.
    """
    given = {name: (arguments or {})[name] for name in implementation.argnames}
    if not trace:
        return implementation.function(*given.values())
    outcome = "did not end"
    begun = time.perf_counter_ns()
    try:
        result = implementation.function(*given.values())
        outcome = f"returned {_show(result, _RESULT_WIDTH)}"
        return result
    except BaseException as error:
        outcome = f"raised {type(error).__name__}: {_shorten(str(error), _RESULT_WIDTH)}"
        raise
    finally:
        took = (time.perf_counter_ns() - begun) / 1e6
        told = ", ".join(f"{name}={_show(one, _ARGUMENT_WIDTH)}" for name, one in given.items())
        plugin = implementation.plugin_name
        line = f"obframe: hook {hook}({told}) of plugin {plugin!r} {outcome} in {took:.3f} ms"
        sys.stderr.write(line + "\n")  # at once: observers of several plugins tell side by side


def _show(value: object, width: int) -> str:
    try:
        return _shorten(repr(value), width)
    except Exception as error:  # a repr is the plugin's code too
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


def _shorten(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
