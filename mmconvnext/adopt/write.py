"""Write an adopted config: the host's as ``_base_``, and the differences."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from mmengine.config import Config

from ..files import write_text
from .hosts import base_name, public_name
from .report import Report

WIDTH = 79
DELETE = '_delete_'
NO_BASE = (
    'none, every setting is here: mmengine takes no config as a base that '
    'imports its types'
)
# Of a command in the header: its first line, the others.
INDENTS = (('    ', '        '), ('  ', '    '), (' ', ' '))


def write(
    cfg: Config,
    report: Report,
    host: Config,
    path: Path,
    command: Sequence[str] = (),
    whole: bool = False,
) -> None:
    """Write ``cfg`` to ``path`` so that it loads on its own.

    What is written is read again and compared before it gets its name.

    Args:
        cfg: the adopted config.
        report: of the adoption; its reasons become comments.
        host: the config that was adopted, as it was read.
        path: of the new file.
        command: for the header, what made the file, in parts that a line
            may break between.
        whole: write every setting instead of the differences. So is a
            config that imports its types: mmengine takes it as no base.

    Raises:
        ValueError: when the file would read back as another config.
    """
    if not whole:
        try:
            short = short_text(cfg, report, host, path)
            _write_tried(header(report, command) + short, cfg, path)
            return
        except RuntimeError:  # mmengine's, for such a base
            report.left.append(('_base_', NO_BASE))
    _write_tried(header(report, command) + cfg.pretty_text, cfg, path)


def _write_tried(text: str, cfg: Config, path: Path) -> None:
    """Write a file that reads back as ``cfg``, and no other."""
    # In the same folder: a relative _base_ has to be found from there.
    trial = path.with_name(f'_trial_{os.getpid()}_{path.name}')
    try:
        write_text(text, trial)
        differing = [*different(plain(Config.fromfile(trial)), plain(cfg), '')]
    finally:
        trial.unlink(missing_ok=True)
    if differing:
        raise ValueError(
            f'{path} is not written: it would read back with another '
            f'{", ".join(differing[:3])}'
        )
    write_text(text, path)


def header(report: Report, command: Sequence[str]) -> str:
    """Say what the file is, what made it and what to look at."""
    lines = [report.title]
    if command:
        lines += ['', 'Made by', *_shell(command)]
    if report.left:
        lines += ['', 'Left as the host has it:']
        lines += [f'- {what}: {why}' for what, why in report.left]
    if report.look:
        lines += ['', 'Look at:', *(f'- {line}' for line in report.look)]
    wrapped = [part for line in lines for part in _comment(line)]
    return '\n'.join(wrapped) + '\n'


def _shell(command: Sequence[str]) -> List[str]:
    """Indent a command, and break it between parts where a line gets long.

    Some names of the hosts nearly fill a line: the indentation is the widest
    that leaves them room.
    """
    longest = max(map(len, command)) + len('#  \\')
    fitting = [pair for pair in INDENTS if len(pair[1]) + longest <= WIDTH]
    first, then = fitting[0] if fitting else INDENTS[-1]
    lines = [f'{first}{command[0]}']
    for part in command[1:]:
        if len(f'# {lines[-1]} {part} \\') <= WIDTH:
            lines[-1] += f' {part}'
        else:
            lines[-1] += ' \\'
            lines.append(f'{then}{part}')
    return lines


def _comment(line: str, indent: int = 0) -> List[str]:
    """Turn a line into comment lines that fit."""
    start = f'{" " * indent}# '
    if line.startswith(' '):  # a command, broken by hand
        return [f'{start}{line}']
    hanging = '  ' if line.startswith('- ') else ''
    return textwrap.wrap(
        line,
        WIDTH,
        initial_indent=start,
        subsequent_indent=f'{start}{hanging}',
        break_long_words=False,
        break_on_hyphens=False,
    ) or [start.rstrip()]


def short_text(cfg: Config, report: Report, host: Config, path: Path) -> str:
    """Return ``_base_`` and the differences, with reasons as comments."""
    comments: Dict[str, str] = {}
    for change in report.changes:
        comments.setdefault(change.key, change.why)
    changed = difference(plain(host), plain(cfg))
    writer = Writer(comments)
    lines = writer.assignment('_base_', base_for(host.filename, path))
    for name, value in in_order(changed):
        lines += writer.assignment(name, value)
    return '\n'.join(lines) + '\n'


def base_for(source: str, path: Path) -> str:
    """Return what ``_base_`` says: a host's name, or a path from here."""
    name = public_name(Path(source))
    if name is not None:
        return base_name(name)
    relative = os.path.relpath(Path(source).resolve(), path.resolve().parent)
    return Path(relative).as_posix()


def in_order(changed: Mapping[str, Any]) -> Iterator[tuple]:
    """Yield the model first, then as the host's file has it."""
    yield from sorted(changed.items(), key=lambda item: item[0] != 'model')


def plain(node: Any) -> Any:
    """Copy settings as plain dicts and lists, without mmengine's marks."""
    if isinstance(node, Config):
        node = node.to_dict()
    if isinstance(node, Mapping):
        return {k: plain(v) for k, v in node.items() if k != '_scope_'}
    if isinstance(node, (list, tuple)):
        return type(node)(plain(value) for value in node)
    return node


def difference(old: Mapping, new: Mapping) -> Dict[str, Any]:
    """Return what a file has to say so that ``old`` reads as ``new``.

    mmengine merges dicts and replaces all else; ``_delete_`` replaces a
    dict, where one of its keys is to go.
    """
    if set(old) - set(new):
        return {DELETE: True, **new}
    said: Dict[str, Any] = {}
    for key, value in new.items():
        if key in old and old[key] == value:
            continue
        if not isinstance(value, Mapping):
            said[key] = value
        elif key not in old:
            said[key] = dict(value)
        elif isinstance(old[key], Mapping):
            said[key] = difference(old[key], value)
        else:
            said[key] = {DELETE: True, **value}
    return said


def different(a: Any, b: Any, key: str) -> Iterator[str]:
    """Yield the keys at which two configs differ."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for name in {**a, **b}:
            inside = f'{key}.{name}' if key else str(name)
            if name not in a or name not in b:
                yield inside
            else:
                yield from different(a[name], b[name], inside)
    elif a != b:
        yield key


class Writer:
    """Lays settings out as people write them: ``dict(...)``, 79 columns."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self.comments = dict(comments)

    def assignment(self, name: str, value: Any) -> List[str]:
        """Return the lines of ``name = value`` with its comment."""
        return [
            *self._why(name, value, 0),
            *self._entry(f'{name} = ', value, name, 0, ''),
        ]

    def _why(self, key: str, value: Any, indent: int) -> List[str]:
        """Return the comment of a setting, or of the only one below it."""
        while key not in self.comments and _has_one(value):
            ((name, value),) = value.items()
            key = f'{key}.{name}'
        why = self.comments.pop(key, None)
        if why is None:
            return []
        # Settings that changed for one reason have it once.
        for name in [k for k, v in self.comments.items() if v == why]:
            if name.rpartition('.')[0] == key.rpartition('.')[0]:
                del self.comments[name]
        return _comment(why, indent)

    def _entry(
        self, start: str, value: Any, key: str, indent: int, end: str
    ) -> List[str]:
        """Return the lines of one setting, on one where it fits."""
        space = ' ' * indent
        line = f'{space}{start}{literal(value)}{end}'
        if len(line) <= WIDTH and not self._has_comments(key):
            return [line]
        if isinstance(value, Mapping):
            return self._open(f'{space}{start}', value, key, indent, end)
        if isinstance(value, (list, tuple)) and value:
            left, right = '[]' if isinstance(value, list) else '()'
            lines = [f'{space}{start}{left}']
            for index, item in enumerate(value):
                inside = f'{key}.{index}'
                lines += self._why(inside, item, indent + 4)
                lines += self._entry('', item, inside, indent + 4, ',')
            return [*lines, f'{space}{right}{end}']
        if isinstance(value, str):
            text = literal(value, indent + 4)
            return f'{space}{start}{text}{end}'.split('\n')
        return [line]

    def _open(
        self, start: str, value: Mapping, key: str, indent: int, end: str
    ) -> List[str]:
        named = all(name.isidentifier() for name in value)
        left, right = ('dict(', ')') if named else ('{', '}')
        lines = [f'{start}{left}']
        for name, item in value.items():
            inside = f'{key}.{name}'
            head = f'{name}=' if named else f'{name!r}: '
            lines += self._why(inside, item, indent + 4)
            lines += self._entry(head, item, inside, indent + 4, ',')
        return [*lines, f'{" " * indent}{right}{end}']

    def _has_comments(self, key: str) -> bool:
        return any(name.startswith(f'{key}.') for name in self.comments)


def _has_one(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) == 1


def literal(value: Any, indent: Optional[int] = None) -> str:
    """Return a value as Python; with ``indent`` long strings are broken."""
    if isinstance(value, Mapping):
        if all(name.isidentifier() for name in value):
            inside = ', '.join(f'{k}={literal(v)}' for k, v in value.items())
            return f'dict({inside})'
        inside = ', '.join(f'{k!r}: {literal(v)}' for k, v in value.items())
        return f'{{{inside}}}'
    if isinstance(value, list):
        return f'[{", ".join(map(literal, value))}]'
    if isinstance(value, tuple):
        comma = ',' if len(value) == 1 else ''
        return f'({", ".join(map(literal, value))}{comma})'
    if isinstance(value, str) and indent is not None:
        return _broken(value, indent)
    return repr(value)


def _broken(text: str, indent: int) -> str:
    """Give a long address lines of its own, broken after a slash."""
    room = WIDTH - indent - 3
    parts = []
    while len(text) > room and '/' in text[:room]:
        at = text[:room].rindex('/') + 1
        parts.append(text[:at])
        text = text[at:]
    parts.append(text)
    if len(parts) == 1 and len(text) > room:
        return repr(text)
    space = ' ' * indent
    lines = ''.join(f'\n{space}{part!r}' for part in parts)
    return f'({lines}\n{space[:-4]})'
