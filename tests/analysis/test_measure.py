"""The measures on cases with known answers."""

import math

import pytest
import torch
from torch import Tensor

from mmconvnext import ConvNeXt, ConvNeXtV2
from mmconvnext.analysis.measure import (
    DEAD,
    SATURATED,
    WHERE,
    LayerStatistics,
    attach,
    choose,
    class_selectivity,
    features,
    find_blocks,
    measure,
)
from mmconvnext.pretrain.visible_patches import VisiblePatches

VERSIONS = {1: ConvNeXt, 2: ConvNeXtV2}
ARCH = dict(depths=[1, 1, 2, 1], dims=[8, 16, 24, 32])


def naive_distance(x: Tensor) -> float:
    """The paper's double loop over the channels of one ``(L, C)`` map."""
    columns = list(x.T)
    total = sum(
        (1 - torch.cosine_similarity(a, b, dim=0).item()) / 2
        for a in columns
        for b in columns
    )
    return total / len(columns) ** 2


def maps(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def make(version: int) -> torch.nn.Module:
    """A tiny backbone whose GRN and biases have an effect."""
    model = VERSIONS[version](ARCH)
    with torch.no_grad():
        for param in model.parameters():
            if param.dim() == 1:
                param += 0.3 * torch.randn_like(param)
    return model


@pytest.mark.parametrize('scale', [1e-3, 1.0, 1e4])
def test_closed_form_is_the_double_loop(scale: float) -> None:
    x = maps(3, 5, 7, 11) * scale
    found = measure(x).distance
    for image, value in zip(x, found):
        expected = naive_distance(image.flatten(0, 1))
        assert value.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_lower_precision_is_measured_in_float32(dtype: torch.dtype) -> None:
    x = maps(2, 9, 9, 64).to(dtype)
    found = measure(x)
    assert found.distance.dtype == torch.float32
    exact = measure(x.double()).distance.float()
    # 64 x 81 products of float32 rounding 6e-8.
    torch.testing.assert_close(found.distance, exact, rtol=0, atol=1e-6)


def test_identical_channels_are_zero_apart() -> None:
    x = maps(2, 4, 4, 1).expand(-1, -1, -1, 10) * torch.arange(1, 11)
    assert measure(x).distance.abs().max() < 1e-12


@pytest.mark.parametrize('channels', [1, 2, 8, 64])
def test_orthogonal_channels(channels: int) -> None:
    basis = torch.linalg.qr(maps(100, channels)).Q
    found = measure(basis.view(1, 10, 10, channels)).distance.item()
    assert found == pytest.approx((channels - 1) / (2 * channels), abs=1e-12)


def test_opposite_channels_are_a_half_apart() -> None:
    x = maps(1, 6, 6, 1)
    both = torch.cat([x, -x], dim=-1)
    assert measure(both).distance.item() == pytest.approx(0.5)


def test_dead_channels_are_counted_and_left_out() -> None:
    x = maps(1, 8, 8, 1)
    dead = torch.zeros(1, 8, 8, 7, dtype=x.dtype)
    found = measure(torch.cat([x, dead], dim=-1))
    # If dead channels counted, one live channel of eight would read 0.492,
    # almost the maximum.
    assert naive_distance(torch.cat([x, dead], -1).flatten(0, 2)) > 0.49
    assert found.distance.item() == pytest.approx(0, abs=1e-12)
    assert found.dead.item() == 7 / 8
    two = torch.cat([maps(1, 8, 8, 2), dead], dim=-1)
    expected = naive_distance(two[..., :2].flatten(0, 2))
    assert measure(two).distance.item() == pytest.approx(expected)


@pytest.mark.parametrize(('factor', 'dead'), [(0.9, 0.5), (1.1, 0.0)])
def test_dead_is_relative_to_the_mean_norm(factor: float, dead: float) -> None:
    x = torch.ones(1, 3, 3, 2, dtype=torch.float64)
    # norms 1 and f: f is DEAD of their mean where f = DEAD / 2 (1 + f).
    x[..., 1] = factor * DEAD / (2 - DEAD)
    for scale in (1.0, 1e-6, 1e6):
        assert measure(scale * x).dead.item() == dead


@pytest.mark.parametrize(('factor', 'share'), [(0.98, 1.0), (1.02, 0.0)])
def test_saturated_is_almost_constant(factor: float, share: float) -> None:
    noise = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(8)
    ratio = factor * SATURATED / math.sqrt(1 - SATURATED**2)
    x = (1 + ratio * noise).view(1, 4, 4, 1)
    assert measure(x).saturated.item() == share
    assert measure(-x).saturated.item() == share


def test_what_has_no_meaning_is_nan() -> None:
    nothing = measure(torch.zeros(1, 4, 4, 3))
    assert nothing.distance.isnan() and nothing.dead.item() == 1
    assert nothing.saturated.item() == 0
    assert measure(torch.ones(1, 1, 1, 3)).saturated.isnan()
    broken = torch.ones(2, 4, 4, 3)
    broken[0, 0, 0, 0] = math.nan
    for values in measure(broken):
        assert values.isnan().tolist() == [True, False]


def test_streaming_equals_all_at_once_in_any_order() -> None:
    x = maps(99, 6, 5, 9)
    x[3, ..., :4] = 0
    labels = ['cat', 'dog', 'cow'] * 33
    whole = measure(x)
    orders = [range(99), torch.randperm(99).tolist()]
    summaries, selectivities = [], []
    for order in orders:
        statistics = LayerStatistics()
        for i in order:
            statistics.update(x[i : i + 1], labels[i])
        summaries.append(statistics.summary())
        selectivities.append(statistics.selectivity())
    batched = LayerStatistics()
    batched.update(x[:5])
    batched.update(x[5:])
    for name, values in zip(whole._fields, whole):
        assert summaries[0][name] == pytest.approx(values.mean().item())
        assert batched.summary()[name] == pytest.approx(summaries[0][name])
    deviation = whole.distance.std(correction=0).item()
    assert summaries[0]['distance_std'] == pytest.approx(deviation)
    assert summaries[0] == summaries[1]
    torch.testing.assert_close(*selectivities)


def test_selectivity_of_known_channels() -> None:
    means = torch.tensor(
        [[2.0, 5.0, 0.0, 3.0], [2.0, 0.0, 0.0, 1.0], [2.0, 0.0, 0.0, 0.0]]
    )
    found = class_selectivity(means)
    # alike, of one class, of none, (3 - .5) / (3 + .5)
    assert found[:2].tolist() == [0, 1] and found[2].isnan()
    assert found[3].item() == pytest.approx(2.5 / 3.5)


def test_selectivity_averages_images_of_a_class() -> None:
    statistics = LayerStatistics()
    for label, value in (('a', 1.0), ('a', -3.0), ('b', 1.0)):
        statistics.update(torch.full((1, 2, 2, 1), value), label)
    assert statistics.selectivity().tolist() == [pytest.approx((2 - 1) / 3)]


def test_selectivity_needs_two_classes() -> None:
    statistics = LayerStatistics()
    statistics.update(torch.ones(1, 2, 2, 1), 'only')
    with pytest.raises(ValueError, match='two classes.*only'):
        statistics.selectivity()


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('channels_last', [False, True])
def test_recomputed_features_lead_to_the_output(
    version: int, channels_last: bool
) -> None:
    """Computing the rest of the block by hand must give its output."""
    block = make(version).stages[1][0].eval()
    x = torch.randn(2, 16, 6, 9)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    (gelu,) = features(block, 'gelu', x)
    (expansion,) = features(block, 'grn', x)
    assert expansion.shape == (2, 6, 9, 64)
    assert torch.equal(gelu, expansion) == (version == 1)
    branch = block.pwconv2(expansion)
    if version == 1:
        branch = block.gamma * branch
    output = block(x)
    by_hand = x + branch.permute(0, 3, 1, 2)
    torch.testing.assert_close(by_hand, output)
    (seen,) = features(block, 'block', x, output=output)
    assert torch.equal(seen, output.permute(0, 2, 3, 1))


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('where', WHERE)
@pytest.mark.parametrize('scope', ['sample', 'batch'])
def test_patches_are_measured_image_by_image(
    version: int, where: str, scope: str
) -> None:
    """Without a hidden patch, patches and whole maps give the same."""
    block = make(version).stages[0][0].eval()
    images = torch.randn(2 if scope == 'sample' else 1, 8, 16, 24)
    mask = torch.zeros(len(images), 2, 3, dtype=torch.bool)
    patches = VisiblePatches(mask, scope)
    cut = patches.gather(images)
    (whole,) = features(block, where, images, output=block(images))
    parts = list(features(block, where, cut, patches, block(cut, patches)))
    assert len(parts) == len(images)
    for image, part in zip(whole, parts):
        expected, found = measure(image[None]), measure(part)
        for a, b in zip(expected, found):
            torch.testing.assert_close(a, b)


def test_hidden_patches_do_not_count() -> None:
    block = make(2).stages[0][0].eval()
    mask = torch.tensor([[[True, False]], [[False, False]], [[True, True]]])
    patches = VisiblePatches(mask)
    cut = patches.gather(torch.randn(3, 8, 8, 16))
    parts = list(features(block, 'grn', cut, patches))
    # An image without a visible patch has no features.
    assert sorted(part.shape[1] for part in parts) == [64, 128]


def test_blocks_are_chosen_by_pattern() -> None:
    blocks = find_blocks(make(1))
    assert list(blocks) == [
        f'stages.{name}' for name in ('0.0', '1.0', '2.0', '2.1', '3.0')
    ]
    assert list(choose(blocks, ['*.2.*', 'stages.0.?'])) == [
        'stages.0.0',
        'stages.2.0',
        'stages.2.1',
    ]
    with pytest.raises(ValueError, match=r"'stage\.\*'; there are stages"):
        choose(blocks, ['stage.*'])


def test_attached_hooks_see_the_forward_and_end() -> None:
    model = make(2).eval()
    seen = {}
    handles = attach(
        find_blocks(model), 'grn', lambda name, it: seen.update({name: [*it]})
    )
    model(torch.randn(1, 3, 32, 64))
    assert [tuple(seen[name][0].shape) for name in seen] == [
        (1, 8, 16, 32),
        (1, 4, 8, 64),
        (1, 2, 4, 96),
        (1, 2, 4, 96),
        (1, 1, 2, 128),
    ]
    for handle in handles:
        handle.remove()
    seen.clear()
    model(torch.randn(1, 3, 32, 64))
    assert not seen
