"""Loading and running files: with nothing but a runtime, and clear errors."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import exported
import numpy as np
import pytest
from PIL import Image

exported.need_extras()
import onnx  # noqa: E402

from mmconvnext import deploy  # noqa: E402
from mmconvnext.deploy import runtimes  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory: Any) -> Path:
    """A file, and an image beside it."""
    folder = tmp_path_factory.mktemp('segmentor')
    cfg = exported.config(exported.UPERNET[2])
    cfg.test_dataloader.dataset.pipeline.insert(
        1, dict(type='Resize', scale=(150, 90), keep_ratio=True)
    )
    exported.write(exported.build(cfg), cfg, folder / 'model.onnx')
    Image.fromarray(exported.image(97, 130)).save(folder / 'image.png')
    return folder / 'model.onnx'


RUN = """
import sys
from mmconvnext import deploy
labels = deploy.load({0!r}).predict({1!r}).labels
assert labels.shape == (97, 130) and labels.dtype == 'int32', labels
heavy = {{'torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'onnx'}}
print(sorted(heavy & {{name.split('.')[0] for name in sys.modules}}))
"""


def test_running_a_file_imports_neither_torch_nor_hosts(
    segmentor: Path,
) -> None:
    image = segmentor.with_name('image.png')
    code = RUN.format(str(segmentor), str(image))
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == '[]'


def test_paths_and_arrays_give_the_same(segmentor: Path) -> None:
    model = deploy.load(segmentor)
    picture = segmentor.with_name('image.png')
    array = np.asarray(Image.open(picture).convert('RGB'))
    found = model.predict(picture).labels
    assert np.array_equal(found, model.predict(array).labels)
    assert len(np.unique(found)) > 1


def test_the_example_needs_no_package_of_ours(
    segmentor: Path, tmp_path: Path
) -> None:
    """The same labels from onnxruntime, numpy and Pillow alone."""
    picture, out = segmentor.with_name('image.png'), tmp_path / 'labels.png'
    script = Path(deploy.__file__).with_name('example.py')
    text = script.read_text(encoding='utf-8')
    assert sum(map(bool, text.splitlines())) <= 40
    blocked = 'import sys\n' + ''.join(
        f'sys.modules[{name!r}] = None\n'
        for name in ('torch', 'mmengine', 'mmcv', 'cv2', 'mmconvnext')
    )
    run = f'import runpy; runpy.run_path({str(script)!r}, run_name="__main__")'
    done = subprocess.run(
        [sys.executable, '-c', blocked + run, segmentor, picture, out],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    wanted = deploy.load(segmentor).predict(picture).labels
    assert np.array_equal(np.asarray(Image.open(out)), wanted)


def test_openvino_computes_the_same(segmentor: Path) -> None:
    pytest.importorskip('openvino', reason='OpenVINO is an extra')
    picture = segmentor.with_name('image.png')
    wanted = deploy.load(segmentor).predict(picture).labels
    model = deploy.load(segmentor, 'openvino')
    assert (model.predict(picture).labels != wanted).mean() < 1e-3
    low = deploy.load(segmentor, 'openvino', precision='bf16')
    assert (low.predict(picture).labels != wanted).mean() < 0.1


REFUSED = [
    (dict(runtime='tflite'), "onnxruntime, openvino, got 'tflite'"),
    (dict(device='npu'), "onnxruntime runs on cpu, cuda, .* got 'npu'"),
    (dict(precision='bf16'), r"'bf16' .* onnxruntime \(openvino: fp32, bf16"),
    (dict(precision='int8'), 'tools/quantize.py'),
    (dict(device='cuda'), 'no CUDAExecutionProvider'),
]


@pytest.mark.parametrize('options, message', REFUSED, ids=str)
def test_what_is_not_there_is_refused(
    segmentor: Path, options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        deploy.load(segmentor, **options)


def test_a_runtime_that_is_not_installed(
    segmentor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match='pip install openvino'):
        deploy.load(segmentor, 'openvino')


def test_files_that_are_not_there_or_from_elsewhere(
    segmentor: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match='model not found'):
        deploy.load(tmp_path / 'none.onnx')
    graph = onnx.load(str(segmentor))
    del graph.metadata_props[:]
    onnx.save(graph, str(tmp_path / 'plain.onnx'))
    with pytest.raises(ValueError, match='was not exported by'):
        deploy.load(tmp_path / 'plain.onnx')


@pytest.mark.parametrize(
    'image, message',
    [
        (np.zeros((64, 64), np.uint8), r'\(H, W, 3\) uint8'),
        (np.zeros((64, 64, 3), np.float32), 'float32'),
        (np.zeros((2, 64, 3), np.uint8), 'at least 32 pixels'),
    ],
    ids=['grey', 'float', 'small'],
)
def test_what_is_no_image(
    segmentor: Path, image: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        deploy.load(segmentor).predict(image)
