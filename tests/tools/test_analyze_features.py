"""tools/analyze_features.py on drawn images."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from imports import import_tool

from mmconvnext import ConvNeXt, ConvNeXtV2, checkpoint
from mmconvnext.analysis import features
from mmconvnext.analysis.measure import WHERE, measure
from mmconvnext.analysis.measure import features as features_of
from mmconvnext.files import find_images, read_image

tool = import_tool('analyze_features')

ARCH = dict(depths=[1, 1, 2, 1], dims=[8, 16, 24, 32])
LAYERS = [f'stages.{n}' for n in ('0.0', '1.0', '2.0', '2.1', '3.0')]
CONFIG = 'configs/upernet_convnextv2_atto_demo.py'


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for param in model.parameters():
            param += 0.2 * torch.randn_like(param)
    return model.eval()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three classes of four noisy images, of several sizes and types."""
    generator = np.random.default_rng(0)
    for k, name in enumerate(('cat', 'dog', 'owl')):
        for i in range(4):
            size = (40 + 8 * i, 70 - 6 * k, 3)
            pixels = generator.integers(0, 90, size) + 80 * (np.arange(3) == k)
            path = (
                tmp_path / 'images' / name / f'{i}.{"pj"[i % 2]}{"np"[i % 2]}g'
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), pixels.astype(np.uint8))
    return tmp_path / 'images'


@pytest.fixture
def files(tmp_path: Path) -> dict:
    """Checkpoints of both versions: bare, of pre-training, of another."""
    v1 = randomised(ConvNeXt(ARCH, layer_scale_init_value=0.5))
    v2 = randomised(ConvNeXtV2(ARCH))
    fcmae = {f'backbone.{k}': v for k, v in v2.state_dict().items()}
    block = ConvNeXtV2(ARCH).stages[3][0].state_dict()
    fcmae.update({f'decoder.0.{k}': v for k, v in block.items()})
    fcmae.update(
        {
            'mask_token': torch.zeros(1, 32, 1, 1),
            'proj.weight': torch.zeros(32, 32, 1, 1),
            'pred.weight': torch.zeros(3072, 32, 1, 1),
        }
    )
    states = dict(
        v1=v1.state_dict(),
        v2=dict(state_dict=fcmae, meta={}, optimizer={}),
        timm=checkpoint.export(randomised(ConvNeXtV2('atto')), 'timm'),
    )
    for name, state in states.items():
        torch.save(state, tmp_path / f'{name}.pth')
    return {
        'v1': v1,
        'v2': v2,
        **{f'{name}.pth': tmp_path / f'{name}.pth' for name in states},
    }


def run(monkeypatch, capsys, *args) -> tuple:
    """Return the exit status and what was printed."""
    argv = ['analyze_features.py', *map(str, args)]
    monkeypatch.setattr(sys, 'argv', argv)
    with pytest.raises(SystemExit) as stop:
        tool.main()
    captured = capsys.readouterr()
    return stop.value.code, captured.out + captured.err


def numbers(out: Path) -> dict:
    """(label, layer) -> row of the CSV."""
    with (out / 'features.csv').open() as file:
        rows = list(csv.DictReader(file))
    return {(row['label'], row['layer']): row for row in rows}


@pytest.mark.parametrize('where', ['gelu', 'grn', 'block'])
def test_numbers_are_those_of_each_image_by_itself(
    monkeypatch, capsys, images: Path, files: dict, tmp_path: Path, where: str
) -> None:
    out = tmp_path / 'out'
    args = [images, f'--out={out}', f'--where={where}', '--size=64']
    named = [f'{v}={files[f"{v}.pth"]}' for v in ('v1', 'v2')]
    code, text = run(monkeypatch, capsys, *args, *named)
    assert code == 0 and WHERE[where] in text
    assert f'"where": "{where}"' in (out / 'features.json').read_text()
    found = numbers(out)
    assert list(found) == [(v, n) for v in ('v1', 'v2') for n in LAYERS]
    paths = find_images(str(images))
    assert len(paths) == 12
    for version in ('v1', 'v2'):
        expected = by_hand(files[version], paths, where)
        for i, (layer, values) in enumerate(expected.items()):
            row = found[version, layer]
            assert float(row['depth']) == pytest.approx(i / 4)
            for key in ('distance', 'dead', 'saturated'):
                assert float(row[key]) == pytest.approx(
                    np.mean(values[key]), abs=2e-6
                )
            spread = np.std(values['distance'])
            assert float(row['distance_std']) == pytest.approx(
                spread, abs=2e-6
            )


@torch.no_grad()
def by_hand(model: torch.nn.Module, paths: list, where: str) -> dict:
    """Run the stages one after the other and measure on the way."""
    found = {}
    for path in paths:
        image = features.resize(read_image(path), 64)
        x = features.normalise(image)
        for i, down in enumerate(model.downsample_layers):
            x = down(x)
            for j, block in enumerate(model.stages[i]):
                y = block(x)
                (maps,) = features_of(block, where, x, output=y)
                row = found.setdefault(f'stages.{i}.{j}', {})
                for key, value in measure(maps)._asdict().items():
                    row.setdefault(key, []).append(value.item())
                x = y
    return found


def test_any_format_and_random_weights_are_measured(
    monkeypatch, capsys, images: Path, files: dict, tmp_path: Path
) -> None:
    out = tmp_path / 'out'
    code, text = run(
        monkeypatch,
        capsys,
        images,
        '--size=32',
        f'--out={out}',
        f'--config=random={CONFIG}',
        files['timm.pth'],
        '--number=3',
    )
    assert code == 0, text
    about = json.loads((out / 'features.json').read_text())
    assert about['images'] == 3
    models = about['models']
    assert models['timm']['about'].startswith('timm, ConvNeXt V2 atto')
    assert models['random']['about'] == (
        'ConvNeXtV2 atto, random weights, seed 0'
    )
    # One position is left in the last stage: saturation has no meaning.
    assert numbers(out)['timm', 'stages.3.1']['saturated'] == ''
    assert about['layers'][-1]['saturated'] is None
    assert {p.name for p in out.iterdir()} == {
        'features.csv',
        'features.json',
        'distance.png',
        'channels.png',
        *(f'mosaic_stages.{n}.png' for n in ('0.1', '1.1', '2.5', '3.1')),
    }


def test_selectivity_and_a_broken_image(
    monkeypatch, capsys, images: Path, files: dict, tmp_path: Path
) -> None:
    (images / 'dog' / 'broken.jpg').write_bytes(b'no picture')
    out = tmp_path / 'out'
    code, text = run(
        monkeypatch,
        capsys,
        images,
        f'--out={out}',
        '--size=64',
        '--class-folders',
        '--layers',
        'stages.2.*',
        '--where=block',
        f'--config={CONFIG}',
    )
    assert code == 1
    assert 'dog/broken.jpg: not a readable image' in text
    about = json.loads((out / 'features.json').read_text())
    assert about['images'] == 12
    assert list(about['unreadable']) == [str(images / 'dog/broken.jpg')]
    values = [row['selectivity'] for row in about['layers']]
    # The images of a class have its colour, and a colour only.
    assert all(0 < value < 1 for value in values)
    assert (out / 'selectivity.png').is_file()
    assert len(list(out.glob('mosaic_stages.2.?.png'))) == 6


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['gone', 'x.pth'], 'no image at gone'),
        (['IMAGES'], r'one checkpoint or config at least.*got \[\]'),
        (['IMAGES', '--config', f'a={CONFIG}', '--layers', 'x'], "'x'; there"),
        (
            ['IMAGES/cat', '--config', CONFIG, '--class-folders'],
            'in no folder',
        ),
        (
            ['IMAGES', '--config', CONFIG, '--config', CONFIG],
            'each of another name',
        ),
        (['IMAGES', 'nothing.pth'], 'nothing.pth'),
    ],
)
def test_what_the_user_can_fix_is_one_line(
    monkeypatch, capsys, images: Path, tmp_path: Path, args: list, message: str
) -> None:
    args = [arg.replace('IMAGES', str(images)) for arg in args]
    code, _ = run(monkeypatch, capsys, *args, f'--out={tmp_path / "out"}')
    assert code.startswith('error: ')
    assert re.search(message, code)
    assert not (tmp_path / 'out').exists()


def test_no_readable_image_is_an_error(
    monkeypatch, capsys, tmp_path: Path
) -> None:
    (tmp_path / 'x.jpg').write_bytes(b'')
    args = [tmp_path, '--config', CONFIG, f'--out={tmp_path / "out"}']
    code, _ = run(monkeypatch, capsys, *args)
    assert 'no usable image' in code and 'x.jpg' in code


def test_names_of_curves() -> None:
    assert features.named('a=b/c.pth') == ('a', 'b/c.pth')
    assert features.named('b/c.pth') == ('c', 'b/c.pth')
    assert features.named('https://x.org/c.pth?d=e')[0] == 'c'


def test_images_are_spread_and_cut() -> None:
    paths = [Path(str(i)) for i in range(10)]
    assert [p.name for p in features.spread(paths, 4)] == ['0', '3', '6', '9']
    assert features.spread(paths, None) == features.spread(paths, 99) == paths
    image = np.zeros((30, 90, 3), np.uint8)
    image[:, 30:60] = 200
    cut = features.resize(image, 60)
    assert cut.shape == (60, 60, 3) and cut[:, 5:-5].min() == 200
    assert features.resize(image, 0) is image


MEMORY = """
import re, torch
from mmconvnext.analysis.measure import LayerStatistics
maps = torch.randn(1, 64, 64, 4096)
statistics = LayerStatistics()
for i in range(100):
    maps[..., :40] = i
    statistics.update(maps, 'ab'[i % 2])
statistics.summary(), statistics.selectivity()
status = open('/proc/self/status').read()
print(int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path('/proc/self/status').exists(), reason='the peak needs Linux'
)
def test_a_wide_layer_needs_little_memory() -> None:
    """4096 channels at 64 x 64, 100 images: below 2 GiB in all."""
    done = subprocess.run(
        [sys.executable, '-c', MEMORY], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 64 < int(done.stdout) < 2048
