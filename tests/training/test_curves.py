"""Curves from the rows that runs have logged."""

import json
from pathlib import Path

import pytest
from PIL import Image

from mmconvnext.training import curves


def write(work_dir: Path, run: str, rows: list, tail: str = '') -> None:
    path = work_dir / run / 'vis_data/scalars.json'
    path.parent.mkdir(parents=True)
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    path.write_text(text + tail)


def rows(first: int, last: int) -> list:
    found = [
        dict(lr=0.1, loss=1 / i, loss_cls=0.5 / i, iter=i, step=i, time=0.1)
        for i in range(first, last + 1)
    ]
    metric = {'mIoU': 10.0 * last, 'data_time': 0.1, 'time': 1, 'step': last}
    return [*found, metric]


def test_a_resumed_run_replaces_steps(tmp_path: Path) -> None:
    write(tmp_path, '1', rows(1, 4), '{"loss": 0.')  # killed while it wrote
    write(tmp_path, '2', [dict(loss=9.0, iter=4, step=4), *rows(5, 6)])
    found = curves.read_scalars(str(tmp_path))
    losses = curves.losses_of(found)
    assert sorted(losses['loss']) == [1, 2, 3, 4, 5, 6]
    assert losses['loss'][4] == 9.0
    assert curves.metrics_of(found) == {'mIoU': {4: 40.0, 6: 60.0}}


@pytest.mark.parametrize('metric, panels', [(True, 2), (False, 1)])
def test_panels(metric: bool, panels: int, tmp_path: Path) -> None:
    write(tmp_path, '1', rows(1, 3)[: None if metric else -1])
    assert curves.draw(str(tmp_path), str(tmp_path / 'curves.png'))
    with Image.open(tmp_path / 'curves.png') as image:
        assert image.size == (900, 320 * panels)


def test_nothing_logged_draws_nothing(tmp_path: Path) -> None:
    assert not curves.draw(str(tmp_path), str(tmp_path / 'curves.png'))
    assert not list(tmp_path.iterdir())
