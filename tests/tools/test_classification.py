"""tools/test.py and tools/predict.py with classifiers, on drawn folders."""

from __future__ import annotations

import csv
import json
import pickle
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from classified import (
    CLASSES,
    class_config,
    draw_folders,
    save_native,
    tiny_classifier,
)
from drawn import picture
from imports import import_tool

from mmconvnext.checkpoint import export
from mmconvnext.files import write_image
from mmconvnext.inference.bars import WIDTH
from mmconvnext.inference.pictures import GAP

TEST, PREDICT = import_tool('test'), import_tool('predict')


class Case(NamedTuple):
    """A config file, its data, and a checkpoint of random weights."""

    config: Path
    root: Path
    weights: Path


@pytest.fixture(scope='module')
def case(tmp_path_factory) -> Case:
    folder = tmp_path_factory.mktemp('classified')
    root = draw_folders(folder / 'data')
    class_config(root).dump(folder / 'tiny.py')
    torch.manual_seed(0)
    weights = save_native(tiny_classifier(), folder / 'native.pth')
    return Case(folder / 'tiny.py', root, weights)


def call(main: Any, *args: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['tool.py', *map(str, args)])
        main()


def predict(case: Case, images: Path, out: Path, *args: Any) -> None:
    options = [f'--out={out}', '--device=cpu', *args]
    call(PREDICT.main, case.config, case.weights, images, *options)


def evaluate(case: Case, work_dir: Path, *args: Any) -> None:
    call(TEST.main, case.config, case.weights, f'--work-dir={work_dir}', *args)


def metrics_of(text: str) -> dict:
    rows = re.findall(r'^(accuracy/\w+): ([\d.]+)$', text, re.M)
    return {name: float(value) for name, value in rows}


def test_predictions_are_scored_listed_and_drawn(
    case: Case, tmp_path: Path, capsys
) -> None:
    """Scores are those of test.py; the list is read again as labels."""
    evaluate(case, tmp_path / 'test')
    theirs = metrics_of(capsys.readouterr().out)
    out, images = tmp_path / 'out', case.root / 'val'
    predict(case, images, out, '--labels', '--html', '--save-labels')
    printed = capsys.readouterr().out
    found = json.loads((out / 'scores.json').read_text(encoding='utf-8'))
    assert found['overall'] == {
        'top-1': pytest.approx(theirs['accuracy/top1'], abs=0.01)
    }
    assert f'top-1: {found["overall"]["top-1"]:.2f}' in printed
    with (out / 'scores.csv').open(encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    order = [float(row['p(true)']) for row in rows]
    assert order == sorted(order) and len(rows) == 6
    assert all(row['image'].startswith(row['true']) for row in rows)
    check_page(out, rows)
    again = tmp_path / 'again'
    predict(case, images, again, f'--labels={out / "labels.txt"}')
    found = json.loads((again / 'scores.json').read_text(encoding='utf-8'))
    assert found['overall'] == {'top-1': 100}


def check_page(out: Path, rows: list) -> None:
    page = (out / 'index.html').read_text(encoding='utf-8')
    names = re.findall(r'<article data-name="([^"]+)"', page)
    assert names == [row['image'] for row in rows]
    assert '<table id="confusion">' in page
    assert '<option value="2">worst cow first' in page
    for row in rows:
        place = CLASSES.index(row['true'])
        assert f'data-classes="{place}:{float(row["p(true)"]):.2f}"' in page
        picture = cv2.imread(str(out / row['image']))
        # Images of 40 x 60 are enlarged; three rows are higher than that.
        assert picture.shape[0] > 160
        assert picture.shape[1] == 240 + GAP + WIDTH


def test_pictures_and_results_of_a_test(
    case: Case, tmp_path: Path, capsys
) -> None:
    show, file = tmp_path / 'show', tmp_path / 'x.pkl'
    evaluate(case, tmp_path / 'w', f'--show-dir={show}', f'--out={file}')
    assert re.search(
        r'^protocol: as configured, 32x32 crop of 0\.875$',
        capsys.readouterr().out,
        re.M,
    )
    drawn = {str(path.relative_to(show)) for path in show.rglob('*.png')}
    assert drawn == {f'{name}/{i}.png' for name in CLASSES for i in (0, 1)}
    with file.open('rb') as stream:
        results = pickle.load(stream)
    assert [tuple(r['pred_scores'].shape) for r in results] == [(3,)] * 6


REFUSED = {
    '--tta': '--tta: a classifier sees one crop',
    '--protocol=ss_slide': '--protocol ss_slide: a classifier sees one crop',
    '--out=maps': '--out of a classifier must end in .pkl, got maps',
}


@pytest.mark.parametrize('option', REFUSED)
def test_what_classifiers_do_not_have(
    option: str, case: Case, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=re.escape(REFUSED[option])):
        evaluate(case, tmp_path, option)


def test_a_test_needs_a_folder_of_every_class(
    case: Case, tmp_path: Path
) -> None:
    """Without one, the numbers of classes would mean others."""
    class_config(case.root, classes=4).dump(tmp_path / 'four.py')
    save_native(tiny_classifier(4), tmp_path / 'four.pth')
    here = Case(tmp_path / 'four.py', case.root, tmp_path / 'four.pth')
    with pytest.raises(SystemExit, match=r'4 classes, .* 3 \(ant, bee, cow'):
        evaluate(here, tmp_path / 'w')


LAYOUTS = ('official', 'timm', 'transformers')


@pytest.mark.parametrize('layout', LAYOUTS)
def test_published_files_predict_as_ours(
    layout: str, case: Case, tmp_path: Path, capsys
) -> None:
    """1000 classes, with the recipes' moving average of the weights."""
    torch.manual_seed(1)
    model = tiny_classifier(1000)
    native = save_native(model, tmp_path / 'native.pth')
    state = export(model, layout)
    raw = dict(model=state) if layout == 'official' else state
    published = tmp_path / 'convnextv2_atto_1k_224_ema.pt'
    torch.save(raw, published)
    lines = ['ant/0.png 0', 'bee/1.png 7', 'cow/0.png 999']
    (tmp_path / 'list.txt').write_text('\n'.join(lines), encoding='utf-8')
    cfg = class_config(
        case.root, classes=1000, ann_file=str(tmp_path / 'list.txt')
    )
    ema = dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')
    cfg.custom_hooks = [ema]
    cfg.dump(tmp_path / 'thousand.py')
    results, pictures = [], []
    for path in (native, published):
        here = Case(tmp_path / 'thousand.py', case.root, path)
        file = tmp_path / f'{path.stem}.pkl'
        evaluate(here, tmp_path / 'w', f'--out={file}')
        results.append(pickle.loads(file.read_bytes()))
        predict(here, case.root / 'val/ant', tmp_path / path.stem)
        pictures.append((tmp_path / path.stem / '0.png').read_bytes())
    ours, theirs = (
        torch.stack([row['pred_scores'] for row in rows]) for rows in results
    )
    assert torch.equal(ours, theirs) and ours.std() > 0
    assert pictures[0] == pictures[1]
    assert 'accuracy/top5' in metrics_of(capsys.readouterr().out)


def test_errors_are_lines_that_name_the_image(
    case: Case, tmp_path: Path, capsys
) -> None:
    images = tmp_path / 'in'
    for name in ('ant/0.png', 'new.png'):
        write_image(picture(), images / name)
    file = tmp_path / 'own.txt'
    file.write_text('ant/0.png ant\n', encoding='utf-8')
    with pytest.raises(SystemExit, match='^1$'):
        predict(case, images, tmp_path / 'out', f'--labels={file}')
    line = f'error: {images}/new.png: {file} has no label of it\n'
    assert capsys.readouterr().err == line
    assert (tmp_path / 'out/ant/0.png').is_file()
    file.write_text('ant/0.png ant\nnew.png owl\n', encoding='utf-8')
    with pytest.raises(SystemExit, match="error: .*new.png is of class 'owl'"):
        predict(case, images, tmp_path / 'none', f'--labels={file}')
    assert not (tmp_path / 'none').exists()


def test_frames_are_beside_their_classes(case: Case, tmp_path: Path) -> None:
    film = tmp_path / 'film.mp4'
    code = cv2.VideoWriter_fourcc(*'mp4v')
    writer = cv2.VideoWriter(str(film), code, 5, (64, 48))
    for value in (10, 200):
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()
    predict(case, film, tmp_path / 'out')
    reader = cv2.VideoCapture(str(tmp_path / 'out/film.mp4'))
    done, frame = reader.read()
    assert done and frame.shape == (180, 240 + GAP + WIDTH, 3)
