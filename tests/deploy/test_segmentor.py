"""Files of segmentors equal PyTorch at sizes that were not traced."""

import copy
from pathlib import Path

import exported
import numpy as np
import pytest
import torch

exported.need_extras()

from mmconvnext.deploy import exact, export, parity, segmentor  # noqa: E402

# Odd, smaller than the example, not square, batch 1 to 3; none is traced.
SHAPES = [(1, 96, 128), (2, 75, 111), (1, 257, 333), (3, 64, 33)]
NORM = dict(type='BN')
LOSS = dict(type='CrossEntropyLoss')
ONE = dict(
    _delete_=True,
    in_channels=32,
    in_index=3,
    channels=8,
    num_classes=5,
    norm_cfg=NORM,
    align_corners=False,
    loss_decode=LOSS,
)
ALL = dict(ONE, in_channels=[8, 16, 24, 32], in_index=[0, 1, 2, 3])
NECK = dict(
    type='FPN', in_channels=[8, 16, 24, 32], out_channels=8, num_outs=4
)
HEADS = {
    'FCNHead': dict(ONE, num_convs=2, concat_input=True),
    'PSPHead': dict(ONE, pool_scales=(1, 2, 3, 6)),
    'ASPPHead': dict(ONE, dilations=(1, 12, 24, 36)),
    'DepthwiseSeparableASPPHead': dict(
        ONE, dilations=(1, 12), c1_in_channels=8, c1_channels=4
    ),
    'DepthwiseSeparableFCNHead': dict(ONE, num_convs=2, concat_input=False),
    'SegformerHead': ALL,
    'FPNHead': dict(ALL, in_channels=[8] * 4, feature_strides=[4, 8, 16, 32]),
    'DAHead': dict(ONE, pam_channels=8),
    'NLHead': dict(ONE, reduction=2, use_scale=True),
    'DNLHead': dict(ONE, reduction=2, use_scale=True),
    'GCHead': dict(ONE, ratio=0.25),
    'EMAHead': dict(
        ONE, ema_channels=8, num_bases=4, num_stages=3, momentum=0.1
    ),
    'EncHead': dict(ALL, num_codes=4, use_se_loss=True, add_lateral=False),
    'ANNHead': dict(
        ALL,
        in_channels=[24, 32],
        in_index=[2, 3],
        project_channels=8,
        key_pool_scales=(1, 3, 6, 8),
    ),
    'APCHead': dict(ONE, pool_scales=(1, 2, 3, 6), fusion=True),
    'SETRUPHead': dict(ONE, num_convs=1, up_scale=4, kernel_size=3),
    'STDCHead': dict(
        ONE,
        in_channels=16,
        in_index=1,
        num_convs=1,
        concat_input=False,
        align_corners=True,
        boundary_threshold=0.1,
    ),
}


def compare(
    model: torch.nn.Module, file: object, shapes: list = SHAPES
) -> None:
    for shape in shapes:
        batch = exported.images(*shape)
        found = file.session.run(batch.numpy(), ('logits', 'labels'))
        for i, sample in enumerate(exported.predict(model, batch)):
            wanted = sample.seg_logits.data.numpy()
            # Float32 in another order; the maps are about 10 large.
            np.testing.assert_allclose(found['logits'][i], wanted, atol=1e-3)
            differ = found['labels'][i] != sample.pred_sem_seg.data[0].numpy()
            assert differ.mean() < 1e-4
            # Or maps could be equal because they are flat.
            assert np.ptp(wanted, axis=(1, 2)).max() > 0.1


@pytest.mark.parametrize('version', exported.UPERNET)
def test_upernet_is_equal(version: int, tmp_path: Path) -> None:
    cfg = exported.config(exported.UPERNET[version])
    model = exported.build(cfg)
    before = copy.deepcopy(model.state_dict())
    file = exported.write(model, cfg, tmp_path / 'model.onnx')
    compare(model, file)
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize('name', HEADS)
def test_heads_are_equal(name: str, tmp_path: Path) -> None:
    head = dict(HEADS[name], type=name)
    more = {'neck': NECK} if name == 'FPNHead' else {}
    cfg = exported.config(exported.UPERNET[2], decode_head=head, **more)
    cfg.model.pop('auxiliary_head')
    model = exported.build(cfg)
    file = exported.write(model, cfg, tmp_path / 'model.onnx')
    compare(model, file, SHAPES[:3])


def test_two_heads_one_after_the_other_are_equal(tmp_path: Path) -> None:
    first = dict(ONE, type='FCNHead', num_convs=1, concat_input=False)
    second = dict(ONE, type='OCRHead', ocr_channels=8)
    cfg = exported.config(exported.UPERNET[2])
    cfg.model.type, cfg.model.num_stages = 'CascadeEncoderDecoder', 2
    heads = [dict(first), dict(second)]
    for head in heads:
        del head['_delete_']
    cfg.model.decode_head = heads
    cfg.model.pop('auxiliary_head')
    model = exported.build(cfg)
    compare(model, exported.write(model, cfg, tmp_path / 'model.onnx'))


def test_pooling_must_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the exporter cannot write the host's own pooling."""

    class Off:
        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(segmentor, 'Exact', Off)
    cfg = exported.config(exported.UPERNET[2])
    with pytest.raises(Exception, match='adaptive_avg_pool2d'):
        exported.write(exported.build(cfg), cfg, tmp_path / 'model.onnx')
    assert not any(tmp_path.iterdir())


def test_pooling_of_the_traced_size_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: bins that stay those of the example are wrong elsewhere."""
    averages = exact.averages
    cfg = exported.config(exported.UPERNET[2])
    model = exported.build(cfg)
    monkeypatch.setattr(
        exact, 'averages', lambda length, *rest: averages(int(length), *rest)
    )
    file = exported.write(model, cfg, tmp_path / 'model.onnx')
    compare(model, file, [(2, *export.EXAMPLE)])  # right where it was traced
    with pytest.raises(Exception, match='MatMul'):
        compare(model, file)


@pytest.mark.parametrize('size', [(1, 1), (3, 6), (6, 5), (None, 2), (7, 9)])
def test_pooling_by_products_is_pytorchs(size: tuple) -> None:
    x = torch.randn(2, 3, 7, 9)
    wanted = torch.nn.functional.adaptive_avg_pool2d(x, size)
    with exact.Exact():
        found = torch.nn.AdaptiveAvgPool2d(size)(x)
    torch.testing.assert_close(found, wanted)


def test_pooling_does_not_overflow_in_half() -> None:
    x = torch.full((1, 1, 200, 300), 60.0).half()
    assert exact.average_pool(x, 1).item() == 60


@pytest.mark.parametrize(
    'size', [(64, 96), (48, 48), (131, 75), (33, 40)], ids=str
)
def test_windows_are_averaged_as_the_host_does(
    size: tuple, tmp_path: Path
) -> None:
    cfg = exported.config(exported.UPERNET[2])
    cfg.model.test_cfg = dict(
        mode='slide', crop_size=(48, 48), stride=(32, 20)
    )
    model = exported.build(cfg)
    file = exported.write(model, cfg, tmp_path / 'model.onnx')
    batch = exported.images(2, *size)
    found = file.run(batch.numpy())
    for i, sample in enumerate(exported.predict(model, batch)):
        wanted = sample.seg_logits.data.numpy()
        np.testing.assert_allclose(found['logits'][i], wanted, atol=1e-3)
        labels = file.after(batch.numpy(), i, size, found).labels
        differ = labels != sample.pred_sem_seg.data[0].numpy()
        assert differ.sum() <= 2


def test_one_class_is_thresholded(tmp_path: Path) -> None:
    head = dict(num_classes=2, out_channels=1, threshold=0.4)
    loss = dict(type='CrossEntropyLoss', use_sigmoid=True)
    head['loss_decode'] = loss
    cfg = exported.config(exported.UPERNET[2], decode_head=head)
    cfg.model.auxiliary_head.update(head)
    model = exported.build(cfg)
    file = exported.write(model, cfg, tmp_path / 'model.onnx')
    assert file.description.threshold == 0.4
    for size in ((64, 96), (100, 70)):  # the file's own, and resized
        image = exported.image(64, 96)
        batch = exported.images(1, 64, 96)
        meta = dict(img_shape=(64, 96), ori_shape=size)
        from mmseg.structures import SegDataSample

        with torch.no_grad():
            sample = model.test_step(
                dict(
                    inputs=list(batch),
                    data_samples=[SegDataSample(metainfo=meta)],
                )
            )[0]
        assert image.shape == (64, 96, 3)
        found = file.after(batch.numpy(), 0, size, file.run(batch.numpy()))
        differ = found.labels != sample.pred_sem_seg.data[0].numpy()
        assert differ.mean() < 1e-3 and 0 < found.labels.mean() < 1


@pytest.mark.parametrize(
    'padding', [dict(size_divisor=32), dict(size=(128, 160))], ids=str
)
def test_padding_is_in_the_graph(padding: dict, tmp_path: Path) -> None:
    cfg = exported.config(
        exported.UPERNET[2], data_preprocessor=dict(test_cfg=padding)
    )
    model = exported.build(cfg)
    file = exported.write(model, cfg, tmp_path / 'model.onnx')
    compare(model, file, [(1, 96, 128), (2, 75, 111), (1, 120, 150)])


def test_a_fixed_shape_takes_that_shape_alone(tmp_path: Path) -> None:
    cfg = exported.config(exported.UPERNET[2])
    model = exported.build(cfg)
    path = tmp_path / 'model.onnx'
    file = exported.write(model, cfg, path, shape=(64, 96))
    compare(model, file, [(1, 64, 96), (3, 64, 96)])
    with pytest.raises(ValueError, match='64 x 96 pixels only'):
        file.predict(exported.image(80, 96))


def test_parity_sees_a_difference(tmp_path: Path) -> None:
    """Against a model with one weight changed, the comparison fails."""
    from PIL import Image

    cfg = exported.config(exported.UPERNET[2])
    model = exported.build(cfg)
    file = exported.write(model, cfg, tmp_path / 'model.onnx')
    picture = tmp_path / 'picture.png'
    Image.fromarray(exported.image(75, 111)).save(picture)
    reference = parity.Reference(model, cfg)
    rows = list(parity.compare(reference, file, [picture], 'fp32'))
    assert len(rows) == parity.count_rows(1, True) == 4
    assert all(row.fits for row in rows), parity.table(rows)
    with torch.no_grad():
        model.decode_head.conv_seg.bias[0] += 0.1
    rows = list(parity.compare(reference, file, [picture], 'fp32'))
    assert not any(row.fits for row in rows)
    assert 'too far' in parity.table(rows)
