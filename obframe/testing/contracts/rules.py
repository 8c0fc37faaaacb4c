"""What a rule of a contract is: a test that says in words what was broken."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import pytest

from obframe.testing.running import run_to_end

_Given = ParamSpec("_Given")
_MARK = "__obframe_rule__"


class Contract:
    """What the contracts of all kinds share.

    Attributes:
        patience: Seconds to wait for what must happen.
        quiet: Seconds to wait for what must not happen.
        limit: Seconds that one rule may take altogether.
    """

    patience = 5.0
    quiet = 0.2
    limit = 60.0


_Self = TypeVar("_Self", bound=Contract)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a contract.

    Attributes:
        name: The test's name.
        words: The rule in words.
        source: Where it is laid down, such as ``Storage.append``.
        needs: The flags without which it is skipped.
    """

    name: str
    words: str
    source: str
    needs: tuple[str, ...]

    def __str__(self) -> str:
        return f"the rule: {self.words}\nlaid down by obframe.{self.source}"


def rule(
    source: Callable[..., Any], *needs: str
) -> Callable[
    [Callable[Concatenate[_Self, _Given], Awaitable[None] | None]],
    Callable[Concatenate[_Self, _Given], None],
]:
    """Make a test of a contract, sync or async, a rule: what fails in it says the rule.

    Args:
        source: The protocol's member, or the protocol, that lays it down.
        needs: Names of the contract's flags without which the rule is skipped.
    """

    def decorate(
        test: Callable[Concatenate[_Self, _Given], Awaitable[None] | None],
    ) -> Callable[Concatenate[_Self, _Given], None]:
        words = " ".join((inspect.getdoc(test) or "").split("\n\n")[0].split())
        about = Rule(test.__name__, words, source.__qualname__, needs)

        @functools.wraps(test)
        def check(self: _Self, /, *args: _Given.args, **kwargs: _Given.kwargs) -> None:
            __tracebackhide__ = True
            for flag in needs:
                if not getattr(self, flag):
                    pytest.skip(f"{flag} is not set by {type(self).__name__}")
            try:
                outcome = test(self, *args, **kwargs)
                if outcome is not None:
                    run_to_end(outcome, self.limit)
            except (Exception, pytest.fail.Exception) as error:
                error.add_note(str(about))
                raise

        setattr(check, _MARK, about)
        return check

    return decorate


def rules_of(contract: type[Contract]) -> list[Rule]:
    """Return the rules of a contract, in the order they are written."""
    members: dict[str, object] = {}
    for base in reversed(contract.__mro__):
        members.update(vars(base))
    return [getattr(member, _MARK) for member in members.values() if hasattr(member, _MARK)]
