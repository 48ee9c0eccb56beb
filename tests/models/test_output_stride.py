"""Stages dilated instead of strided: timm's, on the same weights."""

import copy

import pytest
import torch
from backbones import MICRO, VERSIONS, both, micro
from checkpoints import assert_close
from imports import import_zoo
from torch import nn

from mmconvnext import FCMAE, ops
from mmconvnext.checkpoint import export

STRIDES = {32: (4, 8, 16, 32), 16: (4, 8, 16, 16), 8: (4, 8, 8, 8)}
# odd, prime, one row of a map more or less, the smallest
SIZES = [(64, 96), (75, 134), (37, 61), (32, 33)]
dilated = pytest.mark.parametrize('stride', [16, 8])


def stage_maps(model: nn.Module, x: torch.Tensor) -> list:
    maps = []
    for down, stage in zip(model.downsample_layers, model.stages):
        x = stage(down(x))
        maps.append(x)
    return maps


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('stride', STRIDES)
@pytest.mark.parametrize('version', VERSIONS)
def test_equals_timm(version: int, stride: int, size: tuple) -> None:
    """Maps, and the gradients of every parameter and of the image."""
    timm = import_zoo('timm')
    model = micro(VERSIONS[version], output_stride=stride).double()
    other = timm.models.convnext.ConvNeXt(
        **MICRO,
        output_stride=stride,
        use_grn=version == 2,
        ls_init_value=1e-6 if version == 1 else None,
        num_classes=0,
    ).double()
    state = export(model, 'timm')
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert not missing
    assert not unexpected
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    maps = stage_maps(model, inputs[0])
    theirs = other.forward_intermediates(inputs[1], intermediates_only=True)
    assert_close(maps, theirs)
    for outs in (maps, theirs):
        sum(out.square().mean() for out in outs).backward()
    grads = {k: p.grad for k, p in model.named_parameters()}
    for name, param in model.named_parameters():
        param.data = (
            torch.zeros_like(param) if grads[name] is None else (grads[name])
        )
    ours = export(model, 'timm')
    for name, param in other.named_parameters():
        if param.grad is not None:
            torch.testing.assert_close(
                ours[name], param.grad, rtol=1e-9, atol=1e-12, msg=name
            )
    torch.testing.assert_close(
        inputs[0].grad, inputs[1].grad, rtol=1e-9, atol=1e-12
    )


@both
@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('stride', STRIDES)
def test_out_strides_are_those_of_the_maps(
    cls: type, stride: int, size: tuple
) -> None:
    model = micro(cls, output_stride=stride)
    assert model.out_strides == STRIDES[stride]
    outs = model(torch.randn(1, 3, *size))
    for out, dim, s in zip(outs, MICRO['dims'], model.out_strides):
        assert out.shape == (1, dim, size[0] // s, size[1] // s)
        assert out.is_contiguous()
    last = micro(cls, output_stride=stride, out_indices=(3,))
    assert last.out_strides == (stride,)


@both
@dilated
def test_weights_are_the_same(cls: type, stride: int) -> None:
    plain, model = micro(cls), micro(cls, output_stride=stride)
    shapes = {k: v.shape for k, v in plain.state_dict().items()}
    assert {k: v.shape for k, v in model.state_dict().items()} == shapes
    model.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 64)
    whole = 4 - STRIDES[stride].count(stride) + 1  # not dilated
    for out, ref in zip(model(x)[:whole], plain(x)):
        torch.testing.assert_close(out, ref, rtol=0, atol=0)


@both
@dilated
@pytest.mark.parametrize('path', ops.PATHS)
def test_every_path_of_the_ops(cls: type, stride: int, path: str) -> None:
    if ops.absent(path):
        pytest.skip(f'{path}: {ops.absent(path)}')
    model = micro(cls, output_stride=stride)
    x = torch.randn(2, 3, 37, 45)
    results = []
    for name in ('reference', path):
        twin = copy.deepcopy(model).train()
        with ops.use(name):
            outs = twin(x)
            sum(out.square().mean() for out in outs).backward()
        results.append((outs, [p.grad for p in twin.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_explain_names_the_path(capsys: pytest.CaptureFixture) -> None:
    with ops.use('fused'):
        text = ops.explain(dilation=2)
    line = next(row for row in text.split('\n') if 'depthwise' in row)
    assert 'reference' in line
    assert 'dilate' in line


@both
@dilated
def test_switches(cls: type, stride: int) -> None:
    """Checkpointing, compiling and exporting compute the same."""
    model = micro(cls, output_stride=stride)
    x = torch.randn(1, 3, 40, 72)
    expected = model(x)
    for with_cp in (True, 'hidden'):
        twin = micro(cls, output_stride=stride, with_cp=with_cp)
        twin.load_state_dict(model.state_dict())
        torch.testing.assert_close(twin(x), expected)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), expected, rtol=1e-5, atol=1e-5)
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(
        program.module()(x), expected, rtol=1e-5, atol=1e-5
    )


@both
@pytest.mark.parametrize('value', [4, 64, 24, None, '16'])
def test_other_values_raise(cls: type, value: object) -> None:
    with pytest.raises(ValueError, match=r'output_stride.*\(8, 16, 32\)'):
        cls(MICRO, output_stride=value)


@dilated
def test_pre_training_refuses(stride: int) -> None:
    backbone = dict(
        type='mmconvnext.ConvNeXtV2', arch=MICRO, output_stride=stride
    )
    with pytest.raises(ValueError, match=f'output_stride=32.*{stride}'):
        FCMAE(backbone)
