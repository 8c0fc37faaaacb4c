"""What a plugin does besides its work: how long it holds the event loop, what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
import threading
import time
import traceback
from dataclasses import dataclass

from obframe.testing.waiting import until

_BEAT = 0.005
_LOOK = 0.01
_FRAMES = 3


@dataclass(frozen=True, slots=True)
class Stillness:
    """The longest time for which an event loop stood still, and what it was doing then."""

    seconds: float = 0.0
    where: str = ""


class LoopWatch:
    """Watches the running event loop from a thread; a context manager.

    Time counts only while the watching thread gets its turns: a busy machine holds up both, and is
    not taken for a loop that somebody blocks.

    Attributes:
        longest: The longest stillness so far.
    """

    def __init__(self) -> None:
        self.longest = Stillness()
        self._beats = 0
        self._done = threading.Event()
        self._watched = 0
        self._thread = threading.Thread(target=self._watch, name="loop-watch", daemon=True)

    def __enter__(self) -> LoopWatch:
        self._watched = threading.get_ident()
        self._loop = asyncio.get_running_loop()
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        self._timer.cancel()
        self._thread.join()

    def _beat(self) -> None:
        self._beats += 1
        self._timer = self._loop.call_later(_BEAT, self._beat)

    def _watch(self) -> None:
        seen, still, where = -1, 0.0, ""
        while not self._done.is_set():
            looked = time.monotonic()
            self._done.wait(_LOOK)
            if self._beats != seen:
                seen, still, where = self._beats, 0.0, ""
                continue
            # A look that took longer was held up itself.
            still += min(time.monotonic() - looked, 2 * _LOOK)
            where = where or self._describe()
            if still > self.longest.seconds:
                self.longest = Stillness(still, where)

    def _describe(self) -> str:
        frame = sys._current_frames().get(self._watched)
        stack = traceback.extract_stack(frame)[-_FRAMES:] if frame is not None else []
        return " < ".join(
            f"{os.path.basename(entry.filename)}:{entry.lineno} {entry.name}"
            for entry in reversed(stack)
        )


class Leftovers:
    """Remembers the tasks, threads and sockets of this moment, and tells which are new later.

    To be made in a running loop. Sockets are seen where the system lists them in ``/dev/fd``.
    """

    def __init__(self) -> None:
        self._tasks = asyncio.all_tasks()
        self._threads = set(threading.enumerate())
        self._sockets = _sockets()

    async def wait(self, patience: float) -> list[str]:
        """Return what is new, one line each, once nothing is or the time is up."""
        with contextlib.suppress(TimeoutError):
            await until(lambda: not self.describe(), patience)
        return self.describe()

    def describe(self) -> list[str]:
        """Return what is new, one line each."""
        tasks = asyncio.all_tasks() - self._tasks - {asyncio.current_task()}
        left = [f"a task that runs {_name(task)}" for task in tasks]
        for thread in set(threading.enumerate()) - self._threads:
            # The loop keeps the threads of asyncio.to_thread() for its next use.
            if not thread.name.startswith("asyncio_"):
                left.append(f"the thread {thread.name!r}")
        sockets = len(_sockets() - self._sockets)
        if sockets:
            left.append(f"{sockets} open socket{'s' if sockets > 1 else ''}")
        return sorted(left)


def _name(task: asyncio.Task[object]) -> str:
    work = task.get_coro()
    return getattr(work, "__qualname__", None) or repr(work)


def _sockets() -> set[int]:
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir("/dev/fd"):
            with contextlib.suppress(OSError, ValueError):
                about = os.fstat(int(name))
                if stat.S_ISSOCK(about.st_mode):
                    found.add(about.st_ino)
    return found
