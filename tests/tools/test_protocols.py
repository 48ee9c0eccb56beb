"""How tools/test.py tests: named protocols, test-time augmentation."""

import argparse
from pathlib import Path

import mmcv.transforms as mmcv
import pytest
import torch
from imports import import_tool
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmconvnext import cli
from mmconvnext.inference import protocols

ROOT = Path(__file__).parents[2]
V1_RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
V2_RATIOS = (0.75, 0.875, 1.0, 1.125, 1.25)


TOOL = import_tool('test')


def load(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / f'{name}.py')


@pytest.mark.parametrize(
    ('protocol', 'mode', 'ratios'),
    [
        ('ms_whole', 'whole', V1_RATIOS),
        ('ms_slide', 'slide', V1_RATIOS),
        ('ms_whole_v2', 'whole', V2_RATIOS),
        ('ms_slide_v2', 'slide', V2_RATIOS),
    ],
)
@pytest.mark.parametrize(
    ('name', 'side'),
    [
        ('upernet_convnext_tiny_ade20k', 512),
        ('upernet_convnextv2_huge-22k_ade20k', 640),
    ],
)
def test_multi_scale(
    protocol: str, mode: str, ratios: tuple, name: str, side: int
) -> None:
    cfg = load(name)
    protocols.use_protocol(cfg, protocol)
    assert cfg.model.type == 'SegTTAModel'
    assert cfg.model.module.test_cfg.mode == mode
    steps = cfg.test_dataloader.dataset.pipeline
    resizes, flips, *rest = steps[-1].transforms
    assert [step.scale for step in resizes] == [
        (int(4 * side * ratio), int(side * ratio)) for ratio in ratios
    ]
    assert [step.prob for step in flips] == [0.0, 1.0]
    assert [step.type for (step,) in rest] == [
        'LoadAnnotations',
        'PackSegInputs',
    ]


def test_single_scale_and_what_is_printed() -> None:
    cfg = load('upernet_convnext_base-22k_ade20k')
    pipeline = cfg.test_dataloader.dataset.pipeline
    protocols.use_protocol(cfg, 'ss_slide')
    assert cfg.model.type == 'EncoderDecoder'
    assert cfg.test_dataloader.dataset.pipeline == pipeline
    assert protocols.describe(cfg, 'ss_slide') == (
        'ss_slide, slide 640x640 stride 426x426, flip off, scales 2560x640'
    )
    protocols.use_protocol(cfg, 'ms_whole_v2')
    assert protocols.describe(cfg, 'ms_whole_v2') == (
        'ms_whole_v2, whole, flip on, '
        'scales 1920x480 2240x560 2560x640 2880x720 3200x800'
    )
    assert protocols.describe(
        load('mask_rcnn_convnextv2_base_coco'), None
    ) == ('as configured, boxes and masks, flip off, scales 1333x800')


CROPS = {
    'of the recipes': (
        dict(scale=224, crop_ratio=0.875),
        '224x224 crop of 0.875',
    ),
    'by default': ({}, '224x224 crop of 0.875'),
    'squeezed': (
        dict(scale=384, crop_ratio=None),
        'whole image squeezed to 384x384',
    ),
    'width and height': (
        dict(scale=(96, 128), crop_ratio=1.0),
        '128x96 crop of 1',
    ),
}


@pytest.mark.parametrize('case', CROPS)
def test_a_classifier_has_its_crop(case: str) -> None:
    options, text = CROPS[case]
    cfg = load('finetune_convnextv2_atto_imagenet')
    pipeline = cfg.test_dataloader.dataset.pipeline
    pipeline[1] = dict(type=pipeline[1].type, **options)
    assert protocols.describe(cfg, None) == f'as configured, {text}'


def test_a_classifier_has_no_other_protocols() -> None:
    cfg = load('finetune_convnextv2_atto_imagenet')
    text = 'one crop of an image; .* crop_ratio .* ResizedCenterCrop'
    with pytest.raises(ValueError, match=f'^--tta: .*{text}'):
        protocols.use_tta(cfg)
    with pytest.raises(ValueError, match=f'^--protocol ms: .*{text}'):
        protocols.use_protocol(cfg, 'ms')


def test_errors_name_what_there_is() -> None:
    cfg = load('upernet_convnext_tiny_ade20k')
    with pytest.raises(ValueError, match='ms_slid: .* has ss_slide, ms_whole'):
        protocols.use_protocol(cfg, 'ms_slid')
    with pytest.raises(ValueError, match='has no protocols'):
        protocols.use_protocol(
            load('upernet_convnextv2_atto_demo'), 'ss_slide'
        )
    cfg.model.test_cfg = dict(mode='whole')
    with pytest.raises(ValueError, match='needs crop_size and stride'):
        protocols.use_protocol(cfg, 'ms_slide')


@pytest.fixture(scope='module')
def demo(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'demo'
    import_tool('make_demo_data').make(out, train=2, val=2)
    return out


def run(cfg: Config, tmp_path: Path, **options) -> dict:
    """Test a model of random weights as the tool does; returns metrics."""
    init_default_scope(cfg.default_scope)
    path = tmp_path / 'model.pth'
    torch.save(MODELS.build(cfg.model).state_dict(), path)
    cfg.dump(tmp_path / 'config.py')
    args = argparse.Namespace(
        config=str(tmp_path / 'config.py'),
        checkpoint=str(path),
        data_root=None,
        cfg_options=[],
        work_dir=str(tmp_path),
        launcher='none',
        out=None,
        show_dir=None,
        of_exported=(),
        **{'protocol': None, 'tta': False, **options},
    )
    ready = TOOL.configure(args)
    return cli.build_runner(ready).test()


def local(name: str, root: Path) -> Config:
    cfg = load(name)
    cli.set_data_root(cfg, str(root))
    loader = cfg.test_dataloader
    loader.update(num_workers=0, persistent_workers=False)
    return cfg


@pytest.mark.parametrize('protocol', ['ss_slide', 'ms_whole', 'ms_slide'])
def test_a_segmentor_runs(protocol: str, demo: Path, tmp_path: Path) -> None:
    cfg = local('upernet_convnextv2_atto_demo', demo / 'ade20k')
    recipe = load('upernet_convnextv2_atto_ade20k')
    cfg.update(protocols=recipe.protocols, tta_model=recipe.tta_model)
    pipeline = recipe.test_pipeline
    pipeline[1].scale = (256, 64)
    cfg.test_dataloader.dataset.pipeline = pipeline
    cfg.model.test_cfg = dict(
        mode='slide', crop_size=(64, 64), stride=(42, 42)
    )
    metrics = run(cfg, tmp_path, protocol=protocol)
    assert 0 <= metrics['mIoU'] <= 100


def test_a_detector_gives_boxes_with_tta(demo: Path, tmp_path: Path) -> None:
    cfg = local('mask_rcnn_convnextv2_atto_demo', demo / 'coco')
    for transform in cfg.tta_pipeline[1].transforms[0]:
        transform.scale = (transform.scale[1] // 5, 128)
    metrics = run(cfg, tmp_path, tta=True)
    assert 'coco/bbox_mAP' in metrics
    assert 'coco/segm_mAP' not in metrics


# Parts of hosts' configs that are none of ours.
RETINA = dict(type='RetinaNet', test_cfg=dict(nms_pre=1000), bbox_head={})
MASK2FORMER = dict(type='Mask2Former', panoptic_head={}, test_cfg={})
SLIDE = dict(mode='slide', crop_size=(64, 64), stride=(42, 42))
DESCRIBED = [
    (RETINA, [dict(type='Resize', scale_factor=0.5)], 'boxes', 'x0.5'),
    (RETINA, [dict(type='mmdet.Resize', scale=(9, 8))], 'boxes', '9x8'),
    (RETINA, [dict(type=mmcv.Resize, scale=(9, 8))], 'boxes', '9x8'),
    (
        dict(RETINA, type='DINO', test_cfg=dict(max_per_img=300)),
        [dict(type='FixScaleResize', scale=(9, 8))],
        'boxes',
        '9x8',
    ),
    (
        dict(type='MaskRCNN', roi_head=dict(bbox_head={}, mask_head={})),
        [dict(type='FixShapeResize', width=9, height=8)],
        'boxes and masks',
        '9x8',
    ),
    (
        dict(type='MaskRCNN', roi_head=dict(bbox_head={}, mask_head=None)),
        [dict(type='Resize', scale_factor=(0.5, 2.0))],
        'boxes',
        'x0.5x2.0',
    ),
    (MASK2FORMER, [], 'boxes and masks', 'of the image'),
    (
        dict(type='EncoderDecoder', test_cfg=SLIDE),
        [dict(type='Resize', scale=512)],
        'slide 64x64 stride 42x42',
        '512',
    ),
]


@pytest.mark.parametrize(('model', 'steps', 'gives', 'scales'), DESCRIBED)
@pytest.mark.parametrize('wrapped', [False, True])
def test_any_host_s_config_is_described(
    model: dict, steps: list, gives: str, scales: str, wrapped: bool
) -> None:
    data = dict(type='X', pipeline=steps)
    if wrapped:
        data = dict(type='ConcatDataset', datasets=[data, data])
    scope = 'mmseg' if model['type'] == 'EncoderDecoder' else 'mmdet'
    cfg = Config(
        dict(
            default_scope=scope,
            model=model,
            test_dataloader=dict(dataset=data),
        )
    )
    assert protocols.describe(cfg, None) == (
        f'as configured, {gives}, flip off, scales {scales}'
    )
    cfg.tta_model = dict(type=f'{scope}.{scope[2:].title()}TTAModel')
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip')]
    cfg.tta_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='TestTimeAug', transforms=[steps, flips]),
        dict(type='PackInputs'),
    ]
    cfg.test_evaluator = [
        dict(type='mmdet.CocoMetric', metric=['bbox', 'segm']),
        dict(type='DumpResults'),
    ]
    protocols.use_tta(cfg)
    text = protocols.describe(cfg, 'tta')
    assert text.startswith('tta, ') and text.endswith(
        f', flip on, scales {scales}'
    )
    masks = 'masks' in text and model is not MASK2FORMER
    assert not masks
    leaf = cfg.test_dataloader.dataset
    leaf = leaf.datasets[1] if wrapped else leaf
    assert leaf.pipeline == cfg.tta_pipeline
    if scope == 'mmdet':
        assert cfg.test_evaluator[0].metric == 'bbox'


def test_a_description_never_fails_a_run() -> None:
    text = protocols.describe(Config(dict(model=dict(type='X'))), 'mine')
    assert text.startswith('mine (no description: ')


@pytest.mark.parametrize(
    ('step', 'expected'),
    [
        (dict(scale=(64, 32)), dict(scale=(32, 16))),
        (dict(scale=64), dict(scale=32)),
        (dict(scale_factor=3.0), dict(scale_factor=1.5)),
        (dict(scale_factor=(2.0, 4.0)), dict(scale_factor=(1.0, 2.0))),
        ({}, dict(scale_factor=0.5)),
    ],
)
@pytest.mark.parametrize('kind', ['Resize', 'mmseg.Resize', mmcv.Resize])
def test_any_resize_is_scaled(step: dict, expected: dict, kind) -> None:
    pipeline = [dict(type='Load'), dict(step, type=kind), dict(type='Pack')]
    load, augment = protocols.augmenting(pipeline, (0.5,), flip=True)
    scales, flips, pack = augment['transforms']
    assert scales == [dict(expected, type=kind)]
    assert len(flips) == 2 and pack == [dict(type='Pack')]
    with pytest.raises(ValueError, match=r"no Resize to vary, only \['Load'"):
        protocols.augmenting(pipeline[:1], (0.5,), flip=False)
