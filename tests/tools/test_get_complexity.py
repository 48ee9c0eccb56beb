"""tools/get_complexity.py against the published numbers."""

import subprocess
import sys
from pathlib import Path
from typing import Tuple

import pytest
import torch
from mmengine.config import Config
from tiny import batch, build, load, shrink
from torch.utils.flop_counter import FlopCounterMode

from mmconvnext.analysis.complexity import complexity, default_shape

ROOT = Path(__file__).parents[2]
# config: parameters (M; None: not published), FLOPs (G). V1: arXiv 2201.03545,
# tables 3 and 4, and the README of the authors' code. V2: arXiv 2301.00808,
# tables 6 and 7.
PUBLISHED = {
    'mask_rcnn_convnext_tiny_coco': (48, 262),
    'cascade_mask_rcnn_convnext_tiny_coco': (86, 741),
    'cascade_mask_rcnn_convnext_small_coco': (108, 827),
    'cascade_mask_rcnn_convnext_base_coco': (146, 964),
    'cascade_mask_rcnn_convnext_base-22k_coco': (146, 964),
    'cascade_mask_rcnn_convnext_large-22k_coco': (255, 1354),
    'cascade_mask_rcnn_convnext_xlarge-22k_coco': (407, 1898),
    'mask_rcnn_convnextv2_base_coco': (None, 486),
    'mask_rcnn_convnextv2_large_coco': (None, 875),
    'mask_rcnn_convnextv2_huge_coco': (None, 2525),
    'upernet_convnext_tiny_ade20k': (60, 939),
    'upernet_convnext_small_ade20k': (82, 1027),
    'upernet_convnext_base_ade20k': (122, 1170),
    'upernet_convnext_base-22k_ade20k': (122, 1828),
    'upernet_convnext_large-22k_ade20k': (235, 2458),
    'upernet_convnext_xlarge-22k_ade20k': (391, 3335),
    'upernet_convnextv2_base_ade20k': (122, 1170),
    'upernet_convnextv2_large_ade20k': (235, 1573),
    'upernet_convnextv2_huge_ade20k': (707, 3272),
    'upernet_convnextv2_huge-22k_ade20k': (707, 5113),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_counts_as_published(name: str) -> None:
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    found = complexity(cfg, default_shape(cfg))
    params, flops = PUBLISHED[name]
    if params is not None:
        assert round(found.params / 1e6) == params
    # They are printed as whole numbers, and may count norms that are modules.
    assert found.flops / 1e9 == pytest.approx(flops, rel=0.0025)


@pytest.mark.parametrize('shape', [(64, 64), (64, 160)])
def test_counts_by_hand(shape: Tuple[int, int]) -> None:
    """The backbone's share, from the sizes of its layers."""
    cfg = Config.fromfile(ROOT / 'configs/upernet_convnextv2_atto_demo.py')
    depths, dims = (2, 2, 6, 2), (40, 80, 160, 320)
    positions = [shape[0] * shape[1] // s**2 for s in (4, 8, 16, 32)]
    expected = positions[0] * 4 * 4 * 3 * dims[0]
    for i in range(3):
        expected += positions[i + 1] * 2 * 2 * dims[i] * dims[i + 1]
    for depth, dim, position in zip(depths, dims, positions):
        expected += depth * position * dim * (7 * 7 + 8 * dim)
    assert complexity(cfg, shape).parts['backbone'] == expected


# What has queries looks at values: the tool counts it with zeros for weights.
QUERIES = (
    'dino_convnextv2_tiny_coco',
    'mask2former_convnextv2_tiny_coco',
    'mask2former_convnextv2_tiny_ade20k',
)


@pytest.mark.parametrize('name', QUERIES)
def test_counts_queries_as_a_forward_pass_does(name: str) -> None:
    cfg = shrink(load(f'{name}.py'))
    found = complexity(cfg, (64, 96))
    image, samples = torch.rand(1, 3, 64, 96), batch(cfg.default_scope)
    samples = samples['data_samples'][:1]
    model = build(cfg).eval()
    model.init_weights()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        maps = model.extract_feat(image)
        if cfg.model.type == 'DINO':
            model.bbox_head(**model.forward_transformer(maps, samples))
        elif cfg.model.type == 'Mask2Former':
            model.panoptic_head(maps, samples)
        else:
            model.decode_head(maps, samples)
    assert counter.get_total_flops() == 2 * found.flops
    assert found.params == sum(p.numel() for p in model.parameters())
    (part,) = {*found.parts} - {'backbone', 'neck'}
    assert found.parts[part] > found.parts['backbone']


def test_runs_as_a_program() -> None:
    """In a process of its own: here conftest has prepared the hosts."""
    names = ['mask_rcnn_convnextv2_atto_coco', 'upernet_convnext_tiny_ade20k']
    paths = [ROOT / 'configs' / f'{name}.py' for name in names]
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/get_complexity.py', *paths, '--parts'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for row in (
        '| mask_rcnn_convnextv2_atto_coco | 800 x 1280 | 23.4 M | 180.',
        '| - mask_head | | | ',
        '| upernet_convnext_tiny_ade20k | 512 x 2048 | 60.',
        '| - decode_head | | | ',
    ):
        assert f'\n{row}' in done.stdout
