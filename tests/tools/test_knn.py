"""tools/knn.py over checkpoints of several kinds, on drawn images."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Dict

import numpy as np
import pytest
import torch
from checkpoints import ARCH, backbone, randomise
from imports import import_tool
from labelled import write
from runs import succeed

from mmconvnext import FCMAE, ConvNeXtV2, ImageClassifier, checkpoint
from mmconvnext.analysis import class_images, knn

tool = import_tool('knn')
ROW = dict(type='mmconvnext.ConvNeXtV2', arch=ARCH)
SMALL = ('--size=32', '--k', 1, 3, '--num-workers=0', '--device=cpu')


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """Seven classes, so that the best five are not all of them."""
    root = tmp_path_factory.mktemp('data')
    for part, count in (('train', 3), ('val', 2)):
        for k in range(7):
            for i in range(count):
                rng = np.random.default_rng([k, i, count])
                noise = rng.integers(20 * k, 60 + 20 * k, (40, 40, 3))
                write(root / part / f'c{k}' / f'{i}.png', noise.astype('u1'))
    return root


@pytest.fixture(scope='module')
def model() -> ConvNeXtV2:
    torch.manual_seed(3)
    return randomise(backbone(2))


def beside(model: torch.nn.Module, other: torch.nn.Module) -> Dict:
    """Fill a whole model's backbone, as mmengine saves it."""
    state = randomise(other).state_dict()
    own = {f'backbone.{k}': v for k, v in model.state_dict().items()}
    state.update({k: v for k, v in own.items() if k in state})
    return dict(state_dict=state, meta={})


def segmentor(model: torch.nn.Module) -> Dict:
    own = {f'backbone.{k}': v for k, v in model.state_dict().items()}
    heads = {'decode_head.conv_seg.weight': torch.zeros(2, 8, 1, 1)}
    return dict(state_dict={**own, **heads}, meta={})


KINDS = {
    'backbone': lambda model: model.state_dict(),
    'official': lambda model: checkpoint.export(model, 'official'),
    'timm': lambda model: checkpoint.export(model, 'timm'),
    'transformers': lambda model: checkpoint.export(model, 'transformers'),
    'segmentor': segmentor,
    'FCMAE': lambda model: beside(model, FCMAE(ROW, decoder_dim=16)),
    'classifier': lambda model: beside(model, ImageClassifier(ROW, 3)),
}


def run(monkeypatch, capsys, *args) -> tuple:
    """Return the exit status, what was printed, and the errors."""
    monkeypatch.setattr(sys, 'argv', ['knn.py', *map(str, args)])
    with pytest.raises(SystemExit) as stop:
        tool.main()
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def test_data_workers_change_nothing(
    folder: Path, model: ConvNeXtV2, tmp_path: Path
) -> None:
    # As a command: a data worker is a copy of the whole process, here of one
    # that other tests have filled.
    path = tmp_path / 'model.pth'
    torch.save(model.state_dict(), path)
    scores = []
    for workers in (0, 2):
        options = (*SMALL, f'--num-workers={workers}')
        text = succeed('tools/knn.py', path, folder, *options)
        scores.append(re.findall(r'^k = .*$', text, re.M))
    assert scores[0] == scores[1]
    assert len(scores[0]) == 2


@pytest.mark.parametrize('kind', KINDS)
def test_any_checkpoint_has_the_scores_of_its_backbone(
    monkeypatch,
    capsys,
    kind: str,
    folder: Path,
    model: ConvNeXtV2,
    tmp_path: Path,
) -> None:
    """Whatever norms and heads the file has, or lacks."""
    path, out = tmp_path / 'model.pth', tmp_path / 'scores.json'
    torch.save(KINDS[kind](model), path)
    code, text, _ = run(
        monkeypatch, capsys, path, folder, *SMALL, f'--out={out}'
    )
    assert code == 0
    settings = class_images.Settings(
        str(folder), k=(1, 3), size=32, num_workers=0
    )
    result = knn.measure(model, class_images.open_data(settings), settings)
    assert f'{path}: ' in text and 'ConvNeXt V2 custom' in text
    assert '21 images vote on 14, 7 classes' in text
    for k, row in result.accuracy.items():
        top1, top5 = row['top1'], row['top5']
        line = rf'k = {k} +top1 +{top1:.2f} +top5 +{top5:.2f}\n'
        assert re.search(line, text), text
    best = result.best
    value = result.accuracy[best]['top1']
    assert f'best: top1 {value:.2f} with k = {best}\n' in text
    found = json.loads(out.read_text())
    assert found['accuracy'] == {
        str(k): row for k, row in result.accuracy.items()
    }
    assert found['images'] == dict(train=21, val=14)
    assert (found['classes'], found['best_k']) == (7, best)
    assert found['settings']['temperature'] == 0.07
    assert found['unreadable'] == {}


def test_options_reach_the_measurement(
    monkeypatch, capsys, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / 'list.txt').write_text('val/c1/0.png c1\n')
    (folder / 'list.txt').write_text('val/c1/0.png c1\nval/c2/1.png 2\n')
    out = tmp_path / 'scores.json'
    options = ['--val=list.txt', '--number=7', '--temperature=0.2', '--seed=5']
    options += ['--crop-ratio=1', '--batch-size=2', '--version=1']
    code, text, _ = run(
        monkeypatch,
        capsys,
        folder,
        '--random=atto',
        *options,
        f'--out={out}',
        *SMALL,
        '--k',
        5,
        2,
        5,
    )
    assert code == 0
    assert 'ConvNeXt V1 atto, random weights, seed 5' in text
    assert '7 images vote on 2, 7 classes' in text
    found = json.loads(out.read_text())
    assert list(found['accuracy']) == ['2', '5']
    for name, value in dict(
        val='list.txt', temperature=0.2, crop_ratio=1.0, batch_size=2, number=7
    ).items():
        assert found['settings'][name] == value


def test_a_damaged_image_makes_the_exit_status(
    monkeypatch, capsys, folder: Path, tmp_path: Path
) -> None:
    bad = folder / 'bad' / 'c1' / '0.png'
    for k in range(2):
        source = (folder / f'train/c{k}/0.png').read_bytes()
        bad.parent.with_name(f'c{k}').mkdir(parents=True, exist_ok=True)
        bad.parent.with_name(f'c{k}').joinpath('0.png').write_bytes(source)
    bad.write_bytes(b'no picture')
    code, text, errors = run(
        monkeypatch, capsys, folder, '--random=atto', '--val=bad', *SMALL
    )
    assert code == 1
    assert 'best: top1' in text
    assert f'error: {bad}: not a readable image' in errors


def three_stages(path: Path) -> None:
    state = randomise(backbone(2, out_indices=(0, 1, 2))).state_dict()
    torch.save(state, path)


def without_grn(path: Path) -> None:
    torch.save(backbone(2).state_dict(), path)


def four_channels(path: Path) -> None:
    torch.save(randomise(backbone(2, in_channels=4)).state_dict(), path)


def another(path: Path) -> None:
    torch.save({'conv.weight': torch.zeros(3, 3)}, path)


REFUSED = {
    'no file': (None, [], 'checkpoint not found: '),
    'no ConvNeXt': (another, [], 'model.pth: .*no ConvNeXt'),
    'no GRN': (without_grn, [], 'model.pth: .*GRN is zero in every block'),
    'three stages': (three_stages, [], 'has no last stage to judge'),
    'four channels': (four_channels, [], 'takes 4 input channels'),
    'no folder': (another, ['--train=gone'], 'gone not found: it must be'),
    'large k': (another, ['--k', 22], 'images, 21, got 22'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_cannot_be_judged_is_refused(
    monkeypatch, capsys, case: str, folder: Path, tmp_path: Path
) -> None:
    write_file, options, message = REFUSED[case]
    path = tmp_path / 'model.pth'
    if write_file:
        write_file(path)
    code, text, _ = run(monkeypatch, capsys, path, folder, *SMALL, *options)
    assert re.search(rf'\Aerror: .*{message}', code), code
    assert 'features' not in text


@pytest.mark.parametrize(
    'args', [['folder'], ['x.pth', 'folder', '--random=atto']]
)
def test_a_checkpoint_or_a_random_start(monkeypatch, capsys, args) -> None:
    code, _, errors = run(monkeypatch, capsys, *args)
    assert code == 2
    assert 'give CHECKPOINT FOLDER, or FOLDER --random ARCH' in errors
