"""Whole checkpoints at every moment of a run, and the last of them.

mmengine writes a checkpoint into place, deletes an old one before the new one
is whole, and resumes from the file that ``last_checkpoint`` names, whatever
is in it. A run that is killed, or whose disk is full, at the wrong moment
then has nothing to resume from. Here files appear whole, old ones go last,
and a damaged or unnamed one is found before training.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

from ..files import whole_file
from . import weights_io
from .sources import CheckpointError

POINTER = 'last_checkpoint'
PATTERNS = ('epoch_*.pth', 'iter_*.pth')
FOLDERS = ('epoch_*', 'iter_*')
# Folder: checkpoints that go once the next one in it is whole. mmengine makes
# a backend for each call, so it cannot be an attribute of one.
WAITING: Dict[str, List[str]] = {}


class WholeFiles(LocalBackend):
    """mmengine's local files, written whole or not at all.

    With ``max_keep_ckpts=1`` mmengine would delete the only checkpoint and
    then write the next; here a deletion waits until that is done.
    """

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        path = Path(filepath)
        # What a killed process left of the same file.
        for part in path.parent.glob(f'.{path.stem}.{"?" * 8}{path.suffix}'):
            part.unlink()
        with whole_file(path) as part:
            part.write_bytes(obj)
        if path.suffix == '.pth':
            for old in WAITING.pop(str(path.parent), []):
                if Path(old) != path and Path(old).exists():
                    super().remove(old)

    def put_text(
        self,
        obj: str,
        filepath: Union[str, Path],
        encoding: str = 'utf-8',
    ) -> None:
        with whole_file(filepath) as part:
            part.write_text(obj, encoding=encoding)

    def remove(self, filepath: Union[str, Path]) -> None:
        path = Path(filepath)
        if path.suffix == '.pth':
            WAITING.setdefault(str(path.parent), []).append(str(path))
        else:
            super().remove(filepath)


def install_whole_writing() -> None:
    """Let mmengine write whole files; calling it again changes nothing."""
    register_backend('local', WholeFiles, force=True, prefixes='')


def _named(work_dir: Path) -> Optional[Path]:
    """Return the file that ``last_checkpoint`` names, None for none."""
    pointer = work_dir / POINTER
    text = pointer.read_text('utf-8', 'replace') if pointer.is_file() else ''
    # Cut off, it may name a folder, or contain what is no name at all.
    if not text.strip() or '\0' in text:
        return None
    path = Path(text.strip())
    # The folder may have been moved since.
    return path if path.exists() else work_dir / path.name


def _candidates(work_dir: Path) -> Iterator[Path]:
    """Yield the named file, then the others, the latest written first."""
    named = _named(work_dir)
    if named is not None:
        yield named
    others = [path for p in PATTERNS for path in work_dir.glob(p)]
    # By time, not by number: an earlier, longer run may have left some.
    for path in sorted(others, key=os.path.getmtime, reverse=True):
        if path != named:
            yield path


def latest_whole(work_dir: Union[str, Path]) -> Tuple[Optional[Path], str]:
    """Find the checkpoint to resume from, and say why it is that one.

    It is the one that ``last_checkpoint`` names. Where that file, or what it
    names, is missing or damaged, the whole one that was written last.

    Returns:
        The file, None where the folder has no checkpoint at all, and a
        sentence for the log.

    Raises:
        CheckpointError: where there are checkpoints and none is whole; a run
            would start from the beginning and write over them.
    """
    work_dir = Path(work_dir)
    damaged: List[str] = []
    for path in _candidates(work_dir):
        # Those of DeepSpeed are folders; it checks them itself.
        sharded = path.is_dir() and any(path.match(p) for p in FOLDERS)
        reason = None if sharded else weights_io.damage(path)
        if reason is None:
            return path, _account(work_dir, path, damaged)
        damaged.append(reason)
    if damaged:
        raise CheckpointError(
            f'--resume: no checkpoint in {work_dir} is whole '
            f'({"; ".join(damaged)}); move them away to start anew'
        )
    return None, (
        f'nothing to resume from in {work_dir}: training starts at the '
        'beginning'
    )


def _account(work_dir: Path, path: Path, damaged: List[str]) -> str:
    if damaged:
        return f'resuming from {path}, since {"; ".join(damaged)}'
    if path != _named(work_dir):
        return (
            f'resuming from {path}, the last whole checkpoint: '
            f'{work_dir / POINTER} names none'
        )
    return f'resuming from {path}'


def resolve_resume(cfg: Any) -> None:
    """Set what a config that resumes by itself resumes from.

    Raises:
        CheckpointError: where no checkpoint in its work dir is whole.
    """
    if not cfg.get('resume') or cfg.get('load_from'):
        return
    path, sentence = latest_whole(cfg.work_dir)
    as_asked = sentence == f'resuming from {path}'
    level = logging.INFO if as_asked else logging.WARNING
    print_log(sentence, 'current', level)
    if path is None:
        cfg.resume = False
    else:
        cfg.load_from = str(path)
