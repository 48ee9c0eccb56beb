"""Training steps on a GPU, in every precision, against a CPU."""

import copy

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from tiny import batch, build, load, shrink
from torch import nn

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason='trains on a GPU'
)
CONFIGS = (
    'upernet_convnext_tiny_ade20k.py',
    'upernet_convnextv2_tiny_ade20k.py',
    'mask_rcnn_convnext_tiny_coco.py',
    'mask_rcnn_convnextv2_tiny_coco.py',
)
# Relative error of a loss, against float32 on the CPU.
LIMITS = {'float32': 1e-4, 'bfloat16': 1e-1, 'float16': 1e-1}


def losses(model: BaseModel, data: dict, precision: str) -> dict:
    """Train for one step, with one seed, and return the losses of it."""
    amp = precision != 'float32'
    optimizer = dict(type='AdamW', lr=1e-4)
    wrapper = dict(type='OptimWrapper', optimizer=optimizer)
    if amp:
        wrapper.update(type='AmpOptimWrapper', dtype=precision)
    optim = build_optim_wrapper(model, wrapper)
    torch.manual_seed(1)
    return {k: float(v) for k, v in model.train_step(data, optim).items()}


def still(model: BaseModel) -> BaseModel:
    """Without dropout, which draws other numbers on another device."""
    for module in model.modules():
        if isinstance(module, (nn.Dropout, nn.Dropout2d)):
            module.p = 0.0
    return model.train()


@needs_gpu
@pytest.mark.parametrize('precision', LIMITS)
@pytest.mark.parametrize('name', CONFIGS)
def test_a_step_has_the_losses_of_a_cpu(name: str, precision: str) -> None:
    cfg = shrink(load(name))
    model = build(cfg)
    model.init_weights()
    still(model)
    data = batch(cfg.default_scope)
    given = copy.deepcopy(model).cuda(), copy.deepcopy(data), precision
    wanted = losses(model, data, 'float32')
    found = losses(*given)
    assert found == pytest.approx(wanted, rel=LIMITS[precision], abs=1e-3)
    for name, param in given[0].named_parameters():
        assert param.isfinite().all(), name
