"""Short runs of labels.py, on drawn class folders."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from labelled import image, write

from mmconvnext import ConvNeXtV2

SCRIPT = Path(__file__).with_name('labels.py')
OPTIONS = [
    'model.num_classes=2',
    'train_dataloader.batch_size=2',
    'train_dataloader.dataset.pipeline.1.scale=32',
    'val_dataloader.dataset.pipeline.1.scale=32',
    'param_scheduler.0.end=1',
    'param_scheduler.1.begin=1',
]


@pytest.mark.slow
def test_a_row_of_each_start(tmp_path: Path) -> None:
    for split in ('train', 'val'):
        for name, factor in (('dark', 4), ('light', 1)):
            for i in range(4):
                path = tmp_path / split / name / f'{i}.jpg'
                write(path, image(i) // factor)
    file = tmp_path / 'start.pth'
    state = {
        # GRN of zeros is refused: no training leaves it so
        name: value + 0.01 * ('grn' in name)
        for name, value in ConvNeXtV2('atto').state_dict().items()
    }
    torch.save(state, file)
    run = subprocess.run(
        [
            sys.executable,
            str(SCRIPT),
            f'--data-root={tmp_path}',
            f'--out={tmp_path / "runs"}',
            f'--pretrained={file}',
            '--seeds=0',
            '--shares=0.5',
            '--epochs=2',
            '--kinds=probe',
            '--options',
            *OPTIONS,
        ],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    lines = run.stdout.splitlines()
    assert [line.partition(': top-1')[0] for line in lines] == [
        f'probe, 50% of the labels, {start}'
        for start in ('random', 'pretrained')
    ]
    listed = (tmp_path / 'runs/train_0.5_0.txt').read_text().splitlines()
    assert [line.split()[1] for line in listed] == ['dark'] * 2 + ['light'] * 2
