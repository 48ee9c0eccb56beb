"""FCMAE against the paper's definition, written in masked dense maps."""

import masked
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmconvnext import FCMAE
from mmconvnext.pretrain import fcmae
from mmconvnext.pretrain.fcmae import to_images, to_patches

TYPES = ('ConvNeXtV2', 'ConvNeXt')
SCOPES = ('sample', 'batch')
# Rows of '.' visible and '#' hidden patches.
MASKS = {
    'border': ('....', '.##.', '.##.', '....'),
    'isolated': ('#####', '##.##', '#####'),
    'one': ('.#', '##'),
    'row': ('.#..#.#',),
    'scattered': ('.##', '###', '#.#', '##.'),
    'none hidden': ('...', '...'),
}


def build(
    arch=masked.TINY, type='ConvNeXtV2', in_channels=3, **kwargs
) -> FCMAE:
    backbone = dict(
        type=f'mmconvnext.{type}', arch=arch, in_channels=in_channels
    )
    options = {'decoder_dim': 16, **kwargs}
    return masked.randomise(FCMAE(backbone, **options))


def mask_of(name: str, images: int = 2) -> Tensor:
    rows = [[c == '#' for c in row] for row in MASKS[name]]
    # The second image has the mask turned by 180 degrees.
    turns = [torch.tensor(rows), torch.tensor(rows).flip(0, 1)]
    return torch.stack([turns[i % 2] for i in range(images)])


def images_for(mask: Tensor, dtype=torch.float64, size: int = 32) -> Tensor:
    n, h, w = mask.shape
    generator = torch.Generator().manual_seed(2)
    shape = (n, 3, h * size, w * size)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(
        dtype
    )


def outputs_and_gradients(run, model: FCMAE, images: Tensor) -> dict:
    """The map, and gradients of a fixed random function of it."""
    images = images.clone().requires_grad_()
    model.zero_grad()
    out = run(images)
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(out.shape, generator=generator).to(out.dtype)
    (out * weights).sum().backward()
    found = {'output': out.detach(), 'images': images.grad}
    for name, param in model.backbone.named_parameters():
        assert param.grad is not None, name
        found[name] = param.grad.clone()
    return found


def compare(model: FCMAE, images: Tensor, mask: Tensor) -> tuple:
    ours = outputs_and_gradients(
        lambda x: model.encode(x, mask), model, images
    )
    theirs = outputs_and_gradients(
        lambda x: masked.encode(model.backbone, x, mask, model.grn_scope),
        model,
        images,
    )
    return ours, theirs


def error(found: dict, exact: dict) -> dict:
    return {
        name: float((found[name].double() - value).abs().max())
        / max(float(value.abs().max()), 1e-30)
        for name, value in exact.items()
    }


@pytest.mark.parametrize('type', TYPES)
@pytest.mark.parametrize('scope', SCOPES)
@pytest.mark.parametrize('name', MASKS)
def test_encoder_equals_masked_dense(name: str, scope: str, type: str):
    model = build(type=type, grn_scope=scope).double()
    mask = mask_of(name)
    ours, theirs = compare(model, images_for(mask), mask)
    # Some gradients sum many terms of both signs: 1e-9 of the largest.
    assert max(error(ours, theirs).values()) < 1e-9


@pytest.mark.parametrize('scope', SCOPES)
def test_real_atto_equals_masked_dense(scope: str):
    model = build('atto', grn_scope=scope).double()
    mask = mask_of('scattered')
    ours, theirs = compare(model, images_for(mask), mask)
    assert max(error(ours, theirs).values()) < 1e-9


@pytest.mark.parametrize('scope', SCOPES)
@pytest.mark.parametrize('arch', [masked.TINY, 'atto'])
def test_float32_is_as_exact_as_masked_dense(arch, scope: str):
    mask = mask_of('scattered')
    exact = compare(
        build(arch, grn_scope=scope).double(), images_for(mask), mask
    )[1]
    ours, theirs = compare(
        build(arch, grn_scope=scope), images_for(mask, torch.float32), mask
    )
    floor = error(theirs, exact)
    for name, value in error(ours, exact).items():
        # The same sums in another order: twice the reference's own error,
        # or a few roundings where that is nearly none.
        assert value < 2 * floor[name] + 2e-6, name


def test_images_may_differ_in_visible_patches():
    mask = torch.cat([mask_of('border', 1), mask_of('border', 1)])
    mask[1] = True
    mask[1, 2, 1] = False
    for scope in SCOPES:
        model = build(grn_scope=scope).double()
        ours, theirs = compare(model, images_for(mask), mask)
        assert max(error(ours, theirs).values()) < 1e-9


def test_larger_patches_equal_masked_dense():
    model = build(patch_size=64).double()
    mask = mask_of('scattered')
    images = images_for(mask, size=64)
    ours, theirs = compare(model, images, mask)
    assert max(error(ours, theirs).values()) < 1e-9
    assert torch.isfinite(model(images, mask=mask)['loss'])


@pytest.mark.parametrize('type', TYPES)
def test_nothing_hidden_equals_the_backbone(type: str):
    model = build(type=type, mask_ratio=0.0).double().eval()
    images = images_for(mask_of('none hidden'))
    mask = model.random_mask(images)
    assert not mask.any()
    plain = model.backbone(images)[-1]
    torch.testing.assert_close(
        model.encode(images, mask), plain, rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize('scope', SCOPES)
def test_hidden_pixels_have_no_influence(scope: str):
    model = build(grn_scope=scope)
    mask = mask_of('scattered')
    hidden = mask.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None]
    images = images_for(mask, torch.float32)
    found = []
    for value in (0.0, 1e6, float('nan')):
        changed = images.masked_fill(hidden, value)
        found.append(
            outputs_and_gradients(
                lambda x: model.encode(x, mask), model, changed
            )
        )
    for other in found[1:]:
        for name, value in found[0].items():
            assert torch.equal(value, other[name]), name
    assert not found[0]['images'].masked_select(hidden).any()


def test_features_do_not_depend_on_batch_mates():
    mask = mask_of('scattered', 3)
    images = images_for(mask, torch.float32)
    model = build()
    whole = model.encode(images, mask)
    for i in range(3):
        alone = model.encode(images[i : i + 1], mask[i : i + 1])
        # Another batch size is another blocking of the same sums.
        torch.testing.assert_close(alone[0], whole[i], rtol=1e-5, atol=1e-5)
    changed = images.clone()
    changed[1] *= 100
    assert torch.equal(model.encode(changed, mask)[0], whole[0])
    assert torch.equal(model.encode(changed, mask)[2], whole[2])
    batch = build(grn_scope='batch')
    before = batch.encode(images, mask)[0]
    assert not torch.equal(batch.encode(changed, mask)[0], before)


def dense_loss(model: FCMAE, images: Tensor, mask: Tensor) -> Tensor:
    """The paper's loss, over all patches, then averaged over hidden ones."""
    x = masked.encode(model.backbone, images, mask, model.grn_scope)
    hidden = mask[:, None].to(x.dtype)
    x = F.conv2d(x, model.proj.weight, model.proj.bias)
    x = x * (1 - hidden) + model.mask_token * hidden
    for block in model.decoder:
        y = block.dwconv(x)
        y = masked.channel_norm(y, block.norm)
        y = F.gelu(masked.pointwise(y, block.pwconv1))
        y = masked.masked_grn(y, block.grn, torch.ones_like(hidden), 'sample')
        x = x + masked.pointwise(y, block.pwconv2)
    pred = F.conv2d(x, model.pred.weight, model.pred.bias)
    n, _, h, w = pred.shape
    pixels = images.reshape(n, 3, h, 32, w, 32)
    target = torch.einsum('nchpwq->nhwpqc', pixels).reshape(n, h * w, -1)
    if model.norm_pix_loss:
        mean = target.mean(-1, keepdim=True)
        target = (target - mean) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
    pred = torch.einsum('ncl->nlc', pred.reshape(n, -1, h * w))
    loss = ((pred - target) ** 2).mean(-1)
    return (loss * mask.flatten(1)).sum() / mask.sum()


@pytest.mark.parametrize('norm_pix_loss', [True, False])
@pytest.mark.parametrize('depth', [0, 1, 2])
def test_loss_and_gradients_equal_masked_dense(depth, norm_pix_loss):
    model = build(decoder_depth=depth, norm_pix_loss=norm_pix_loss).double()
    mask = mask_of('scattered')
    images = images_for(mask) * 3 + 1
    ours = model(images, mode='loss', mask=mask)['loss']
    ours.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    theirs = dense_loss(model, images, mask)
    theirs.backward()
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)
    for name, param in model.named_parameters():
        torch.testing.assert_close(
            gradients[name], param.grad, rtol=1e-8, atol=1e-10, msg=name
        )


def test_reconstruction_of_a_perfect_prediction_is_the_image():
    model = build().double()
    mask = mask_of('scattered')
    images = images_for(mask)
    patches = to_patches(images)
    assert torch.equal(to_images(patches), images)
    mean, std = patches.mean(-1, True), patches.var(-1, keepdim=True).sqrt()
    perfect = ((patches - mean) / std).permute(0, 3, 1, 2)
    model.pred = torch.nn.Identity()
    model.decode = lambda images, mask: perfect
    found = model(images, mode='predict', mask=mask)
    # The two differ by the epsilon beside the variance.
    torch.testing.assert_close(found, images, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    'ratio,size,visible',
    [
        (0.6, (224, 224), 19),
        (0.6, (224, 160), 14),
        (0.75, (64, 96), 1),
        (0.0, (64, 64), 4),
    ],
)
def test_random_mask_keeps_as_many_as_published(ratio, size, visible):
    model = build(mask_ratio=ratio)
    mask = model.random_mask(torch.zeros(5, 3, *size))
    assert mask.dtype == torch.bool
    assert mask.shape == (5, size[0] // 32, size[1] // 32)
    assert ((~mask).flatten(1).sum(1) == visible).all()


def test_random_mask_is_uniform_seeded_and_per_image():
    model = build()
    images = torch.zeros(2000, 3, 64, 96)
    torch.manual_seed(5)
    mask = model.random_mask(images)
    torch.manual_seed(5)
    assert torch.equal(mask, model.random_mask(images))
    assert not torch.equal(mask, model.random_mask(images))
    # 6 patches, int(2.4) = 2 visible: each with 1/3; 5 standard deviations.
    frequency = (~mask).double().mean(0)
    assert (frequency - 1 / 3).abs().max() < 5 * (2 / 9 / 2000) ** 0.5
    assert mask.flatten(1).unique(dim=0).shape[0] == 15


def test_processes_draw_what_one_would(monkeypatch):
    model = build()
    torch.manual_seed(5)
    whole = model.random_mask(torch.zeros(6, 3, 96, 96))
    monkeypatch.setattr(fcmae, 'get_world_size', lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(
            'mmconvnext.pretrain.fcmae.get_rank', lambda r=rank: r
        )
        torch.manual_seed(5)
        mask = model.random_mask(torch.zeros(3, 3, 96, 96))
        assert torch.equal(mask, whole[rank::2])


def test_all_parameters_learn_and_none_is_left():
    model = build()
    mask = mask_of('scattered')
    model(images_for(mask, torch.float32), mask=mask)['loss'].backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert not without


def test_other_output_norms_are_left_alone():
    backbone = dict(type='mmconvnext.ConvNeXtV2', arch=masked.TINY)
    model = FCMAE({**backbone, 'out_indices': (0, 1, 2, 3)}, decoder_dim=16)
    mask = mask_of('scattered')
    model(images_for(mask, torch.float32), mask=mask)['loss'].backward()
    frozen = {n for n, p in model.named_parameters() if p.grad is None}
    assert frozen == {
        f'backbone.norm{i}.{p}' for i in range(3) for p in ('weight', 'bias')
    }


def test_one_initialisation():
    model = FCMAE(dict(type='mmconvnext.ConvNeXtV2', arch='atto'))
    model.init_weights()
    for name, param in model.named_parameters():
        if param.ndim > 1 and param.numel() > 1000:
            # A normal cut at 2 units is a normal of std .02 at this size.
            assert abs(float(param.std()) - 0.02) < 2e-3, name
            assert abs(float(param.mean())) < 2e-3, name
        elif name.endswith('bias') or '.grn.' in name:
            assert not param.any(), name
    assert 0.01 < float(model.mask_token.std()) < 0.03


def test_bfloat16_follows_float32():
    model = build()
    mask = mask_of('scattered')
    images = images_for(mask, torch.float32)
    exact = model(images, mask=mask)['loss']
    with torch.autocast('cpu', torch.bfloat16):
        loss = model(images, mask=mask)['loss']
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.02, atol=0)


def test_activation_checkpointing_changes_nothing():
    mask = mask_of('scattered')
    losses = []
    for with_cp in (False, True):
        model = build()
        model.backbone.with_cp = with_cp
        loss = model(images_for(mask, torch.float32), mask=mask)['loss']
        loss.backward()
        losses.append((loss, model.backbone.stages[0][0].dwconv.weight.grad))
    for plain, other in zip(*losses):
        assert torch.equal(plain, other)


def test_drop_path_drops_whole_images():
    model = build(type='ConvNeXtV2')
    for stage in model.backbone.stages:
        for block in stage:
            block.drop_path = 0.5
    mask = mask_of('scattered', 4)
    images = images_for(mask[:1], torch.float32).repeat(4, 1, 1, 1)
    mask = mask[:1].repeat(4, 1, 1)
    model.train()
    seen = set()
    for _ in range(8):
        maps = model.encode(images, mask)
        seen |= {round(float(x.sum()), 3) for x in maps}
    # Five blocks: 32 ways for an image, drawn 32 times in all.
    assert 8 < len(seen) <= 32


BAD = {
    'mask_ratio must be in': dict(mask_ratio=1.0),
    'patch_size must be a multiple of 32': dict(patch_size=48),
    'grn_scope must be one of': dict(grn_scope='image'),
}


@pytest.mark.parametrize('message', BAD)
def test_bad_options_are_named(message: str):
    with pytest.raises(ValueError, match=message):
        build(**BAD[message])


def test_bad_backbones_are_named():
    backbone = dict(type='mmconvnext.ConvNeXtV2', arch=masked.TINY)
    with pytest.raises(ValueError, match='must contain 3'):
        FCMAE({**backbone, 'out_indices': (0, 1)})
    with pytest.raises(ValueError, match='drop_path_rate=0'):
        FCMAE({**backbone, 'drop_path_rate': 0.1}, grn_scope='batch')


def test_bad_inputs_are_named():
    model = build(mask_ratio=0.9)
    images = torch.zeros(1, 3, 64, 96)
    hidden = torch.ones(1, 2, 3, dtype=torch.bool)
    cases = {
        'multiples of the patch size 32': (images[..., :70], None),
        r'must be \(N, 3': (images[:, :2], None),
        'leaves none of 6': (images, None),
        'mask must be bool': (images, hidden.float()),
        r'mask must be bool \(1, 2, 3\)': (images, hidden[:, :1]),
        'hides every patch': (images, hidden),
        'hides nothing': (images, ~hidden),
    }
    for message, (inputs, mask) in cases.items():
        with pytest.raises(ValueError, match=message):
            model(inputs, mask=mask)
    with pytest.raises(ValueError, match='mode must be one of'):
        model(images, mode='train', mask=~hidden)
