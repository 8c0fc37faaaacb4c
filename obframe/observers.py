"""Calls plugins' observers, each plugin's in a thread of its own, in order, behind a bounded queue.

An observer that raises, blocks or never returns holds up neither the recorder nor another plugin.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

logger = logging.getLogger("obframe.observers")

QUEUE: Final = 10_000
"""Calls held for each plugin; past it the oldest are dropped."""
TIMEOUT: Final = 5.0
"""Seconds after which a call that has not returned is named."""


class _Observer:
    """One plugin's observers."""

    def __init__(self, plugin: str, errors: Counter[tuple[str, str]]) -> None:
        self.plugin = plugin
        self.counters: Counter[str] = Counter()
        self._errors = errors
        self._calls: deque[tuple[str, Callable[[], object]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._calling: tuple[str, float] | None = None
        self._named = False
        self._thread = threading.Thread(target=self._work, name=f"observer-{plugin}", daemon=True)
        self._thread.start()

    def put(self, hook: str, call: Callable[[], object]) -> None:
        self._watch()
        with self._changed:
            if len(self._calls) >= QUEUE:
                gone, _ = self._calls.popleft()
                if not self.counters["dropped"]:
                    logger.error(
                        "plugin %r: its observers are too slow; the oldest calls are dropped, "
                        "first one of %s", self.plugin, gone,
                    )  # fmt: skip
                self.counters["dropped"] += 1
            self._calls.append((hook, call))
            self._changed.notify()

    def _watch(self) -> None:
        calling = self._calling
        if calling is None or self._named:
            return
        hook, since = calling
        lasting = time.monotonic() - since
        if lasting > TIMEOUT:
            self._named = True
            self.counters["stuck"] += 1
            logger.error(
                "plugin %r: its observer %s has not returned for %.0f s; nobody else waits for it",
                self.plugin, hook, lasting,
            )  # fmt: skip

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._calls:
                    if self._closing:
                        return
                    self._changed.wait()
                hook, call = self._calls.popleft()
                self._calling = hook, time.monotonic()
            try:
                call()
            except BaseException:
                self._errors[self.plugin, hook] += 1
                self.counters["errors"] += 1
                logger.exception(
                    "plugin %r: its observer %s raised; it is passed over", self.plugin, hook
                )
            finally:
                self._calling, self._named = None, False

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()

    def join(self, timeout: float) -> bool:
        self._thread.join(timeout)
        if not self._thread.is_alive():
            return True
        calling = self._calling
        logger.error(
            "plugin %r: its observer %s has not returned at the end; %d calls after it are dropped",
            self.plugin, calling[0] if calling else "", len(self._calls),
        )  # fmt: skip
        self.counters["dropped"] += len(self._calls)
        return False


class Observers:
    """The observers of one run.

    Attributes:
        errors: How often an observer raised, by plugin and hook.
    """

    def __init__(self) -> None:
        self.errors: Counter[tuple[str, str]] = Counter()
        self._observers: dict[str, _Observer] = {}

    def call(self, plugin: str, hook: str, call: Callable[[], object]) -> None:
        """Have an observer called in its plugin's thread. Never blocks, never raises."""
        observer = self._observers.get(plugin)
        if observer is None:
            observer = self._observers[plugin] = _Observer(plugin, self.errors)
        observer.put(hook, call)

    def counters(self) -> dict[str, int]:
        """Return ``errors``, ``dropped`` and ``stuck`` calls, as ``observer.PLUGIN.errors``."""
        return {
            f"observer.{name}.{what}": count
            for name, observer in self._observers.items()
            for what, count in observer.counters.copy().items()
        }

    def close(self, timeout: float) -> list[str]:
        """Let every call that was put in be made, for so long. Blocks.

        Returns:
            The plugins whose observers have not ended by then.
        """
        deadline = time.monotonic() + timeout
        observers = list(self._observers.values())
        for observer in observers:
            observer.close()
        return [
            observer.plugin
            for observer in observers
            if not observer.join(max(deadline - time.monotonic(), 0.0))
        ]
