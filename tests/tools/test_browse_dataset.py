"""tools/browse_dataset.py draws what the pipelines give."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from imports import import_tool

ROOT = Path(__file__).parents[2]
DEMO_CLASSES = '["disc","box","triangle","star","ring","cross"]'
# one recipe of each family, on drawn data
CASES = {
    'upernet_convnext_tiny_ade20k': 'ade20k',
    'upernet_convnext_base-22k_ade20k': 'ade20k',
    'mask_rcnn_convnextv2_base_coco': 'coco',
    'cascade_mask_rcnn_convnext_tiny_coco': 'coco',
}


@pytest.fixture(scope='module')
def demo(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'demo'
    import_tool('make_demo_data').make(out, train=3, val=1)
    return out


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_draws_labels_beside_the_image(
    name: str, demo: Path, tmp_path: Path
) -> None:
    options = []
    if CASES[name] == 'coco':
        classes = 'train_dataloader.dataset.metainfo.classes'
        options = ['--cfg-options', f'{classes}={DEMO_CLASSES}']
    command = [
        sys.executable,
        ROOT / 'tools' / 'browse_dataset.py',
        ROOT / 'configs' / f'{name}.py',
        f'--data-root={demo / CASES[name]}',
        f'--out={tmp_path}',
        '--number=2',
        *options,
    ]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pictures = sorted(tmp_path.glob('*.png'))
    assert len(pictures) == 2
    lines = [line for line in done.stdout.splitlines() if '.png: ' in line]
    for line, path in zip(lines, pictures):
        width, height = map(int, line.split(': ')[1].split(',')[0].split('x'))
        picture = cv2.imread(str(path))
        assert picture.shape == (height, 2 * width + 8, 3)
        plain, drawn = picture[:, :width], picture[:, -width:]
        assert (plain != drawn).any()
        assert np.ptp(plain) > 50
