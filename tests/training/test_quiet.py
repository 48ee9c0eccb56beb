"""What the hosts print stays in the log; news and errors reach the screen."""

import logging
import subprocess
import sys
import warnings

import pytest
from mmengine.logging import MMLogger

from mmconvnext.training import quiet


def logger(tmp_path, name: str) -> MMLogger:
    path = tmp_path / 'run.log'
    made = MMLogger.get_instance(name, log_file=str(path))
    return quiet.hush(made)


@pytest.mark.parametrize(
    'level, text, shown',
    [
        (logging.INFO, 'Config: a page of it', False),
        (logging.WARNING, 'resuming: the rate differs', True),
        (logging.ERROR, 'no space left', True),
        *((logging.WARNING, part, False) for part in quiet.RECORDS),
    ],
)
def test_the_file_has_all_and_the_screen_the_news(
    level: int, text: str, shown: bool, tmp_path, capsys
) -> None:
    made = logger(tmp_path, f'quiet {tmp_path.name}')
    made.log(level, text)
    out = capsys.readouterr().out
    assert (text in out) == shown
    if shown:
        assert out == f'{logging.getLevelName(level).lower()}: {text}\n'
    assert text in (tmp_path / 'run.log').read_text()


def test_other_ranks_show_nothing(tmp_path, capsys) -> None:
    made = MMLogger('rank 1', log_file=str(tmp_path / 'run.log'))
    for handler in made.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)  # as mmengine does there
    quiet.hush(made).warning('resuming')
    assert capsys.readouterr().out == ''


IMPORTED = """
import sys
from mmconvnext import cli
cli.prepare_hosts({})
import mmdet.datasets, mmseg.datasets
"""


@pytest.mark.parametrize('verbose, empty', [(False, True), (True, False)])
def test_importing_the_hosts_is_silent(verbose: bool, empty: bool) -> None:
    done = subprocess.run(
        [sys.executable, '-c', IMPORTED.format(verbose)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr == '') == empty, done.stdout


@pytest.mark.parametrize('message, module', quiet.WARNINGS)
def test_filters_are_for_one_module(message: str, module: str) -> None:
    """The same words from elsewhere are shown."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        quiet.silence()
        text = message.replace(r'\w+', 'bbox')
        place = module.replace('\\', '').replace('(det|seg)', 'det')
        for name in (place, 'elsewhere'):
            warnings.warn_explicit(text, UserWarning, 'file', 1, name)
    assert len(caught) == 1


def test_printed_steps_go_to_the_log(tmp_path, capsys) -> None:
    coco = pytest.importorskip('pycocotools.coco')
    logger(tmp_path, f'coco {tmp_path.name}')
    quiet.log_prints()
    file = tmp_path / 'labels.json'
    file.write_text('{"images": [], "annotations": [], "categories": []}')
    coco.COCO(str(file))
    assert capsys.readouterr().out == ''
    assert 'index created!' in (tmp_path / 'run.log').read_text()
