"""The rules of adoption, on configs of a few lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict
from tiny import DIMS

from mmconvnext.adopt import RefusedError, adopt, channels, recipes
from mmconvnext.adopt.draft import Draft, Site, translate
from mmconvnext.adopt.measure import Outputs, assume, measure
from mmconvnext.adopt.plan import choose_stages, find_sites

ROOT = Path(__file__).parents[2]
ARCH = dict(depths=[1, 1, 1, 1], dims=DIMS)
RESNET = dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3))
OLD = (64, 128, 256, 512)


def detector(**changes) -> Config:
    """A detector's config with what the rules read, and nothing else."""
    cfg = Config(
        dict(
            default_scope='mmdet',
            model=dict(
                type='RetinaNet',
                data_preprocessor=dict(
                    type='DetDataPreprocessor',
                    mean=[103.53, 116.28, 123.675],
                    std=[1.0, 1.0, 1.0],
                    bgr_to_rgb=False,
                ),
                backbone=dict(RESNET, frozen_stages=1, norm_eval=True),
                neck=dict(type='FPN', in_channels=list(OLD), num_outs=5),
                bbox_head=dict(type='RetinaHead', in_channels=256),
            ),
            optim_wrapper=dict(
                type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02)
            ),
            train_cfg=dict(max_epochs=12),
            load_from='detector.pth',
        )
    )
    cfg.merge_from_dict(changes)
    return cfg


def segmentor(**head) -> Config:
    return Config(
        dict(
            default_scope='mmseg',
            model=dict(
                type='EncoderDecoder',
                pretrained='open-mmlab://resnet18_v1c',
                data_preprocessor=dict(type='SegDataPreProcessor', mean=None),
                backbone=dict(
                    RESNET,
                    type='ResNetV1c',
                    dilations=(1, 1, 2, 4),
                    strides=(1, 2, 1, 1),
                ),
                decode_head=dict(type='FCNHead', **head),
            ),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            param_scheduler=[dict(type='PolyLR', eta_min=1e-4)],
        )
    )


def test_settings_of_a_backbone_are_replaced_and_reported() -> None:
    cfg, report = adopt(detector(), 'atto', 2, 'fcmae')
    pre, wrapper = cfg.model.data_preprocessor, cfg.optim_wrapper
    assert pre.mean == [123.675, 116.28, 103.53]
    assert pre.std == [58.395, 57.12, 57.375]
    assert pre.bgr_to_rgb is True
    assert wrapper.optimizer == dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05
    )
    assert wrapper.paramwise_cfg.decay_rate == 0.95
    assert cfg.model.backbone.frozen_stages == 1
    assert cfg.load_from is None
    assert cfg.model.neck.in_channels == [40, 80, 160, 320]
    # Numbers of heads behind a neck are their own.
    assert cfg.model.bbox_head.in_channels == 256
    text = str(report)
    for change in report.changes:
        assert change.key in text and change.why
    assert '12 epochs' in text


def test_random_weights_are_neither_frozen_nor_slowed() -> None:
    cfg, report = adopt(detector(), ARCH, 2, 'none')
    assert 'frozen_stages' not in cfg.model.backbone
    assert 'init_cfg' not in cfg.model.backbone
    assert cfg.optim_wrapper.paramwise_cfg == dict(decay_rate=1.0)
    assert 'random weights must not be frozen' in ' '.join(str(report).split())


def test_custom_keys_of_heads_stay_and_those_of_backbones_go() -> None:
    keys = {
        'backbone': dict(lr_mult=0.1),
        'backbone.norm': dict(decay_mult=0.0),
        'absolute_pos_embed': dict(decay_mult=0.0),
        'query_embed': dict(decay_mult=0.0),
    }
    cfg = detector()
    cfg.optim_wrapper.optimizer = dict(type='AdamW', lr=2e-4)
    cfg.optim_wrapper.paramwise_cfg = dict(
        custom_keys=keys, norm_decay_mult=0.0
    )
    new, report = adopt(cfg, ARCH)
    groups = new.optim_wrapper.paramwise_cfg
    assert groups.custom_keys == dict(query_embed=dict(decay_mult=0.0))
    assert 'norm_decay_mult' not in groups
    # AdamW is the host's; its rate suits the heads.
    assert new.optim_wrapper.optimizer == dict(type='AdamW', lr=2e-4)
    assert 'norm_decay_mult' in str(report)


def test_mixed_precision_becomes_bfloat16_without_loss_scale() -> None:
    cfg = detector()
    cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    new, _ = adopt(cfg, ARCH)
    assert new.optim_wrapper.dtype == 'bfloat16'
    assert new.optim_wrapper.loss_scale == dict(enabled=False)


def test_layer_scale_of_version_1_is_that_of_its_recipes() -> None:
    cfg, _ = adopt(detector(), 'tiny', 1)
    assert cfg.model.backbone.type == 'mmconvnext.ConvNeXt'
    assert cfg.model.backbone.layer_scale_init_value == 1.0
    assert cfg.model.backbone.init_cfg.checkpoint.endswith('.pth')


def test_dilated_backbone_keeps_its_stride_and_schedule_its_end() -> None:
    cfg, _ = adopt(segmentor(in_channels=512, in_index=3), ARCH)
    assert cfg.model.backbone.output_stride == 8
    assert cfg.model.decode_head.in_channels == DIMS[3]
    assert cfg.model.pretrained is None
    # From .01 to 1e-4: PolyLR must not end where AdamW starts.
    assert cfg.param_scheduler[0].eta_min == pytest.approx(1e-6)


# settings of a head: the channels that it has afterwards
HEADS = (
    (dict(in_channels=512), DIMS[3]),
    (dict(in_channels=256, in_index=2), DIMS[2]),
    (dict(in_channels=[128, 512], in_index=[1, 3]), [DIMS[1], DIMS[3]]),
    (dict(in_channels=list(OLD), in_index=[0, 1, 2, 3]), DIMS),
)


@pytest.mark.parametrize('head, expected', HEADS)
def test_head_without_a_neck_follows_its_index(head, expected) -> None:
    cfg, _ = adopt(segmentor(**head), ARCH)
    assert cfg.model.decode_head.in_channels == expected


def test_numbers_inside_of_a_head_stay() -> None:
    inner = dict(in_channels=512, out_channels=512)
    cfg, _ = adopt(segmentor(in_channels=512, in_index=3, inner=inner), ARCH)
    assert cfg.model.decode_head.inner == inner


TRANSLATED = (
    ([64, 128, 256, 512], [1, 2, 3, 4]),
    ((512, 256, 128, 64), [4, 3, 2, 1]),
    ([128, 256], [2, 3]),
    (512, 4),
    (100, None),
    ([64, 100], None),
)


@pytest.mark.parametrize('values, expected', TRANSLATED)
def test_channels_are_translated_by_value(values, expected) -> None:
    assert translate(values, OLD, (1, 2, 3, 4)) == expected


def test_repeated_channels_are_not_guessed() -> None:
    assert translate(768, (768, 768), (1, 2)) is None
    assert translate([768, 768], (768, 768), (1, 2)) == [1, 2]


def test_neck_that_reads_something_else_is_refused() -> None:
    cfg = detector(**{'model.neck.in_channels': [1, 2, 3, 4]})
    with pytest.raises(RefusedError, match=r'neck .*\[1, 2, 3, 4\]'):
        adopt(cfg, ARCH)


def test_heads_that_read_nothing_known_are_refused() -> None:
    with pytest.raises(RefusedError, match='no head reads'):
        adopt(segmentor(in_channels=7), ARCH)


# strides of the old outputs, more settings: stages, output stride
STAGES = (
    ((4, 8, 16, 32), {}, (0, 1, 2, 3), 32),
    ((8, 16, 32), {}, (1, 2, 3), 32),
    ((16,), {}, (2,), 32),
    ((16,), dict(dilations=(1, 1, 1, 2), out_indices=(3,)), (3,), 16),
    ((4, 8, 8, 8), {}, (0, 1, 2, 3), 8),
    ((8, 8, 8), dict(out_indices=(1, 2, 3)), (1, 2, 3), 8),
    ((16, 16, 16, 16), dict(type='VisionTransformer'), (0, 1, 2, 3), 16),
    ((16,), dict(type='VisionTransformer', out_indices=(11,)), (3,), 16),
)


@pytest.mark.parametrize('strides, more, stages, output', STAGES)
def test_stages_follow_strides_or_the_order(
    strides, more, stages, output
) -> None:
    backbone = ConfigDict({'type': 'ResNet', **more})
    old = Outputs(tuple(range(len(strides))), strides)
    assert choose_stages(ConfigDict(), backbone, old) == (stages, output)


@pytest.mark.parametrize('strides', [(2, 4, 8), (8, 16, 32, 64), (2, 2)])
def test_strides_that_no_stage_has_are_refused(strides) -> None:
    old = Outputs((1,) * len(strides), strides)
    with pytest.raises(RefusedError, match='stride'):
        choose_stages(ConfigDict(), ConfigDict(type='Net'), old)


def test_backbones_are_found_in_trackers_but_not_in_their_reid() -> None:
    cfg = Config(
        dict(
            model=dict(
                type='DeepSORT',
                detector=dict(backbone=RESNET),
                reid=dict(backbone=RESNET),
            )
        )
    )
    expected = Site('model.detector', 'model.detector.backbone')
    assert list(find_sites(cfg)) == [expected]


def test_channels_of_a_missing_classifier_are_those_of_the_neck() -> None:
    backbone = ConfigDict(type='mmpretrain.Nothing', init_cfg=None)
    assert measure(backbone, 'mmdet') is None
    model = ConfigDict(backbone=backbone, neck=dict(in_channels=[1, 2, 3]))
    assert assume(model) == Outputs((1, 2, 3), (8, 16, 32), measured=False)
    with pytest.raises(RefusedError, match='not installed'):
        assume(ConfigDict(backbone=backbone))


def test_every_write_is_reported() -> None:
    draft = Draft(
        detector(), Site('model', 'model.backbone'), Outputs(OLD, ()), DIMS
    )
    draft.stages = (0, 1, 2, 3)
    channels.rewrite(draft)
    draft.set('model.neck.num_outs', 5, 'the same again')
    assert [c.key for c in draft.report.changes] == ['model.neck.in_channels']


BAD = (
    (dict(version=3), 'version must be 1 or 2'),
    (dict(arch='mini'), "arch 'mini'"),
    (dict(arch='xlarge', version=2), "arch 'xlarge'"),
    (dict(arch='small', weights='fcmae'), 'choose none or a file'),
    (dict(arch='tiny', version=1, weights='fcmae'), '1k, 22k, dinov3'),
    (dict(weights='nowhere.pth'), "'nowhere.pth' is neither a file"),
)


@pytest.mark.parametrize('given, message', BAD)
def test_bad_requests_are_named(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adopt(detector(), **given)


def test_config_of_another_library_is_refused() -> None:
    with pytest.raises(ValueError, match='default_scope'):
        adopt(Config(dict(model=dict(type='X'), default_scope='mmpose')))


# Recipe files that the tables of recipes repeat.
FILES = [
    *ROOT.glob('configs/mask_rcnn_convnext*_coco.py'),
    *ROOT.glob('configs/upernet_convnext*_ade20k.py'),
]


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_tables_repeat_the_configs(path: Path) -> None:
    cfg = Config.fromfile(path)
    backbone, wrapper = cfg.model.backbone, cfg.optim_wrapper
    version = 2 if backbone.type.endswith('V2') else 1
    recipe = recipes.recipe_for(backbone.arch, version, cfg.default_scope)
    assert recipe.drop_path == backbone.get('drop_path_rate', 0.0)
    assert recipe.decay_rate == wrapper.paramwise_cfg.decay_rate
    assert recipe.decay_type == wrapper.paramwise_cfg.decay_type
    assert recipe.batch == cfg.auto_scale_lr.base_batch_size
    if backbone.arch != 'xlarge':
        assert recipe.lr == wrapper.optimizer.lr


def test_weights_are_those_of_the_configs() -> None:
    base = Config.fromfile(ROOT / 'configs/_base_/convnext.py').weights
    ours = {
        f'v{version}_{name}' if name != 'dinov3' else name: source
        for (version, name), (_, source) in recipes.WEIGHTS.items()
    }
    assert ours == base
