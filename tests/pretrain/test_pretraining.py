"""Pre-training by tools/train.py, and fine-tuning that starts from it."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

import cv2
import masked
import numpy as np
import pytest
import torch
from imports import import_tool
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from runs import kill_after, losses, succeed, tool

from mmconvnext import FCMAE, ConvNeXtV2, checkpoint
from mmconvnext.checkpoint.formats import from_ours, rename
from mmconvnext.pretrain import fcmae

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/fcmae_convnextv2_atto_camvid.py'
UPERNET = ROOT / 'configs/upernet_convnextv2_atto_demo.py'
MASK_RCNN = ROOT / 'configs/mask_rcnn_convnextv2_atto_demo.py'
OPTIONS = [
    'train_cfg.max_epochs=2',
    'train_dataloader.batch_size=2',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.interval=1',
    'model.decoder_dim=64',
    'train_dataloader.dataset.pipeline.1.scale=64',
]


@pytest.fixture(scope='module')
def demo(tmp_path_factory) -> Path:
    """Drawn images; one of the training files is cut in half."""
    out = tmp_path_factory.mktemp('data') / 'demo'
    import_tool('make_demo_data').make(out, train=8, val=2)
    first = sorted((out / 'ade20k/images/training').iterdir())[0]
    content = first.read_bytes()
    first.with_name('half.png').write_bytes(content[: len(content) // 2])
    return out


def command(demo: Path, work_dir: Path, *options: str) -> list:
    return [
        'tools/train.py',
        CONFIG,
        f'--data-root={demo / "ade20k"}',
        f'--work-dir={work_dir}',
        '--cfg-options',
        *OPTIONS,
        *options,
    ]


@pytest.fixture(scope='module')
def trained(demo: Path, tmp_path_factory) -> Path:
    work_dir = tmp_path_factory.mktemp('fcmae')
    succeed(*command(demo, work_dir))
    return work_dir


def test_pictures_and_skipped_files_are_there(trained: Path):
    skipped = (trained / 'skipped_images.txt').read_text().splitlines()
    assert len(skipped) == 1
    assert 'half.png\t' in skipped[0]
    log = next(trained.glob('*/*.log')).read_text()
    assert '1 images could not be read and are skipped' in log
    assert 'images skipped: 1' in log
    assert 'eta: ' in log
    for name in ('loss_curve.png', 'reconstructions/epoch_2.png'):
        picture = cv2.imread(str(trained / name))
        assert picture.shape[0] > 200
        assert len(np.unique(picture)) > 50


@pytest.mark.slow
def test_killed_run_resumes_exactly(trained: Path, demo: Path, tmp_path: Path):
    arguments = command(demo, tmp_path)
    kill_after(arguments, tmp_path)
    assert not (tmp_path / 'epoch_2.pth').exists()
    arguments.insert(2, '--resume')
    assert 'resumed epoch: 1' in succeed(*arguments, '--verbose')
    # Other masks or other crops would show in the first digits.
    assert losses(tmp_path) == losses(trained)
    states = [
        checkpoint.read(path / 'epoch_2.pth')['state_dict']
        for path in (trained, tmp_path)
    ]
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, msg=key)


COMMON = """
_base_ = '{config}'
custom_hooks = [
    dict(type='mmconvnext.ExactResumeHook'), dict(type='LossFile')]
model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
train_pipeline = [
    dict(type='mmconvnext.LoadImage'),
    dict(type='mmconvnext.RandomResizedCrop', scale=(64, 96),
         area_range=(1.0, 1.0), aspect_range=(1.0, 1.0)),
    dict(type='mmconvnext.PackImage')]
train_dataloader = dict(
    num_workers=0, sampler=dict(shuffle=False), drop_last=False,
    dataset=dict(pipeline=train_pipeline))
model = dict(
    decoder_dim=64,
    backbone=dict(
        arch=dict(_delete_=True, depths=[1, 1, 2, 1], dims=[8, 16, 24, 32])))
param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]
# Adam would scale the float noise of the smallest gradients up to its rate.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=0.5, momentum=0.9))
default_hooks = dict(checkpoint=dict(interval=2))
train_cfg = dict(max_epochs=2)
"""


def processes(config: Path, demo: Path, work_dir: Path, number: int) -> List:
    launcher = ['-m', 'torch.distributed.run', '--standalone']
    words = [
        sys.executable,
        *(launcher + ['--nproc_per_node=2'] if number == 2 else []),
        ROOT / 'tests/gloo.py',
        config,
        f'--data-root={demo / "coco"}',
        f'--work-dir={work_dir}',
        '--cfg-options',
        f'train_dataloader.batch_size={4 // number}',
        'train_dataloader.dataset.data_prefix.img_path=train2017',
    ]
    done = subprocess.run(
        [str(word) for word in words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    files = sorted(work_dir.glob('losses_*.jsonl'))
    assert len(files) == number
    rows = [map(json.loads, f.read_text().splitlines()) for f in files]
    return [sum(r['loss'] for r in same) / number for same in zip(*rows)]


@pytest.mark.slow
def test_two_processes_are_one(demo: Path, tmp_path: Path):
    """Same masks for the same images, the same losses and weights."""
    config = tmp_path / 'two.py'
    config.write_text(COMMON.format(config=CONFIG))
    one = processes(config, demo, tmp_path / 'one', 1)
    two = processes(config, demo, tmp_path / 'two', 2)
    assert len(set(one)) == len(one) == 4
    assert two == pytest.approx(one, rel=2e-5)
    states = [
        checkpoint.read(tmp_path / name / 'epoch_2.pth')['state_dict']
        for name in ('one', 'two')
    ]
    for key, value in states[0].items():
        torch.testing.assert_close(
            states[1][key], value, rtol=1e-4, atol=1e-5, msg=key
        )


# --- what fine-tuning and further pre-training start from -------------------


def official(model: FCMAE, form: str) -> Dict:
    """Files as the authors' pre-training writes them, and their release."""
    backbone = {
        k: v
        for k, v in model.backbone.state_dict().items()
        if not k.startswith('norm')
    }
    if form == 'released':
        spelled = checkpoint.export(model.backbone, 'official')
        return {
            'model': {
                k: v for k, v in spelled.items() if not k.startswith('norm')
            }
        }
    pairs = from_ours(checkpoint.FORMATS['minkowski'], {'norm.weight': 0})
    state = {}
    for name, value in backbone.items():
        state[f'encoder.{rename(name, pairs)}'] = sparse(name, value)
    for name, value in model.state_dict().items():
        if not name.startswith('backbone.'):
            if '.grn.' in name:
                value = value.view(1, 1, 1, -1)
            state[name] = value.clone()
    return {'model': state, 'optimizer': {}, 'epoch': 3}


def sparse(name: str, value: torch.Tensor) -> torch.Tensor:
    """MinkowskiEngine's shapes: (k * k, in, out), the height fastest."""
    if name.startswith('downsample_layers.0'):
        return value.clone()
    if 'dwconv.weight' in name:
        return value[:, 0].permute(2, 1, 0).flatten(0, 1).contiguous()
    if value.ndim == 4:
        return value.permute(3, 2, 1, 0).flatten(0, 1).contiguous()
    convolution = 'dwconv' in name or re.match(r'down\w+\.\d\.1', name)
    if '.grn.' in name or (convolution and name.endswith('bias')):
        return value[None].clone()
    return value.clone()


FORMS = ('ours', 'released', 'minkowski')


@pytest.fixture(scope='module')
def source() -> FCMAE:
    backbone = dict(type='mmconvnext.ConvNeXtV2', arch='atto')
    return masked.randomise(FCMAE(backbone, decoder_dim=64))


@pytest.fixture(params=FORMS)
def form(request) -> str:
    return request.param


@pytest.fixture
def weights(form: str, source: FCMAE, tmp_path: Path) -> Path:
    state = (
        {'state_dict': source.state_dict(), 'meta': {}}
        if form == 'ours'
        else official(source, form)
    )
    path = tmp_path / f'{form}.pth'
    torch.save(state, path)
    return path


def assert_same_encoder(form: str, found: ConvNeXtV2, source: FCMAE):
    expected = source.backbone.state_dict()
    names = [n for n in found.state_dict() if not n.startswith('norm')]
    assert len(names) == 136
    for name in names:
        assert torch.equal(found.state_dict()[name], expected[name]), name
    if form == 'ours':
        assert torch.equal(found.norm3.weight, source.backbone.norm3.weight)


@pytest.mark.parametrize('config', [UPERNET, MASK_RCNN], ids=lambda p: p.stem)
def test_fine_tuning_starts_from_it(
    config: Path, form: str, weights: Path, source: FCMAE
):
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(weights)
    )
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    assert_same_encoder(form, model.backbone, source)


@pytest.mark.parametrize('name', ['model', 'backbone'])
def test_pre_training_goes_on_from_it(
    name: str, form: str, weights: Path, source: FCMAE
):
    init_cfg = dict(type='Pretrained', checkpoint=str(weights))
    cfg = dict(type='mmconvnext.ConvNeXtV2', arch='atto')
    target = FCMAE(
        {**cfg, 'init_cfg': init_cfg if name == 'backbone' else None},
        decoder_dim=64,
        init_cfg=init_cfg if name == 'model' else None,
    )
    before = target.pred.weight.clone()
    target.init_weights()
    assert_same_encoder(form, target.backbone, source)
    has_decoder = form != 'released' and name == 'model'
    assert torch.equal(target.pred.weight, before) != has_decoder
    if has_decoder:
        for key, value in source.state_dict().items():
            if not key.startswith('backbone.norm3') or form == 'ours':
                assert torch.equal(target.state_dict()[key], value), key
    if has_decoder and form == 'ours':
        images = torch.randn(2, 3, 64, 96)
        mask = target.random_mask(images)
        losses = [m(images, mask=mask)['loss'] for m in (source, target)]
        assert torch.equal(*losses)


@pytest.mark.parametrize('encoder_norm', [True, False])
def test_a_norm_that_the_decoder_does_not_know(
    encoder_norm: bool,
    form: str,
    weights: Path,
    source: FCMAE,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is said in the log; without it the loss is the authors' one."""
    said = []
    monkeypatch.setattr(
        fcmae, 'print_log', lambda text, **kwargs: said.append(text)
    )
    target = FCMAE(
        dict(type='mmconvnext.ConvNeXtV2', arch='atto'),
        decoder_dim=64,
        encoder_norm=encoder_norm,
        init_cfg=dict(type='Pretrained', checkpoint=str(weights)),
    )
    target.init_weights()
    assert hasattr(target.backbone.norm3, 'weight') == encoder_norm
    fits = form == 'released' or encoder_norm == (form == 'ours')
    warnings = [text for text in said if 'norm3' in text]
    assert len(warnings) == (not fits)
    if form == 'minkowski' and not encoder_norm:
        images = torch.randn(2, 3, 64, 96)
        mask = target.random_mask(images)
        without = copy.deepcopy(source)
        without.backbone.norm3 = torch.nn.Identity()
        losses = [m(images, mask=mask)['loss'] for m in (without, target)]
        assert torch.equal(*losses)
        # Fine-tuning takes the encoder, and starts norm3 itself.
        checkpoint.load(ConvNeXtV2('atto'), target.state_dict())


def test_half_a_decoder_and_other_sizes_are_refused(source: FCMAE):
    state = source.state_dict()
    half = {k: v for k, v in state.items() if k != 'pred.bias'}
    cfg = dict(type='mmconvnext.ConvNeXtV2', arch='atto')
    for given, width, message in (
        (half, 64, 'missing beside the backbone'),
        (state, 32, 'the model has'),
    ):
        target = FCMAE(cfg, decoder_dim=width)
        before = {k: v.clone() for k, v in target.state_dict().items()}
        with pytest.raises(checkpoint.CheckpointError, match=message):
            fcmae.load(target, given)
        for key, value in target.state_dict().items():
            assert torch.equal(before[key], value), key


@pytest.mark.slow
def test_the_chain(trained: Path, demo: Path, tmp_path: Path):
    """The three commands of configs/README.md, shortened."""
    for config, data, limit in (
        (UPERNET, 'ade20k', 'train_cfg.max_iters=1'),
        (MASK_RCNN, 'coco', 'train_cfg.max_epochs=1'),
    ):
        text = succeed(
            'tools/train.py',
            config,
            f'--data-root={demo / data}',
            f'--work-dir={tmp_path / data}',
            '--cfg-options',
            limit,
            'train_dataloader.batch_size=2',
            'model.backbone.init_cfg.type=Pretrained',
            f'model.backbone.init_cfg.checkpoint={trained / "epoch_2.pth"}',
            '--verbose',
        )
        # norm3 comes along; the decoder does not.
        assert 'loaded     138 tensors' in text
        assert "outside 'state_dict.backbone.'" in text


def test_predict_draws_panels(trained: Path, demo: Path, tmp_path: Path):
    images = demo / 'ade20k/images/validation'
    succeed(
        'tools/predict.py',
        trained / CONFIG.name,
        trained / 'epoch_2.pth',
        images,
        f'--out={tmp_path}',
    )
    found = sorted(tmp_path.rglob('*.png'))
    assert len(found) == len(list(images.iterdir()))
    picture = cv2.imread(str(found[0]))
    assert picture.shape[1] > 2 * picture.shape[0]


def test_test_tool_says_what_fcmae_has_not(trained: Path):
    done = tool(
        'tools/test.py', trained / CONFIG.name, trained / 'epoch_2.pth'
    )
    assert done.returncode != 0
    assert 'has no test data' in done.stderr
