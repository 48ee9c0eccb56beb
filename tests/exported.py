"""Tiny models of the hosts as files: what the tests of deploy share."""

from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
import tiny
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm

REASON = 'ONNX is an extra: deploy.txt'
UPERNET = {1: 'upernet_convnext_tiny_ade20k.py'}
UPERNET[2] = 'upernet_convnextv2_tiny_ade20k.py'
MASK = {1: 'mask_rcnn_convnext_tiny_coco.py'}
MASK[2] = 'mask_rcnn_convnextv2_tiny_coco.py'
CASCADE = 'cascade_mask_rcnn_convnextv2_base_coco.py'


def need_extras() -> None:
    """Skip a file of tests where ONNX is not installed, or torch too old."""
    for name in ('onnx', 'onnxruntime'):
        pytest.importorskip(name, reason=REASON)
    from mmconvnext.deploy import export

    if not export.writes_opset():
        pytest.skip(f'torch {torch.__version__} writes no opset 20 of ONNX')


def config(name: str, **model: Any) -> Config:
    """A recipe made tiny, its test data without files."""
    cfg = tiny.shrink(tiny.load(name))
    cfg.merge_from_dict({'model': model})
    if 'decode_head' in cfg.model:
        cfg.model.test_cfg = dict(mode='whole')
    # Images go in as they are.
    dataset = cfg.test_dataloader.dataset
    dataset.pipeline = [
        step for step in dataset.pipeline if step['type'] != 'Resize'
    ]
    return cfg


def build(cfg: Config, spread: float = 1.5) -> torch.nn.Module:
    """Build a model whose random weights give maps that differ."""
    torch.manual_seed(0)
    model = revert_sync_batchnorm(tiny.build(cfg)).eval()
    for p in model.parameters():
        if p.dim() > 1:
            fan = p[0].numel()
            p.data = torch.randn_like(p) * spread / fan**0.5
        else:
            p.data = p.data + 0.1 * torch.randn_like(p)
    return model


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An RGB picture of soft shapes, not of noise: objects have edges."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    total = np.zeros((height, width, 3), np.float32)
    for _ in range(8):
        top, left = random.uniform(0, [height, width])
        size, colour = random.uniform(5, 40), random.uniform(-90, 90, 3)
        inside = np.maximum(abs(y - top), abs(x - left)) < size
        total += inside[..., None] * colour
    noise = random.uniform(-10, 10, total.shape)
    return np.clip(128 + total + noise, 0, 255).astype(np.uint8)


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    """A batch, ``(N, 3, H, W)`` uint8, BGR."""
    count, height, width = shape
    rows = [image(height, width, seed + i) for i in range(count)]
    batch = np.stack([row[..., ::-1].transpose(2, 0, 1) for row in rows])
    return torch.from_numpy(np.ascontiguousarray(batch))


def write(model: torch.nn.Module, cfg: Config, path: Path, **options: Any):
    """Export; return the loaded file."""
    from mmconvnext.deploy import export, load

    export.export(model, cfg, path, **options)
    return load(path)


@torch.no_grad()
def predict(model: torch.nn.Module, batch: torch.Tensor) -> List[Any]:
    """What the host's model makes of a batch."""
    shape = tuple(batch.shape[2:])
    meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))
    if hasattr(model, 'decode_head'):
        from mmseg.structures import SegDataSample as Sample
    else:
        from mmdet.structures import DetDataSample as Sample
    samples = [Sample(metainfo=dict(meta)) for _ in batch]
    return model.test_step(dict(inputs=list(batch), data_samples=samples))
