"""tools/export.py, quantize.py, and test.py and predict.py on their files."""

import re
from pathlib import Path
from typing import List, NamedTuple

import exported
import pytest
import torch
from runs import ROOT, succeed, tool
from tiny import load, shrink

exported.need_extras()
import onnx  # noqa: E402

from mmconvnext.deploy import load as load_file  # noqa: E402


class Case(NamedTuple):
    """A config, its drawn data, and how the result of a test is named."""

    config: str
    data: str
    images: str
    metric: str


CASES = {
    'segmentation': Case(
        'upernet_convnextv2_atto_demo.py',
        'ade20k',
        'images/validation',
        'mIoU',
    ),
    'detection': Case(
        'mask_rcnn_convnextv2_atto_demo.py',
        'coco',
        'val2017',
        'coco/segm_mAP',
    ),
}


class Trained(NamedTuple):
    """A case with its files."""

    case: Case
    config: Path
    data: Path
    weights: Path
    file: Path


@pytest.fixture(scope='module')
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'demo'
    succeed('tools/make_demo_data.py', '--out', out, '--train', 1, '--val', 2)
    return out


@pytest.fixture(scope='module', params=CASES)
def trained(
    request: pytest.FixtureRequest,
    demo: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    """A tiny model, exported by the command."""
    case = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    cfg = shrink(load(case.config))
    config = folder / 'tiny.py'
    cfg.dump(config)
    weights = folder / 'weights.pth'
    model = exported.build(cfg)
    torch.save(dict(state_dict=model.state_dict(), meta={}), weights)
    file = folder / 'model.onnx'
    out = export(config, weights, file, demo / case.data)
    assert 'too far' not in out and ': kept' in out
    assert 'licence of the weights: not stated' in out
    return Trained(case, config, demo / case.data, weights, file)


def export(config: Path, weights: Path, file: Path, data: Path) -> str:
    where = ['--out', file, '--data-root', data]
    return succeed('tools/export.py', config, weights, *where)


def metric(of: Trained, words: List, cwd: Path) -> float:
    options = ['--work-dir', cwd / 'work']
    found = succeed('tools/test.py', *words, *options)
    return float(re.search(rf'^{of.case.metric}: (.*)$', found, re.M)[1])


@pytest.mark.slow
def test_the_metric_is_that_of_the_checkpoint(
    trained: Trained, tmp_path: Path
) -> None:
    """With a config and without one: the file has its own."""
    data = ['--data-root', trained.data]
    pair = [trained.config, trained.weights]
    wanted = metric(trained, [*pair, *data], tmp_path)
    alone = metric(trained, [trained.file, *data], tmp_path)
    both = metric(trained, [trained.config, trained.file, *data], tmp_path)
    assert abs(alone - wanted) <= 0.05 and both == alone


@pytest.mark.slow
def test_predictions_need_no_config(trained: Trained, tmp_path: Path) -> None:
    images = trained.data / trained.case.images
    words = [trained.file, images, '--out', tmp_path, '--html', '--labels']
    succeed('tools/predict.py', *words)
    names = {path.name for path in images.iterdir()}
    pictures = {path.name.removesuffix('.png') for path in tmp_path.iterdir()}
    assert len(names) == 2
    assert {Path(n).stem for n in names} <= {Path(n).stem for n in pictures}
    assert (tmp_path / 'index.html').is_file()
    assert (tmp_path / 'scores.csv').is_file()


@pytest.mark.slow
def test_int8_is_written_and_tested(trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / 'int8.onnx'
    images = trained.data / trained.case.images
    words = [trained.file, images, '--out', out, '--metric']
    printed = succeed('tools/quantize.py', *words)
    assert re.search(rf'{trained.case.metric}: \S+ -> \S+', printed)
    # At this width the scales outweigh what the weights save.
    kinds = [(t.data_type, len(t.dims)) for t in initializers(out)]
    assert kinds.count((onnx.TensorProto.INT8, 4)) > 10
    assert (onnx.TensorProto.INT8, 4) not in [
        (t.data_type, len(t.dims)) for t in initializers(trained.file)
    ]
    assert load_file(out).description.precision == 'int8'
    again = tool('tools/quantize.py', out, images, '--out', out)
    assert again.returncode and 'is int8: quantise a file' in again.stderr


def initializers(file: Path) -> list:
    return list(onnx.load(str(file)).graph.initializer)


REFUSED = {
    'another head': (
        ['--cfg-options', 'model.decode_head.type=PSAHead'],
        'PSAHead cannot be exported',
    ),
    'a small shape': (['--shape', 8, 8], 'at least 32 x 32'),
    'no data': (['--data-root', 'nowhere'], '--check FOLDER'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_refused_before_the_checkpoint_is_read(
    name: str, tmp_path: Path
) -> None:
    config = ROOT / 'configs' / CASES['segmentation'].config
    words, message = REFUSED[name]
    out = tmp_path / 'model.onnx'
    done = tool('tools/export.py', config, 'none.pth', '--out', out, *words)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert message in done.stderr and not out.exists()


@pytest.mark.slow
def test_the_device_is_one_of_the_runtime(trained: Trained) -> None:
    done = tool('tools/test.py', trained.file, '--device', 'npu')
    assert done.returncode == 1 and 'runs on cpu, cuda' in done.stderr


OUT = ['images', '--out', 'out']
CHECKPOINTS = [
    ('predict', ['a.pth', *OUT], 'a config goes before'),
    (
        'predict',
        ['a.py', 'a.pth', *OUT, '--runtime', 'openvino'],
        '--runtime is for exported models',
    ),
    (
        'test',
        ['demo.py', 'a.pth', '--device', 'cpu'],
        '--device is for exported models',
    ),
]


@pytest.mark.parametrize('script, words, message', CHECKPOINTS)
def test_options_of_files_are_not_those_of_checkpoints(
    script: str, words: list, message: str, tmp_path: Path
) -> None:
    (tmp_path / 'a.pth').touch()
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'a.png').touch()
    (tmp_path / 'a.py').write_text('', encoding='utf-8')
    base = f"_base_ = 'mmconvnext::{CASES['segmentation'].config}'"
    (tmp_path / 'demo.py').write_text(base, encoding='utf-8')
    done = tool(ROOT / f'tools/{script}.py', *words, cwd=tmp_path)
    assert done.returncode == 1 and message in done.stderr
