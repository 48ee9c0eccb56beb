"""What cannot be exported is refused by name, before any work."""

from typing import Any

import exported
import pytest
import tiny

from mmconvnext.deploy import describe, supported
from mmconvnext.deploy.suppression import options_of

SEG, DET = exported.UPERNET[2], exported.MASK[2]
# Config, what is changed in it, and what the error must name.
REFUSED = [
    (SEG, 'decode_head.type', 'PSAHead', 'PSAHead .* psamask'),
    (SEG, 'decode_head.type', 'mmseg.PointHead', 'PointHead'),
    (SEG, 'decode_head.type', 'LightHamHead', 'random numbers'),
    (SEG, 'decode_head.type', 'Mask2FormerHead', 'Mask2FormerHead'),
    (SEG, 'type', 'DepthEstimator', 'DepthEstimator'),
    (SEG, 'data_preprocessor.type', 'Own', 'data_preprocessor Own'),
    (SEG, 'data_preprocessor.test_cfg', dict(size=(64, 64)), 'windows'),
    (SEG, 'backbone.in_channels', 4, '3 channels, the backbone 4'),
    (DET, 'type', 'RetinaNet', 'RetinaNet cannot be exported'),
    (DET, 'type', 'DINO', 'DINO'),
    (DET, 'rpn_head.type', 'GARPNHead', 'rpn_head GARPNHead'),
    (DET, 'roi_head.type', 'GridRoIHead', 'roi_head GridRoIHead'),
    (DET, 'roi_head.bbox_head.type', 'SABLHead', 'bbox_head SABLHead'),
    (DET, 'roi_head.mask_head.type', 'HTCMaskHead', 'mask_head HTCMask'),
    (
        DET,
        'roi_head.bbox_roi_extractor.type',
        'GenericRoIExtractor',
        'GenericRoIExtractor',
    ),
    (
        DET,
        'roi_head.bbox_head.bbox_coder.type',
        'TBLRBBoxCoder',
        'TBLRBBoxCoder',
    ),
    (DET, 'roi_head.bbox_head.loss_cls.type', 'SeesawLoss', 'SeesawLoss'),
    (DET, 'roi_head.shared_head', dict(type='ResLayer'), 'shared_head'),
    (DET, 'test_cfg.rcnn.nms.type', 'nms_match', "'nms_match'"),
    (DET, 'test_cfg.rcnn.nms.max_num', 10, 'max_num'),
    (DET, 'test_cfg.rcnn.max_per_img', -1, 'max_per_img must be'),
    (DET, 'test_cfg.rpn.nms.type', 'soft_nms', 'rpn.nms soft_nms'),
    (DET, 'test_cfg.rpn.nms_pre', 0, 'nms_pre must be'),
]


@pytest.mark.parametrize(
    'name, key, value, message', REFUSED, ids=lambda row: str(row)[:30]
)
def test_refused_by_name(
    name: str, key: str, value: Any, message: str
) -> None:
    cfg = tiny.load(name)
    cfg.model.test_cfg.setdefault('mode', 'slide')
    supported.check(cfg)
    cfg.merge_from_dict({f'model.{key}': value})
    with pytest.raises(ValueError, match=message):
        supported.check(cfg)


@pytest.mark.parametrize('step', ['Pad', 'TestTimeAug', 'FixScaleResize'])
def test_pipelines_that_a_runner_cannot_repeat(step: str) -> None:
    cfg = tiny.load(DET)
    cfg.test_dataloader.dataset.pipeline.insert(2, dict(type=step))
    with pytest.raises(ValueError, match=f'pipeline has {step}'):
        supported.check(cfg)


def test_pre_training_is_refused() -> None:
    cfg = tiny.load('fcmae_convnextv2_tiny_imagenet.py')
    with pytest.raises(ValueError, match='FCMAE cannot be exported'):
        supported.check(cfg)


def test_options_have_mmcvs_values() -> None:
    """What a config is silent about is what mmcv does then."""
    import inspect

    from mmcv.ops import soft_nms

    known = inspect.signature(soft_nms).parameters
    _, options = options_of(dict(type='soft_nms'))
    for key in ('iou_threshold', 'sigma', 'min_score', 'method'):
        assert options[key] == known[key].default
    older = options_of(dict(type='nms', iou_thr=0.3, split_thr=5))
    assert older == ('nms', dict(iou_threshold=0.3, class_agnostic=False))


RESIZES = [
    (dict(backend='pillow', scale=(10, 10)), 'pillow bilinear'),
    (dict(interpolation='area', scale=(10, 10)), 'cv2 area'),
    (dict(), 'no scale'),
]


@pytest.mark.parametrize('options, message', RESIZES, ids=str)
def test_resizes_that_a_runner_cannot_repeat(
    options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        describe.resize_rule([dict(type='Resize', **options)])


def test_resize_of_a_recipe() -> None:
    cfg = tiny.load(DET)
    rule = describe.resize_rule(supported.pipeline_of(cfg))
    assert rule == dict(keep_ratio=True, scale=[1333, 800])


def test_licence_comes_from_the_weights() -> None:
    v2, v1 = tiny.load(DET), tiny.load(exported.MASK[1])
    assert 'non-commercial' in describe.licence_of(v2.model)
    assert 'dl.fbaipublicfiles' in describe.licence_of(v1.model)
    own = tiny.load('mask_rcnn_convnextv2_atto_nuclei.py')
    assert 'random weights' in describe.licence_of(own.model)
