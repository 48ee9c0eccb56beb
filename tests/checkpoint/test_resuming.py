"""Checkpoints are whole at every moment, and the last of them is found."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import get_file_backend
from mmengine.fileio.backends import LocalBackend, register_backend

from mmconvnext import checkpoint
from mmconvnext.checkpoint import CheckpointError, resuming


@pytest.fixture
def backend(monkeypatch) -> resuming.WholeFiles:
    monkeypatch.setattr(resuming, 'WAITING', {})
    checkpoint.install_whole_writing()
    yield get_file_backend('a.pth')
    register_backend('local', LocalBackend, force=True, prefixes='')


def fill(work_dir: Path, *names: str, pointer: str = '') -> None:
    """Write whole checkpoints, each newer than the one before."""
    for step, name in enumerate(names):
        torch.save({'state_dict': {'a': torch.ones(50)}}, work_dir / name)
        os.utime(work_dir / name, (step, step))
    if pointer:
        (work_dir / 'last_checkpoint').write_text(pointer)


def cut(path: Path) -> None:
    time = path.stat().st_mtime
    path.write_bytes(path.read_bytes()[:-100])
    os.utime(path, (time, time))


def test_the_named_one_wins_over_later_ones(tmp_path) -> None:
    fill(tmp_path, 'iter_4.pth', 'iter_8.pth', pointer='iter_4.pth')
    found, why = resuming.latest_whole(tmp_path)
    assert found == tmp_path / 'iter_4.pth'
    assert why == f'resuming from {found}'


def test_a_moved_folder_is_followed(tmp_path) -> None:
    fill(tmp_path, 'epoch_1.pth', pointer='/gone/elsewhere/epoch_1.pth')
    assert resuming.latest_whole(tmp_path)[0] == tmp_path / 'epoch_1.pth'


@pytest.mark.parametrize('pointer', ['', ' \n', '\0\0', 'iter_'])
def test_a_lost_pointer_gives_the_last_whole_one(
    tmp_path, pointer: str
) -> None:
    fill(tmp_path, 'iter_2.pth', 'iter_4.pth', 'iter_6.pth', pointer=pointer)
    cut(tmp_path / 'iter_6.pth')
    found, why = resuming.latest_whole(tmp_path)
    assert found == tmp_path / 'iter_4.pth'
    assert 'iter_6.pth' in why


def test_a_damaged_named_one_is_said(tmp_path) -> None:
    fill(tmp_path, 'epoch_1.pth', 'epoch_2.pth', pointer='epoch_2.pth')
    cut(tmp_path / 'epoch_2.pth')
    found, why = resuming.latest_whole(tmp_path)
    assert found == tmp_path / 'epoch_1.pth'
    assert re.search('epoch_2.pth is not read: .*truncated', why)


def test_nothing_whole_is_an_error(tmp_path) -> None:
    fill(tmp_path, 'epoch_1.pth', pointer='epoch_1.pth')
    cut(tmp_path / 'epoch_1.pth')
    cfg = Config(dict(resume=True, load_from=None, work_dir=str(tmp_path)))
    with pytest.raises(CheckpointError, match='no checkpoint in .* is whole'):
        checkpoint.resolve_resume(cfg)


def test_a_named_one_that_is_gone_is_an_error(tmp_path) -> None:
    fill(tmp_path, pointer='epoch_1.pth')
    with pytest.raises(CheckpointError, match='does not exist'):
        resuming.latest_whole(tmp_path)


def test_an_empty_folder_starts_at_the_beginning_and_says_so(
    tmp_path, capsys
) -> None:
    assert 'starts at the beginning' in resuming.latest_whole(tmp_path)[1]
    cfg = Config(dict(resume=True, load_from=None, work_dir=str(tmp_path)))
    checkpoint.resolve_resume(cfg)
    assert cfg.resume is False


def test_what_was_asked_for_is_kept(tmp_path) -> None:
    fill(tmp_path, 'epoch_1.pth', pointer='epoch_1.pth')
    for given in (dict(load_from='b.pth'), dict(resume=False)):
        cfg = dict(resume=True, load_from=None, work_dir=str(tmp_path))
        cfg = Config({**cfg, **given})
        before = cfg.to_dict()
        checkpoint.resolve_resume(cfg)
        assert cfg.to_dict() == before


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path, backend, monkeypatch
) -> None:
    path = tmp_path / 'epoch_1.pth'
    backend.put(b'old', str(path))

    def full(self: Path, data: bytes) -> None:
        with open(self, 'wb') as file:
            file.write(data[:1])
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(OSError, match='No space left'):
        backend.put(b'new', str(path))
    assert [p.name for p in tmp_path.iterdir()] == ['epoch_1.pth']
    assert path.read_bytes() == b'old'


def test_an_old_checkpoint_goes_once_the_new_one_is_whole(
    tmp_path, backend
) -> None:
    old, new = tmp_path / 'epoch_1.pth', tmp_path / 'epoch_2.pth'
    backend.put(b'1', str(old))
    get_file_backend(str(tmp_path)).remove(str(old))
    assert old.exists(), 'the only checkpoint there is'
    backend.put_text('x', str(tmp_path / 'a.txt'))
    assert old.exists()
    backend.put(b'2', str(new))
    assert not old.exists() and new.read_bytes() == b'2'


def test_a_file_written_again_is_not_deleted(tmp_path, backend) -> None:
    path = tmp_path / 'best.pth'
    backend.put(b'1', str(path))
    backend.remove(str(path))
    backend.put(b'2', str(path))
    assert path.read_bytes() == b'2'


def test_what_a_killed_process_left_is_removed(tmp_path, backend) -> None:
    left = tmp_path / '.epoch_1.0123abcd.pth'
    left.write_bytes(b'half')
    other = tmp_path / '.epoch_2.0123abcd.pth'
    other.write_bytes(b'half')
    backend.put(b'1', str(tmp_path / 'epoch_1.pth'))
    assert not left.exists() and other.exists()
