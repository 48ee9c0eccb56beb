"""Adopt into configs of the hosts; campaigns/adopt_zoo.py has them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from tiny import DIMS

from mmconvnext.adopt import RefusedError, adopt, read
from mmconvnext.adopt.check import check
from mmconvnext.adopt.write import different, plain, write

ARCH = dict(depths=[1, 1, 1, 1], dims=DIMS)
# config: the key that shows what its design needs, and its value
ROWS = {
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py': (
        'neck.in_channels',
        DIMS,
    ),
    'mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py': (
        'neck.in_channels',
        DIMS[:0:-1],
    ),
    'mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py': (
        'backbone.output_stride',
        16,
    ),
    'mmdet::mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py': (
        'roi_head.shared_head',
        None,
    ),
    'mmdet::ssd/ssd300_coco.py': (
        'bbox_head.in_channels',
        (*DIMS[1:3], 512, 256, 256, 256),
    ),
    'mmdet::soft_teacher/'
    'soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py': (
        'detector.neck.in_channels',
        DIMS,
    ),
    'mmdet::masktrack_rcnn/'
    'masktrack-rcnn_mask-rcnn_r50_fpn_8xb1-12e_youtubevis2019.py': (
        'detector.init_cfg',
        None,
    ),
    'mmdet::timm_example/retinanet_timm-tv-resnet50_fpn_1x_coco.py': (
        'backbone.type',
        'mmconvnext.ConvNeXtV2',
    ),
    'mmdet::htc/htc_r50_fpn_1x_coco.py': ('neck.in_channels', DIMS),
    'mmseg::deeplabv3plus/'
    'deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py': (
        'decode_head.c1_in_channels',
        DIMS[0],
    ),
    'mmseg::fastfcn/fastfcn_r50-d32_jpu_psp_4xb2-80k_cityscapes-512x1024.py': (
        'auxiliary_head.in_channels',
        DIMS[2],
    ),
    'mmseg::bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024.py': (
        'backbone.context_channels',
        tuple(DIMS[1:]),
    ),
    'mmseg::stdc/stdc1_4xb12-80k_cityscapes-512x1024.py': (
        'backbone.last_in_channels',
        (DIMS[3], DIMS[2]),
    ),
    'mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py': (
        'decode_head.kernel_generate_head.in_channels',
        DIMS[3],
    ),
    'mmseg::segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512.py': (
        'backbone.output_stride',
        16,
    ),
}


# Their heads are wide: a step takes more than ten seconds.
SLOW = ('mmdet::htc', 'mmseg::deeplabv3plus', 'mmseg::fastfcn', 'mmseg::knet')


def row(name: str) -> Any:
    method = name.split('/')[0]
    marks = [pytest.mark.slow] if method in SLOW else []
    return pytest.param(name, id=method, marks=marks)


@pytest.mark.parametrize('name', map(row, ROWS))
def test_row_takes_a_step(name: str, tmp_path: Path) -> None:
    host = read(name)
    before = plain(host)
    cfg, report = adopt(host, arch=ARCH, weights='none')
    assert plain(host) == before
    key, value = ROWS[name]
    node = cfg.model
    for part in key.split('.'):
        node = node[part]
    assert node == value or list(node) == list(value)
    result = check(cfg, host)
    assert result.unread_backbone == 0, result.unread
    write(cfg, report, host, tmp_path / 'mine.py')
    again = Config.fromfile(tmp_path / 'mine.py')
    assert not [*different(plain(again), plain(cfg), '')]


@pytest.mark.slow
def test_heads_that_enlarge_read_maps_of_the_old_stride() -> None:
    """SETR's auxiliary heads would make 4 times the image of stride 4."""
    host = read('mmseg::setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512.py')
    sizes = dict(embed_dims=32, num_layers=4, num_heads=2, init_cfg=None)
    host.model.backbone.update(sizes, out_indices=(0, 1, 2, 3))
    for head in (host.model.decode_head, *host.model.auxiliary_head):
        head.in_channels = 32
    cfg, _ = adopt(host, arch=ARCH, weights='none')
    heads = (*cfg.model.auxiliary_head, cfg.model.decode_head)
    assert [head.in_index for head in heads] == [2, 2, 2, 3]
    assert [head.in_channels for head in heads] == [*[DIMS[2]] * 3, DIMS[3]]
    assert check(cfg, host).unread_backbone == 0


# config: what the message names
REFUSED = {
    'mmdet::cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py': (
        'HourglassNet'
    ),
    'mmdet::detectors/detectors_cascade-rcnn_r50_1x_coco.py': (
        'DetectoRS_ResNet'
    ),
    'mmdet::tridentnet/tridentnet_r50-caffe_1x_coco.py': 'TridentResNet',
    'mmdet::reid/reid_r50_8xb32-6e_mot17train80_test-mot17val20.py': (
        'BaseReID'
    ),
    'mmdet::rtmdet/rtmdet_x_p6_4xb8-300e_coco.py': 'stride 8, 16, 32, 64',
    'mmseg::unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py': 'UNet',
    'mmseg::dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512.py': 'DPTHead',
}


@pytest.mark.parametrize('name', REFUSED, ids=lambda name: name.split('/')[0])
def test_design_is_refused_by_name(name: str) -> None:
    with pytest.raises(RefusedError, match=REFUSED[name]):
        adopt(read(name))
