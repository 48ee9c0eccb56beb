"""What an adoption changed, what it left alone, what to look at."""

from __future__ import annotations

import textwrap
from typing import Any, List, NamedTuple, Optional, Tuple

WIDTH = 79


class RefusedError(ValueError):
    """A design that cannot take another backbone; the message says why."""


class Change(NamedTuple):
    """One setting of the config: its key, before and after, the reason."""

    key: str
    old: Any
    new: Any
    why: str


class Report:
    """Collects the changes of an adoption; ``print(report)`` shows them.

    Attributes:
        title: what was done, in a line.
        changes: every changed setting, in the order of the rules.
        left: what a user might expect to change and did not, with the
            reason.
        look: what the user should decide: schedule, batch size, ...
        check: result of the training step and the prediction, when made.
    """

    def __init__(self) -> None:
        self.title = ''
        self.changes: List[Change] = []
        self.left: List[Tuple[str, str]] = []
        self.look: List[str] = []
        self.check: Optional[Any] = None

    def __str__(self) -> str:
        parts = [self.title, 'Changed:']
        parts += [_change(change) for change in self.changes]
        if self.left:
            parts.append('Left alone:')
            parts += [_bullet(f'{what}: {why}') for what, why in self.left]
        if self.look:
            parts.append('Look at:')
            parts += [_bullet(line) for line in self.look]
        if self.check is not None:
            parts += ['Checked:', _bullet(str(self.check))]
        return '\n'.join(parts)


def _bullet(text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent='- ',
        subsequent_indent='  ',
        break_long_words=False,
        break_on_hyphens=False,
    )


def _change(change: Change) -> str:
    old, new = short(change.old), short(change.new)
    return _bullet(f'{change.key}: {old} -> {new}. {change.why}')


def short(value: Any, limit: int = 60) -> str:
    """Show a value in at most ``limit`` characters."""
    if isinstance(value, dict) and 'type' in value:
        return f'{value["type"]}'
    text = repr(value)
    return text if len(text) <= limit else f'{text[: limit - 3]}...'
