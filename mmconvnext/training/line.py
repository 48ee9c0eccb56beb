"""One line about work that takes a while.

On a terminal it moves in place. In a file or a pipe, where nothing can move,
plain lines are printed, five for all of the work.
"""

from __future__ import annotations

import time
from typing import Any, Optional

PARTS = 5  # plain lines at most


def duration(seconds: float) -> str:
    """Write seconds as people read them.

    >>> duration(75), duration(4000)
    ('1:15', '1:06:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours}:{minutes:02d}:{rest:02d}'
    return f'{minutes}:{rest:02d}'


class Line:
    """A line with a bar, the words of the work, and the time left.

    Args:
        total: number of steps.
        start: steps done before, by an earlier run.
    """

    def __init__(self, total: int, start: int = 0) -> None:
        self.total, self.start = max(total, 1), start
        self._began = time.monotonic()
        self._paused: float = 0.0
        self._part = start * PARTS // self.total
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Line:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        console = Console()
        if console.is_terminal and not console.is_dumb_terminal:
            self._bar = Progress(
                BarColumn(24),
                TextColumn('{task.description}', markup=False),
                console=console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task('starting', total=self.total)
            self._bar.update(self._task, completed=self.start)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar:
            self._bar.stop()

    def pause(self, seconds: float) -> None:
        """Leave a time out of the estimate: of validation, for example."""
        self._paused += seconds

    def left(self, done: int) -> float:
        """Estimate the seconds that are left after ``done`` steps."""
        passed = time.monotonic() - self._began - self._paused
        steps = max(done - self.start, 1)
        return passed / steps * (self.total - done)

    def step(self, done: int, words: str) -> None:
        """Say how far the work is.

        Args:
            done: steps so far, those of an earlier run included.
            words: about the last one.
        """
        text = f'{words}  {duration(self.left(done))} left'
        if self._bar:
            self._bar.update(self._task, completed=done, description=text)
            return
        part = done * PARTS // self.total
        if part > self._part:
            self._part = part
            print(text, flush=True)

    def busy(self, words: str) -> None:
        """Show words that last only until the next step; terminals only."""
        if self._bar:
            self._bar.update(self._task, description=words)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        # rich puts it above the bar, for the bar has replaced sys.stdout
        print(text, flush=True)


def percent(value: Optional[float]) -> str:
    """Write a share as percent; a dash where it has no meaning."""
    return '-' if value is None or value != value else f'{100 * value:.1f}'
