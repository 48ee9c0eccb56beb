"""Configs made tiny, and batches for them."""

import copy
import functools
from pathlib import Path
from typing import Set
from unittest import mock

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData

from mmconvnext.configs import walk

ROOT = Path(__file__).parents[1]
DIMS = [8, 16, 24, 32]
HEIGHT, WIDTH = 64, 96


@functools.cache
def _load(path: Path) -> Config:
    return Config.fromfile(path)


def load(name: str) -> Config:
    return copy.deepcopy(_load(ROOT / 'configs' / name))


def written(cfg: Config, path: Path) -> Config:
    """Write a config as mmengine writes it into a work dir; read it again.

    The text is not laid out, which takes mmengine seconds for each config.
    """

    def plain(text: str, **_: object) -> tuple:
        return text, True

    with (
        mock.patch('yapf.yapflib.yapf_api.FormatCode', plain),
        mock.patch('mmengine.config.config.FormatCode', plain, create=True),
    ):
        cfg.dump(path)
    return Config.fromfile(path)


def build(cfg: Config, device: str = 'cpu') -> BaseModel:
    init_default_scope(cfg.default_scope)
    with torch.device(device):
        return MODELS.build(cfg.model)


def shrink(cfg: Config) -> Config:
    """Make the config's model tiny: same parts, same channel logic."""
    cfg = copy.deepcopy(cfg)
    model = cfg.model
    model.backbone.pop('init_cfg', None)
    model.backbone.arch = dict(depths=[1, 1, 1, 1], dims=DIMS)
    # A dropped path would leave parameters without gradients.
    model.backbone.drop_path_rate = 0.0
    if 'queries' in parts_of(model):
        _shrink_queries(model)
    elif 'neck' in model:
        _shrink_detector(model)
    else:
        _shrink_segmentor(model)
    if cfg.default_scope == 'mmseg':
        model.data_preprocessor.size = (HEIGHT, WIDTH)
    return cfg


def parts_of(model: ConfigDict) -> Set[str]:
    """Name what a model has: a neck, queries, dense heads..."""
    queries = any('num_queries' in node for _, node in walk(model, 'model'))
    return {*model, *(['queries'] if queries else [])}


def _shrink_segmentor(model: ConfigDict) -> None:
    head = model.decode_head
    one = isinstance(head.in_channels, int)  # DeepLabV3+: and the first map
    head.update(in_channels=DIMS[3] if one else DIMS, channels=8)
    if 'c1_in_channels' in head:
        head.update(c1_in_channels=DIMS[0], c1_channels=4)
    model.auxiliary_head.update(in_channels=DIMS[2], channels=8)
    if model.test_cfg.mode == 'slide':
        model.test_cfg.update(crop_size=(48, 48), stride=(32, 32))


# Transformers: every width is 32, which groups of channels divide.
FEW = dict(num_layers=2, num_queries=7, feedforward_channels=32)
WIDTHS = ('embed_dims', 'feat_channels', 'out_channels')
NARROW = {**FEW, **dict.fromkeys(WIDTHS, 32), 'num_feats': 16}


def _shrink_queries(model: ConfigDict) -> None:
    # MMDetection 3.3.0 has the width of DINO's positions in its code.
    smaller = FEW if model.type == 'DINO' else NARROW
    for _, node in walk(model, 'model'):
        for key, value in smaller.items():
            if key in node:
                node[key] = value
        if 'oversample_ratio' in node:  # points of masks, not of attention
            node.num_points = 64
        if node.get('type') == 'BatchFixedSizePad':
            node.size = (HEIGHT, WIDTH)
        if 'in_channels' in node:
            node.in_channels = DIMS[-len(node.in_channels) :]


def _shrink_detector(model: ConfigDict) -> None:
    # Large anchors do not fit into an image this small.
    model.train_cfg.rpn.allowed_border = -1
    model.neck.update(in_channels=DIMS, out_channels=8)
    model.rpn_head.update(in_channels=8, feat_channels=8)
    roi = model.roi_head
    roi.bbox_roi_extractor.out_channels = 8
    if roi.mask_head:
        roi.mask_roi_extractor.out_channels = 8
        roi.mask_head.update(in_channels=8, conv_out_channels=8)
    heads = (
        roi.bbox_head if isinstance(roi.bbox_head, list) else [roi.bbox_head]
    )
    for head in heads:
        head.update(in_channels=8, fc_out_channels=16)
        if 'conv_out_channels' in head:
            head.conv_out_channels = 8


def batch(scope: str) -> dict:
    """Two images with ground truth, as the host's loader yields them.

    Some pixels are ignored: padding is, in nearly every batch of a host's.
    """
    shape = (HEIGHT, WIDTH)
    half = torch.arange(WIDTH) >= WIDTH // 2  # darker, and of another class
    inputs = [
        torch.randint(0, 255, (3, *shape)).div(1 + 3 * half).byte()
        for _ in range(2)
    ]
    meta = dict(img_shape=shape, ori_shape=shape, pad_shape=shape)
    if scope == 'mmseg':
        from mmseg.structures import SegDataSample

        label = half.long().repeat(1, HEIGHT, 1)
        label[:, :4] = 255  # ignored
        label = PixelData(data=label)
        samples = [
            SegDataSample(metainfo=meta, gt_sem_seg=label) for _ in inputs
        ]
    else:
        samples = [detection_sample(meta) for _ in inputs]
    return dict(inputs=inputs, data_samples=samples)


def detection_sample(meta: dict):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    mask = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    mask[0, 10:40, 20:60] = 1
    truth = InstanceData(
        bboxes=torch.tensor([[20.0, 10.0, 60.0, 40.0]]),
        labels=torch.tensor([0]),
        masks=BitmapMasks(mask, HEIGHT, WIDTH),
    )
    sample = DetDataSample(
        metainfo=dict(
            meta, batch_input_shape=(HEIGHT, WIDTH), scale_factor=(1, 1)
        ),
        gt_instances=truth,
    )
    sample.ignored_instances = truth[:0]
    return sample
