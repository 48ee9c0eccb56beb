"""tools/predict.py with labels and a page, on drawn data."""

import csv
import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from imports import import_tool
from mmengine.registry import init_default_scope
from runs import succeed, tool
from tiny import ROOT, build, load

from mmconvnext.inference import Drawn, predict_folder
from mmconvnext.inference.pictures import CAPTION, GAP

predict = import_tool('predict')


class Case(NamedTuple):
    """A config, its drawn data below the root, and how test.py names AP."""

    config: str
    data: str
    images: str
    labels: str
    metrics: dict


CASES = {
    'segmentation': Case(
        'upernet_convnextv2_atto_demo.py',
        'ade20k',
        'images/validation',
        'annotations/validation',
        {'IoU': ('mIoU', 1), 'Acc': ('mAcc', 1)},
    ),
    'detection': Case(
        'mask_rcnn_convnextv2_atto_demo.py',
        'coco',
        'val2017',
        'annotations/instances_val2017.json',
        {
            'box AP': ('coco/bbox_mAP', 100),
            'mask AP': ('coco/segm_mAP', 100),
        },
    ),
}


@pytest.fixture(scope='module')
def demo(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'demo'
    succeed('tools/make_demo_data.py', '--out', out, '--train', 1, '--val', 3)
    return out


@pytest.fixture(scope='module', params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture(scope='module')
def weights(case: Case, tmp_path_factory) -> Path:
    """A random model's checkpoint."""
    torch.manual_seed(0)
    model = build(load(case.config))
    path = tmp_path_factory.mktemp('weights') / 'random.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path


def run(case: Case, *args) -> list:
    config = ROOT / 'configs' / case.config
    argv = ['predict.py', config, *args]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', list(map(str, argv)))
        args = predict.parse_args()
        predictor = predict.build(args)
    title = 'a title'
    done = predict_folder(predictor, args.images, args.out, title, args.html)
    return done.failures


@pytest.fixture(scope='module')
def drawn(case: Case, demo: Path, weights: Path, tmp_path_factory) -> Path:
    """The output of a run over the data set's own folder."""
    data, out = demo / case.data, tmp_path_factory.mktemp('drawn')
    options = [f'--out={out}', f'--data-root={data}', '--score-thr=0.0']
    images = data / case.images
    assert not run(case, weights, images, *options, '--labels', '--html')
    return out


def test_scores_are_those_of_test_py(
    case: Case, demo: Path, weights: Path, drawn: Path, tmp_path_factory
) -> None:
    text = succeed(
        'tools/test.py',
        f'configs/{case.config}',
        weights,
        f'--data-root={demo / case.data}',
        f'--work-dir={tmp_path_factory.mktemp("test")}',
    )
    found = json.loads((drawn / 'scores.json').read_text())
    assert list(found['mean']) == list(case.metrics)
    for column, (name, scale) in case.metrics.items():
        theirs = float(re.search(rf'^{name}: ([\d.]+)$', text, re.M)[1])
        assert found['mean'][column] == pytest.approx(scale * theirs, abs=0.06)


def test_three_panels_and_lists_worst_first(
    case: Case, demo: Path, drawn: Path
) -> None:
    images = sorted((demo / case.data / case.images).iterdir())
    with (drawn / 'scores.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row['image'] for row in rows) == [p.name for p in images]
    column = next(iter(case.metrics))
    ranks = [float(row[column]) for row in rows]
    assert ranks == sorted(ranks)
    page = (drawn / 'index.html').read_text()
    order = re.findall(r'<article data-name="([^"]+)"', page)
    assert order == [row['image'] for row in rows]
    for path in images:
        picture = cv2.imread(str(drawn / f'{path.stem}.png'))
        source = cv2.imread(str(path))
        height, width = source.shape[:2]
        assert picture.shape[1] == 3 * width + 2 * GAP
        panels = picture[CAPTION : CAPTION + height]
        starts = [i * (width + GAP) for i in range(3)]
        given, truth, found = (panels[:, s : s + width] for s in starts)
        assert (given == source).all()
        assert (truth != source).any() and (found != truth).any()
    assert not list(drawn.glob('.*'))


def test_labels_of_ones_own_and_what_is_wrong_with_them(
    case: Case, demo: Path, weights: Path, tmp_path: Path
) -> None:
    """A folder with a good image, one without a label and one damaged."""
    data = demo / case.data
    first, second, *_ = sorted((data / case.images).iterdir())
    folder = tmp_path / 'in'
    folder.mkdir()
    (folder / first.name).write_bytes(first.read_bytes())
    (folder / f'new{second.suffix}').write_bytes(second.read_bytes())
    (folder / f'{second.stem}.jpg').write_bytes(b'no picture')
    options = [f'--out={tmp_path / "out"}', '--score-thr=0.0', '--html']
    labels = ['--labels', data / case.labels]
    failures = run(case, weights, folder, *options, *labels)
    assert len(failures) == 2
    assert re.search(r'new\..*(no label map at|does not list)', failures[0])
    assert 'not a readable image' in failures[1]
    written = {p.name for p in (tmp_path / 'out').iterdir()}
    assert written == {
        f'{first.stem}.png',
        'scores.csv',
        'scores.json',
        'index.html',
    }
    page = (tmp_path / 'out/index.html').read_text()
    assert '2 not drawn' in page and page.count('<article') == 1


def test_a_page_without_labels(
    case: Case, demo: Path, weights: Path, tmp_path: Path
) -> None:
    image = sorted((demo / case.data / case.images).iterdir())[0]
    out = [f'--out={tmp_path}', '--html']
    assert not run(case, weights, image, *out)
    assert {p.name for p in tmp_path.iterdir()} == {
        f'{image.stem}.png',
        'index.html',
    }
    height, width = cv2.imread(str(image)).shape[:2]
    picture = cv2.imread(str(tmp_path / f'{image.stem}.png'))
    assert picture.shape == (height, 2 * width + GAP, 3)


def test_any_predictor_can_draw(tmp_path: Path) -> None:
    """Drawing needs a ``draw`` that returns panels, nothing else."""
    init_default_scope('mmseg')
    panel = np.zeros((20, 30, 3), np.uint8)

    class Masked:
        def draw(self, path: Path) -> Drawn:
            return Drawn(
                {'input': panel, 'masked': panel, 'reconstruction': panel}
            )

    for name in ('a.jpg', 'b.jpg'):
        (tmp_path / name).touch()
    out = tmp_path / 'out'
    done = predict_folder(Masked(), tmp_path, out, html=True)
    assert done == ([], None, out / 'index.html')
    assert 'reconstruction' in done.page.read_text(encoding='utf-8')
    assert (out / 'a.png').is_file()


def test_missing_labels_are_one_line(
    case: Case, weights: Path, demo: Path, tmp_path: Path
) -> None:
    images = demo / case.data / case.images
    with pytest.raises(FileNotFoundError, match='labels not found: gone'):
        run(
            case,
            weights,
            images,
            f'--out={tmp_path}',
            '--labels=gone',
        )


@pytest.mark.slow
def test_labels_and_video_of_unlabelled_images(
    case: Case, weights: Path, demo: Path, tmp_path: Path
) -> None:
    """The command itself, once for images and once for frames."""
    images = demo / case.data / case.images
    args = ['tools/predict.py', f'configs/{case.config}', weights]
    root = f'--data-root={demo / case.data}'
    out = succeed(
        *args,
        images,
        '--out',
        tmp_path,
        '--save-labels',
        root,
        '--score-thr=0',
    )
    (path,) = re.findall(r'^labels: (.*)$', out, re.M)
    names = {p.stem for p in images.iterdir()}
    if case.data == 'coco':
        saved = json.loads(Path(path).read_text(encoding='utf-8'))
        found = {Path(row['file_name']).stem for row in saved['images']}
        assert saved['annotations'][0]['segmentation']
    else:
        found = {p.stem for p in Path(path).iterdir()}
    assert found == names
    first = cv2.imread(str(sorted(images.iterdir())[0]))
    height, width = first.shape[:2]
    code = cv2.VideoWriter_fourcc(*'mp4v')
    film = tmp_path / 'film.mp4'
    writer = cv2.VideoWriter(str(film), code, 5, (width, height))
    for _ in range(3):
        writer.write(first)
    writer.release()
    args += [film, '--out', tmp_path / 'video', root]
    out = succeed(*args, '--frames', 2)
    assert f'{tmp_path / "video/film.mp4"} (2 frames)' in out
    done = tool(*args, '--html')
    assert done.returncode == 1
    assert done.stderr == f'error: --html: not of a video, {film}\n'
