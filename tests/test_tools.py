"""The tools as a user runs them, over drawn data at tiny size."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import torch

ROOT = Path(__file__).parents[1]
CONFIG = 'configs/upernet_convnextv2_atto_demo.py'
# A run of ten iterations, with two data workers and a checkpoint after five.
SHORT = [
    '--cfg-options',
    'train_cfg.max_iters=10',
    'train_cfg.val_interval=10',
    'default_hooks.checkpoint.interval=5',
    'default_hooks.logger.interval=1',
    'train_dataloader.batch_size=2',
    'model.backbone.drop_path_rate=0.2',
]


def tool(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )


def succeed(*args: str, **kwargs) -> str:
    done = tool(*args, **kwargs)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope='module')
def demo(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'demo'
    succeed('tools/make_demo_data.py', '--out', out, '--train', 12, '--val', 4)
    return out


@pytest.fixture(scope='module')
def trained(demo: Path, tmp_path_factory) -> Path:
    """The work dir of a finished short run."""
    work_dir = tmp_path_factory.mktemp('work')
    train(demo, work_dir)
    return work_dir


def train(demo: Path, work_dir: Path, *args: str) -> str:
    return succeed(*train_command(demo, work_dir), *args)


def train_command(demo: Path, work_dir: Path) -> list:
    return [
        'tools/train.py',
        CONFIG,
        f'--data-root={demo / "ade20k"}',
        f'--work-dir={work_dir}',
        *SHORT,
    ]


def losses(work_dir: Path) -> dict:
    """Loss by iteration; a resumed run's lines replace the first run's."""
    found = {}
    for log in sorted(work_dir.glob('*/*.log')):
        lines = re.findall(
            r'Iter\(train\) \[ *(\d+)/10\].*?loss: ([\d.]+)', log.read_text()
        )
        found.update((int(step), float(loss)) for step, loss in lines)
    return found


def test_train_logs_and_evaluates(trained: Path) -> None:
    assert sorted(losses(trained)) == list(range(1, 11))
    log = next(trained.glob('*/*.log')).read_text()
    assert 'Layer-wise learning-rate decay' in log
    assert re.search(r'mIoU: +[\d.]+', log)
    assert (trained / 'iter_10.pth').is_file()


def test_killed_run_resumes_exactly(
    trained: Path, demo: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, *map(str, train_command(demo, tmp_path))],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        start_new_session=True,
    )
    marker = tmp_path / 'last_checkpoint'
    deadline = time.time() + 120
    while not marker.exists() and time.time() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (tmp_path / 'iter_5.pth').is_file()
    assert not (tmp_path / 'iter_10.pth').exists()
    text = train(demo, tmp_path, '--resume')
    assert 'resumed epoch: 0, iter: 5' in text
    # The same losses, to the last digit printed, and the same weights.
    assert losses(tmp_path) == losses(trained)
    states = [
        torch.load(path / 'iter_10.pth', weights_only=False)['state_dict']
        for path in (trained, tmp_path)
    ]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, msg=name)


def test_test_and_tta(trained: Path, demo: Path, tmp_path: Path) -> None:
    command = [
        'tools/test.py',
        CONFIG,
        trained / 'iter_10.pth',
        f'--data-root={demo / "ade20k"}',
        f'--work-dir={tmp_path}',
    ]
    text = succeed(
        *command, f'--show-dir={tmp_path / "show"}', f'--out={tmp_path / "p"}'
    )
    assert re.search(r'^mIoU: [\d.]+$', text, re.M)
    assert len(list((tmp_path / 'p').glob('*.png'))) == 4
    assert len(list((tmp_path / 'show').rglob('*.png'))) == 4
    assert 'tta_pipeline' in tool(*command, '--tta').stderr


def test_predict_draws_beside_the_input(
    trained: Path, demo: Path, tmp_path: Path
) -> None:
    images = demo / 'ade20k/images/validation'
    bad = tmp_path / 'in' / 'deep'
    bad.mkdir(parents=True)
    first = sorted(images.iterdir())[0]
    (bad / 'fine.jpg').write_bytes(first.read_bytes())
    (bad / 'broken.jpg').write_bytes(b'not a picture')
    done = tool(
        'tools/predict.py',
        CONFIG,
        trained / 'iter_10.pth',
        tmp_path / 'in',
        f'--out={tmp_path / "out"}',
    )
    assert done.returncode == 1
    assert 'broken.jpg: not a readable image' in done.stderr
    pictures = list((tmp_path / 'out').rglob('*'))
    assert [p.name for p in pictures if p.is_file()] == ['fine.jpg.png']
    picture = cv2.imread(str(tmp_path / 'out/deep/fine.jpg.png'))
    source = cv2.imread(str(first))
    height, width = source.shape[:2]
    assert picture.shape == (height, 2 * width + 8, 3)
    assert (picture[:, :width] == source).all()
    assert (picture[:, -width:] != source).any()


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['tools/train.py', 'no.py'], 'config file not found: no.py'),
        (['tools/train.py', CONFIG, '--data-root=gone'], 'looked in'),
        (['tools/test.py', CONFIG, 'no.pth'], 'checkpoint not found: no.pth'),
        (
            ['tools/predict.py', CONFIG, 'no.pth', 'gone', '--out=x'],
            'no image at gone',
        ),
    ],
)
def test_user_errors_are_one_line(args: list, message: str) -> None:
    done = tool(*args)
    assert done.returncode != 0
    assert message in done.stderr
    assert 'Traceback' not in done.stderr


# An existing project: the host's own base model, only the type exchanged.
PROJECT = """
custom_imports = {imports}
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64)),
    backbone=dict(type='mmconvnext.ConvNeXtV2', arch='atto'),
    decode_head=dict(
        type='UPerHead', in_channels=[40, 80, 160, 320],
        in_index=[0, 1, 2, 3], channels=16, num_classes=5))
"""
STEP = """
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
import mmseg
cfg = Config.fromfile('config.py')
init_default_scope('mmseg')
from mmseg.structures import SegDataSample
model = MODELS.build(cfg.model).train()
sample = SegDataSample(gt_sem_seg=PixelData(data=torch.ones(1, 64, 64).long()))
data = dict(inputs=[torch.ones(3, 64, 64)] * 2, data_samples=[sample] * 2)
losses = model(**model.data_preprocessor(data, True), mode='loss')
losses['decode.loss_ce'].backward()
print(type(model.backbone).__module__)
"""


@pytest.mark.parametrize('imports', ['None', "dict(imports=['mmconvnext'])"])
def test_use_from_another_project(tmp_path: Path, imports: str) -> None:
    (tmp_path / 'config.py').write_text(PROJECT.format(imports=imports))
    text = succeed('-c', STEP, cwd=tmp_path)
    assert 'mmconvnext.convnext' in text
