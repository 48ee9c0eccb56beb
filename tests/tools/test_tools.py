"""The tools as a user runs them, over drawn data at tiny size."""

import pickle
import re
from pathlib import Path
from typing import List, NamedTuple

import cv2
import pytest
import torch
from imports import import_tool
from mmengine.config import Config
from runs import ROOT, kill_after, losses, succeed, tool

from mmconvnext import ConvNeXt, ConvNeXtV2, checkpoint, cli, mmcv_ops
from mmconvnext.analysis import measure

TOOLS = sorted((ROOT / 'tools').glob('*.py'))


class Run(NamedTuple):
    """A config with what makes a short run of it, and where it pauses."""

    config: str
    data: str
    images: str
    options: List[str]
    middle: str
    last: str
    metric: str


COMMON = ['default_hooks.logger.interval=1', 'train_dataloader.batch_size=2']
RUNS = {
    'segmentation': Run(
        'configs/upernet_convnextv2_atto_demo.py',
        'ade20k',
        'ade20k/images/validation',
        [
            *COMMON,
            'train_cfg.max_iters=10',
            'train_cfg.val_interval=10',
            'default_hooks.checkpoint.interval=5',
            'model.backbone.drop_path_rate=0.2',
        ],
        'iter_5.pth',
        'iter_10.pth',
        'mIoU',
    ),
    'detection': Run(
        'configs/mask_rcnn_convnextv2_atto_demo.py',
        'coco',
        'coco/val2017',
        [
            *COMMON,
            'train_cfg.max_epochs=2',
            'train_cfg.val_interval=2',
            'model.backbone.drop_path_rate=0.2',
            # So few steps need not lead to a score of the default 0.05.
            'model.test_cfg.rcnn.score_thr=0.0',
        ],
        'epoch_1.pth',
        'epoch_2.pth',
        'coco/segm_mAP',
    ),
}
CONFIG = RUNS['segmentation'].config


@pytest.mark.parametrize('path', TOOLS, ids=lambda path: path.stem)
def test_every_tool_explains_itself_at_once(path: Path) -> None:
    """Importing torch takes seconds: --help does without."""
    done = tool('-X', 'importtime', path, '--help')
    assert done.returncode == 0, done.stderr[-3000:]
    if path.stem == 'arguments':  # no tool: what tools share
        assert done.stdout == ''
    else:
        assert done.stdout.startswith(f'usage: {path.name} ')
    loaded = {
        line.rpartition('|')[2].strip().split('.')[0]
        for line in done.stderr.splitlines()
    }
    assert 'argparse' in loaded
    assert not loaded & {'torch', 'mmengine', 'mmconvnext'}


def test_choices_of_the_tools_are_those_of_the_package() -> None:
    """Tools repeat a few names, since they parse before they import."""
    assert tuple(measure.WHERE) == import_tool('analyze_features').PLACES
    formats = import_tool('convert_checkpoint').FORMATS
    assert sorted(formats) == sorted(checkpoint.EXPORTS)


def test_a_setting_without_a_value_is_refused_at_once() -> None:
    done = tool('tools/train.py', CONFIG, '--cfg-options', 'train_cfg')
    assert done.returncode == 2
    assert "'train_cfg' is not of the form KEY=VALUE" in done.stderr


@pytest.mark.parametrize(
    ('batch', 'processes', 'scaled', 'message'),
    [
        (16, 1, False, ''),
        (2, 8, True, ''),
        (2, 4, False, 'batch size 8, the recipe has 16; the learning rate '),
        (2, 4, False, 'stays: see --auto-scale-lr'),
        (32, 1, True, 'batch size 32, the recipe has 16; the learning rate '),
        (32, 1, True, 'is scaled'),
    ],
)
def test_train_warns_of_another_batch_size(
    monkeypatch, capsys, batch: int, processes: int, scaled: bool, message: str
) -> None:
    monkeypatch.setattr(cli, 'get_world_size', lambda: processes)
    cfg = dict(
        train_dataloader=dict(batch_size=batch),
        optim_wrapper=dict(),
        auto_scale_lr=dict(enable=scaled, base_batch_size=16),
    )
    cli.warn_of_batch_size(Config(cfg))
    printed = capsys.readouterr().out
    assert message in printed
    assert printed.startswith('warning: ') == bool(message)
    del cfg['auto_scale_lr']  # a config that names no batch size
    cli.warn_of_batch_size(Config(cfg))
    assert capsys.readouterr().out == ''


@pytest.fixture(scope='module')
def demo(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'demo'
    succeed('tools/make_demo_data.py', '--out', out, '--train', 12, '--val', 4)
    return out


@pytest.fixture(scope='module', params=RUNS)
def name(request) -> str:
    return request.param


@pytest.fixture(scope='module')
def trained(name: str, demo: Path, tmp_path_factory) -> Path:
    """The work dir of a finished short run."""
    work_dir = tmp_path_factory.mktemp('work')
    succeed(*train_command(RUNS[name], demo, work_dir))
    return work_dir


def train_command(run: Run, demo: Path, work_dir: Path) -> list:
    return [
        'tools/train.py',
        run.config,
        f'--data-root={demo / run.data}',
        f'--work-dir={work_dir}',
        '--cfg-options',
        *run.options,
    ]


def test_train_logs_and_evaluates(name: str, trained: Path) -> None:
    assert len(losses(trained)) >= 10
    log = next(trained.glob('*/*.log')).read_text()
    assert 'Layer-wise learning-rate decay' in log
    assert re.search(rf'{RUNS[name].metric}: +[\d.]+', log)
    assert (trained / RUNS[name].last).is_file()


@pytest.mark.slow
def test_a_detector_that_finds_nothing(demo: Path, tmp_path: Path) -> None:
    run = RUNS['detection']
    options = [
        *run.options,
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
        'model.test_cfg.rcnn.score_thr=1.0',
    ]
    short = run._replace(options=options)
    text = succeed(*train_command(short, demo, tmp_path))
    assert 'epoch 1: no metric has a value' in text
    assert (tmp_path / 'epoch_1.pth').is_file()
    text = succeed(
        'tools/test.py',
        run.config,
        tmp_path / 'epoch_1.pth',
        f'--data-root={demo / run.data}',
        f'--work-dir={tmp_path}/test',
        f'--out={tmp_path}/p.pkl',
        '--cfg-options',
        'model.test_cfg.rcnn.score_thr=1.0',
    )
    assert 'no metric has a value' in text
    rows = pickle.loads((tmp_path / 'p.pkl').read_bytes())
    assert [len(row['pred_instances']['scores']) for row in rows] == [0] * 4


@pytest.mark.slow
def test_killed_run_resumes_exactly(
    name: str, trained: Path, demo: Path, tmp_path: Path
) -> None:
    run = RUNS[name]
    kill_after(train_command(run, demo, tmp_path), tmp_path)
    assert (tmp_path / run.middle).is_file()
    assert not (tmp_path / run.last).exists()
    text = succeed(*train_command(run, demo, tmp_path), '--resume')
    assert re.search(r'^weights +resumed from .* after iteration', text, re.M)
    # The same losses, to the last digit printed, and the same weights.
    assert losses(tmp_path) == losses(trained)
    states = [
        torch.load(path / run.last, weights_only=False)['state_dict']
        for path in (trained, tmp_path)
    ]
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, msg=key)


def test_test_writes_predictions(
    name: str, trained: Path, demo: Path, tmp_path: Path
) -> None:
    run = RUNS[name]
    command = [
        'tools/test.py',
        trained / Path(run.config).name,  # as it was trained
        trained / run.last,
        f'--data-root={demo / run.data}',
        f'--work-dir={tmp_path}',
    ]
    text = succeed(
        *command, f'--show-dir={tmp_path / "show"}', f'--out={tmp_path}/p.pkl'
    )
    assert re.search(rf'^{run.metric}: [\d.]+$', text, re.M)
    assert len(pickle.loads((tmp_path / 'p.pkl').read_bytes())) == 4
    pictures = [
        path
        for path in (tmp_path / 'show').rglob('*')
        if path.suffix in ('.jpg', '.png')
    ]
    assert len(pictures) == 4


@pytest.mark.slow
def test_label_maps_and_missing_tta(demo: Path, tmp_path: Path) -> None:
    run = RUNS['segmentation']
    succeed(*train_command(run, demo, tmp_path), 'train_cfg.max_iters=5')
    command = [
        'tools/test.py',
        run.config,
        tmp_path / 'iter_5.pth',
        f'--data-root={demo / run.data}',
        f'--work-dir={tmp_path}',
    ]
    succeed(*command, f'--out={tmp_path / "maps"}')
    assert len(list((tmp_path / 'maps').glob('*.png'))) == 4
    assert 'tta_pipeline' in tool(*command, '--tta').stderr


def test_predict_draws_beside_the_input(
    name: str, trained: Path, demo: Path, tmp_path: Path
) -> None:
    run = RUNS[name]
    bad = tmp_path / 'in' / 'deep'
    bad.mkdir(parents=True)
    first = sorted((demo / run.images).iterdir())[0]
    (bad / 'fine.jpg').write_bytes(first.read_bytes())
    (bad / 'broken.jpg').write_bytes(b'not a picture')
    done = tool(
        'tools/predict.py',
        trained / Path(run.config).name,  # as it was trained
        trained / run.last,
        tmp_path / 'in',
        f'--out={tmp_path / "out"}',
        '--score-thr=0.0',
    )
    assert done.returncode == 1
    assert 'broken.jpg: not a readable image' in done.stderr
    pictures = list((tmp_path / 'out').rglob('*'))
    assert [p.name for p in pictures if p.is_file()] == ['fine.png']
    picture = cv2.imread(str(tmp_path / 'out/deep/fine.png'))
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


# An existing project: the host's own parts, only the backbone's type is new.
PROJECTS = {
    'mmseg': """
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64)),
    backbone=dict(type='mmconvnext.ConvNeXtV2', arch='atto'),
    decode_head=dict(
        type='UPerHead', in_channels=[40, 80, 160, 320],
        in_index=[0, 1, 2, 3], channels=16, num_classes=5))
""",
    'mmdet': """
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
    backbone=dict(
        type='mmconvnext.ConvNeXtV2', arch='atto', out_indices=(1, 2, 3)),
    neck=dict(
        type='FPN', in_channels=[80, 160, 320], out_channels=16,
        num_outs=3),
    bbox_head=dict(
        type='RetinaHead', num_classes=5, in_channels=16, feat_channels=16,
        anchor_generator=dict(
            type='AnchorGenerator', scales=[4], ratios=[1.0],
            strides=[8, 16, 32]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder')),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4),
        sampler=dict(type='PseudoSampler'), allowed_border=-1,
        pos_weight=-1))
""",
}
STEP = """
import sys
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmengine.optim import build_optim_wrapper
scope = sys.argv[1]
if sys.argv[2] == 'stand-in':
    from mmconvnext import mmcv_ops
    mmcv_ops.install()
cfg = Config.fromfile('config.py')
init_default_scope(scope)
model = MODELS.build(cfg.model).train()
if scope == 'mmseg':
    from mmseg.structures import SegDataSample
    truth = PixelData(data=torch.ones(1, 64, 64).long())
    sample = SegDataSample(gt_sem_seg=truth)
else:
    from mmdet.structures import DetDataSample
    shape = dict(img_shape=(64, 64), batch_input_shape=(64, 64))
    truth = InstanceData(
        bboxes=torch.tensor([[8.0, 8, 40, 40]]), labels=torch.tensor([1]))
    sample = DetDataSample(metainfo=shape, gt_instances=truth)
optim = build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=0.1)))
data = dict(inputs=[torch.ones(3, 64, 64)] * 2, data_samples=[sample] * 2)
losses = model.train_step(data, optim)
print(type(model.backbone).__module__, losses)
"""


@pytest.mark.parametrize('scope', PROJECTS)
@pytest.mark.parametrize(
    'imports', ['None', "dict(imports=['mmconvnext'])"], ids=['bare', 'custom']
)
def test_use_from_another_project(
    tmp_path: Path, scope: str, imports: str
) -> None:
    text = f'custom_imports = {imports}\n' + PROJECTS[scope]
    (tmp_path / 'config.py').write_text(text)
    operators = mmcv_ops.status()['source']
    printed = succeed('-c', STEP, scope, operators, cwd=tmp_path)
    assert 'mmconvnext.models.convnext' in printed
    assert 'nan' not in printed


@pytest.mark.slow
def test_training_starts_from_a_timm_file(demo: Path, tmp_path: Path) -> None:
    """The account is in the log; a wrong file stops before training."""
    run = RUNS['segmentation']
    model = ConvNeXtV2('atto')
    for name, param in model.named_parameters():
        if '.grn.' in name:
            torch.nn.init.normal_(param)
    weights = tmp_path / 'timm.pth'
    torch.save(checkpoint.export(model, 'timm'), weights)
    command = train_command(run, demo, tmp_path / 'work')
    option = 'model.backbone.init_cfg.type=Pretrained'
    checkpoint_at = 'model.backbone.init_cfg.checkpoint='
    text = succeed(
        *command,
        'train_cfg.max_iters=1',
        option,
        f'{checkpoint_at}{weights}',
        '--verbose',
    )
    assert 'timm, ConvNeXt V2 atto (depths 2 2 6 2' in text
    assert 'norm0, norm1, norm2, norm3' in text.replace('(', '')
    torch.save(checkpoint.export(ConvNeXt('atto'), 'timm'), weights)
    done = tool(*command, option, f'{checkpoint_at}{weights}')
    assert done.returncode != 0
    assert 'the file is ConvNeXt V1, the model is V2' in done.stderr
    assert 'Iter(train)' not in done.stdout
