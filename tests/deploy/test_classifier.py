"""Files of classifiers equal PyTorch, through every step of the way."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any, Set

import exported
import numpy as np
import pytest
import tiny
import torch
from labelled import write as write_image
from mmengine.config import Config
from mmengine.runner import Runner

exported.need_extras()

from mmconvnext import ImageClassifier, deploy, files  # noqa: E402
from mmconvnext.deploy import (  # noqa: E402
    exact,
    export,
    half,
    hosts,
    parity,
    quantize,
    supported,
)

CONFIG = 'finetune_convnextv2_atto_signs.py'
SIGNS = Path(__file__).parents[2] / 'data/signs'
# Odd, smaller than the example, not square, batch 1 to 3; none is traced.
SHAPES = [(1, 96, 96), (2, 75, 111), (1, 257, 333), (3, 64, 33)]
CLASSES = tuple(f'sign {i}' for i in range(10))
RUNTIMES = ['onnxruntime', 'openvino']


def config(version: int = 2, **dataset: Any) -> Config:
    cfg = tiny.load(CONFIG)
    cfg.model.backbone.update(
        type='mmconvnext.ConvNeXt' + ['', '', 'V2'][version],
        arch=dict(depths=[1, 1, 2, 1], dims=[8, 16, 24, 32]),
    )
    cfg.test_dataloader.update(
        batch_size=2, num_workers=0, persistent_workers=False
    )
    cfg.test_dataloader.dataset.update(dataset or named())
    return cfg


def named() -> dict:
    return dict(metainfo=dict(classes=list(CLASSES)))


def build(cfg: Config) -> ImageClassifier:
    """With sizes of logits as trained ones have."""
    model = exported.build(cfg)
    torch.nn.init.normal_(model.head.weight, std=1.0)
    return model


def need(runtime: str) -> None:
    pytest.importorskip(runtime, reason=exported.REASON)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: Any) -> Path:
    """Class folders, val/CLASS/0.png, of several sizes."""
    root = tmp_path_factory.mktemp('images')
    for i, name in enumerate(CLASSES):
        picture = exported.image(90 + 7 * i, 130 - 5 * i, seed=i)
        write_image(root / 'val' / name / f'{i}.png', picture)
    return root


@pytest.mark.parametrize('runtime', RUNTIMES)
@pytest.mark.parametrize('version', [1, 2])
@torch.no_grad()
def test_any_size_and_batch_is_equal(
    version: int, runtime: str, tmp_path: Path
) -> None:
    need(runtime)
    cfg = config(version)
    model = build(cfg)
    before = copy.deepcopy(model.state_dict())
    export.export(model, cfg, tmp_path / 'model.onnx')
    file = deploy.load(tmp_path / 'model.onnx', runtime)
    for shape in SHAPES:
        batch = exported.images(*shape)
        data = dict(inputs=list(batch.flip(1)))  # the model takes RGB
        logits = model(model.data_preprocessor(data)['inputs'])
        found = file.run(batch.numpy())
        # Logits are about 5 large, probabilities at most 1.
        np.testing.assert_allclose(found['logits'], logits, atol=1e-4)
        scores = logits.softmax(1)
        np.testing.assert_allclose(found['scores'], scores, atol=2e-5)
        assert np.ptp(logits.numpy()) > 1
        assert found['scores'].dtype == found['logits'].dtype == np.float32
    after = model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize('runtime', RUNTIMES)
@pytest.mark.parametrize('size', [96, (64, 112)], ids=str)
@pytest.mark.parametrize('ratio', [0.875, 0.6, None])
def test_the_whole_way_is_equal(
    ratio: float, size: Any, runtime: str, folder: Path, tmp_path: Path
) -> None:
    """Read, resize, crop, normalise: as the tools compare it."""
    need(runtime)
    cfg = config()
    pipeline = cfg.test_dataloader.dataset.pipeline
    pipeline[1].update(scale=size, crop_ratio=ratio)
    cfg.model.data_preprocessor.mean = [90.0, 120.0, 140.0]
    model = build(cfg)
    export.export(model, cfg, tmp_path / 'model.onnx')
    file = deploy.load(tmp_path / 'model.onnx', runtime)
    paths = files.find_images(str(folder))[:3]
    rows = list(
        parity.compare(parity.Reference(model, cfg), file, paths, 'fp32')
    )
    assert len(rows) == parity.count_rows(3, any_size=True)
    assert all(row.fits for row in rows), parity.table(rows)
    found = file.predict(paths[0])
    assert sorted(found.classes) == sorted(CLASSES)
    assert [CLASSES.index(name) for name in found.classes] == list(
        found.labels
    )
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('version', [1, 2])
@pytest.mark.skipif(not SIGNS.is_dir(), reason='data/signs is not there')
@pytest.mark.parametrize('runtime', RUNTIMES)
def test_real_photographs_are_equal(
    version: int, runtime: str, tmp_path: Path
) -> None:
    need(runtime)
    cfg = config(version)
    model = build(cfg)
    export.export(model, cfg, tmp_path / 'model.onnx')
    file = deploy.load(tmp_path / 'model.onnx', runtime)
    paths = files.find_images(str(SIGNS / 'val'))[::40]
    reference = parity.Reference(model, cfg)
    rows = list(parity.compare(reference, file, paths, 'fp32'))
    assert all(row.fits for row in rows), parity.table(rows)
    assert max(row.values['scores'] for row in rows) < 2e-5


def test_parity_notices_another_model(folder: Path, tmp_path: Path) -> None:
    cfg = config()
    model = build(cfg)
    file = exported.write(model, cfg, tmp_path / 'model.onnx')
    paths = files.find_images(str(folder))[:1]
    for spoil in (
        lambda: model.head.bias.data.add_(torch.eye(10)[3] * 1e-3),
        lambda: model.data_preprocessor.mean.add_(1),
    ):
        spoil()
        reference = parity.Reference(model, cfg)
        rows = list(parity.compare(reference, file, paths, 'fp32'))
        assert not all(row.fits for row in rows)


def test_another_best_class_counts_unless_scores_are_equal() -> None:
    sample = ImageClassifier(
        dict(
            type='mmconvnext.ConvNeXt', arch=dict(depths=[1] * 4, dims=[8] * 4)
        ),
        3,
    )(torch.zeros(1, 3, 32, 32), mode='predict')[0]
    sample.set_field(torch.zeros(3), 'logits')
    for second, count in ((0.4, 1.0), (0.499999, 0.0)):
        wanted = torch.tensor([0.5, second, 0.1])
        sample.set_field(wanted, 'pred_scores')
        scores = np.array([[0.1, 0.5, 0.1]], np.float32)
        found = dict(scores=scores, logits=np.zeros((1, 3)))
        assert parity.classes(sample, 0, found)['classes'] == count


@pytest.mark.parametrize('version', [1, 2])
def test_fp16_is_safe_and_near(
    version: int, folder: Path, tmp_path: Path
) -> None:
    import onnx

    cfg = config(version)
    model = build(cfg)
    out = tmp_path / 'model.onnx'
    file = exported.write(model, cfg, out, precision='fp16')
    assert half.faults(onnx.load(str(out))) == []
    kinds = {t.data_type for t in onnx.load(str(out)).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    paths = files.find_images(str(folder))[:2]
    reference = parity.Reference(model, cfg)
    rows = list(parity.compare(reference, file, paths, 'fp16'))
    assert all(row.fits for row in rows), parity.table(rows)
    assert max(row.values['scores'] for row in rows) > 0


def test_pooling_in_half_would_be_refused(tmp_path: Path, monkeypatch) -> None:
    """The control: the mean over the map as the model itself takes it."""
    cfg = config()
    kind = export.WRAPPERS['classification'][0]

    def forward(self: Any, image: torch.Tensor) -> tuple:
        with exact.Exact():
            maps = self.backbone(self.preprocess(image).half())[0]
        logits = self.head(self.norm(maps.mean((-2, -1)).float()))
        return logits, logits.softmax(1)

    monkeypatch.setattr(kind, 'forward', forward)
    with pytest.raises(
        ValueError,
        match=r'overflow: ReduceMean \S+: adds up in float16; export',
    ):
        exported.write(build(cfg), cfg, tmp_path / 'm.onnx', precision='fp16')


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_int8_keeps_most_of_it(
    runtime: str, folder: Path, tmp_path: Path
) -> None:
    need(runtime)
    cfg = config()
    source, out = tmp_path / 'model.onnx', tmp_path / 'int8.onnx'
    exact = exported.write(build(cfg), cfg, source)
    images = files.find_images(str(folder))
    about = quantize.quantize(source, images, out, runtime)
    assert (about.task, about.precision) == ('classification', 'int8')
    low = deploy.load(out, runtime=runtime)
    far = [
        np.abs(_by_label(low, path) - _by_label(exact, path)).max()
        for path in images
    ]
    assert 0 < np.mean(far) < 0.1
    assert _map_types(out) == {'INT8' if runtime == 'openvino' else 'UINT8'}


def test_int8_is_for_a_known_runtime(folder: Path, tmp_path: Path) -> None:
    cfg = config()
    source, out = tmp_path / 'model.onnx', tmp_path / 'int8.onnx'
    exported.write(build(cfg), cfg, source)
    with pytest.raises(ValueError, match="openvino, got 'tvm'"):
        quantize.quantize(source, [], out, 'tvm')
    assert not out.exists()


def _by_label(file: Any, path: Path) -> np.ndarray:
    found = file.predict(path)
    return found.scores[np.argsort(found.labels)]


def _map_types(path: Path) -> Set[str]:
    """Types of the maps that a file makes int8, by their zeros."""
    import onnx

    graph = onnx.load(str(path)).graph
    names = {n.input[2] for n in graph.node if n.op_type == 'QuantizeLinear'}
    kinds = {t.data_type for t in graph.initializer if t.name in names}
    return {onnx.TensorProto.DataType.Name(kind) for kind in kinds}


def test_the_file_says_what_it_needs(folder: Path, tmp_path: Path) -> None:
    """Names from the folders of the test data where the config has none."""
    cfg = config(data_root=str(folder))
    about = exported.write(build(cfg), cfg, tmp_path / 'm.onnx').description
    assert about.classes == CLASSES
    assert about.resize == dict(size=[96, 96], crop_ratio=0.96)
    assert (about.task, about.palette) == ('classification', ())
    fixed = export.export(build(cfg), cfg, tmp_path / 'f.onnx', shape=(96, 96))
    assert fixed.shape == (96, 96)
    file = deploy.load(tmp_path / 'f.onnx')
    assert len(file.predict(exported.image(50, 80)).scores) == 10
    with pytest.raises(ValueError, match='takes 96 x 96 pixels only'):
        file.check_size(64, 64)


def test_classes_that_are_not_the_models_are_refused(tmp_path: Path) -> None:
    cfg = config(metainfo=dict(classes=['a', 'b']))
    with pytest.raises(ValueError, match='the model has 10 classes.* 2; name'):
        exported.write(build(cfg), cfg, tmp_path / 'm.onnx')


def test_classes_of_folders_that_are_not_there(tmp_path: Path) -> None:
    cfg = config(data_root='gone')
    with pytest.raises(ValueError, match='classes are not known .*gone/val'):
        exported.write(build(cfg), cfg, tmp_path / 'm.onnx')


REFUSED = {
    'HostPreprocessor': (
        lambda cfg: cfg.model.data_preprocessor.update(
            type='DetDataPreprocessor'
        ),
        'only ErasingDataPreprocessor, ImgDataPreprocessor',
    ),
    'step': (
        lambda cfg: cfg.test_dataloader.dataset.pipeline.insert(
            1, dict(type='mmconvnext.RandomFlip')
        ),
        'has RandomFlip.* only LoadImage, ResizedCenterCrop, PackClass',
    ),
    'BGR': (
        lambda cfg: cfg.test_dataloader.dataset.pipeline.insert(
            0, dict(type='LoadImageFromFile')
        ),
        'has LoadImageFromFile',
    ),
    'channels': (
        lambda cfg: cfg.model.backbone.update(in_channels=4),
        'images of 3 channels, the backbone 4',
    ),
    'twice': (
        lambda cfg: cfg.test_dataloader.dataset.pipeline.insert(
            1, dict(type='mmconvnext.ResizedCenterCrop')
        ),
        'resizes more than once',
    ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_a_file_cannot_do_is_refused(case: str, tmp_path: Path) -> None:
    cfg = config()
    model = build(cfg)
    change, message = REFUSED[case]
    change(cfg)
    with pytest.raises(ValueError, match=message):
        exported.write(model, cfg, tmp_path / 'm.onnx')
    assert not (tmp_path / 'm.onnx').exists()
    assert supported.is_verified(cfg)


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_the_metric_is_that_of_the_checkpoint(
    runtime: str, folder: Path, tmp_path: Path
) -> None:
    """Through mmengine's runner, with the config that is in the file."""
    need(runtime)
    cfg = config(
        data_root=str(folder), data_prefix=dict(img_path='val'), **named()
    )
    cfg.work_dir = str(tmp_path / 'own')
    cfg.experiment_name = f'{tmp_path.name}_{runtime}'
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
        cfg.pop(key)
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg.pop(key)
    cfg.pop('param_scheduler')
    model = build(cfg)
    path = tmp_path / 'model.onnx'
    export.export(model, cfg, path)
    runner = Runner.from_cfg(cfg)
    runner.model.load_state_dict(model.state_dict())
    wanted = runner.test()
    own = hosts.config_for(None, str(path))
    hosts.use_file(own, str(path), runtime=runtime)
    own.work_dir = str(tmp_path / 'file')
    own.experiment_name = cfg.experiment_name + '_file'
    assert Runner.from_cfg(own).test() == wanted
    assert set(wanted) == {'accuracy/top1', 'accuracy/top5'}
    assert 0 < wanted['accuracy/top5'] < 100


def test_classes_of_the_file_name_the_test_data(
    folder: Path, tmp_path: Path
) -> None:
    """One class has no folder here; the others keep their numbers."""
    cfg = config(data_root=str(folder))
    path = tmp_path / 'model.onnx'
    exported.write(build(cfg), cfg, path)
    for other, classes in (
        (config(data_root='gone'), CLASSES),
        (hosts.config_for(None, str(path)), CLASSES),
    ):
        hosts.use_file(other, str(path))
        assert hosts.names_of(other)[0] == classes
        assert other.model.type == 'mmconvnext.ExportedModel'
    wrong = config(metainfo=dict(classes=['x'] * 10))
    with pytest.raises(ValueError, match='has the classes sign 0'):
        hosts.use_file(wrong, str(path))


RUN = """
import sys
from mmconvnext import deploy
found = deploy.load({0!r}).predict({1!r})
print(found.classes[0])
heavy = {{'torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'onnx'}}
print(sorted(heavy & {{name.split('.')[0] for name in sys.modules}}))
"""


def test_running_a_file_imports_neither_torch_nor_hosts(
    folder: Path, tmp_path: Path
) -> None:
    cfg = config()
    file = exported.write(build(cfg), cfg, tmp_path / 'model.onnx')
    image = files.find_images(str(folder))[0]
    code = RUN.format(str(tmp_path / 'model.onnx'), str(image))
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split('\n')[:2] == [
        file.predict(image).classes[0],
        '[]',
    ]
