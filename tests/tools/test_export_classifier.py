"""A classifier through export.py, and its file through the other tools."""

import re
from pathlib import Path
from typing import NamedTuple

import classified
import exported
import numpy as np
import pytest
import torch
from runs import succeed

exported.need_extras()

from mmconvnext import checkpoint, deploy  # noqa: E402
from mmconvnext.files import find_images, write_image  # noqa: E402

CLASSES = classified.CLASSES


class Trained(NamedTuple):
    """A config with its data, its weights and its file."""

    config: Path
    data: Path
    weights: Path
    file: Path


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp('classifier')
    data = folder / 'data'
    for place, name in enumerate(CLASSES):
        for i in range(2):
            picture = exported.image(60 + i, 90, seed=9 * place + i)
            write_image(picture, data / 'val' / name / f'{i}.png')
    cfg = classified.class_config(data)
    cfg.dump(folder / 'tiny.py')
    torch.manual_seed(0)
    model = exported.build(cfg)
    torch.nn.init.normal_(model.head.weight)
    classified.save_native(
        model, folder / 'weights.pth', dataset_meta=dict(classes=CLASSES)
    )
    files = (folder / name for name in ('tiny.py', 'weights.pth', 'm.onnx'))
    config, weights, file = files
    printed = succeed('tools/export.py', config, weights, '--out', file)
    assert 'classification, fp32' in printed and ': kept' in printed
    return Trained(config, data, weights, file)


def accuracy(work_dir: Path, *words: object) -> str:
    printed = succeed('tools/test.py', *words, '--work-dir', work_dir)
    return re.search(r'^accuracy/top1: (.*)$', printed, re.M)[1]


@pytest.mark.slow
def test_accuracy_is_that_of_the_checkpoint(
    trained: Trained, tmp_path: Path
) -> None:
    """With a config and without one, and in int8."""
    pair = [trained.config, trained.weights]
    wanted = accuracy(tmp_path, *pair)
    assert accuracy(tmp_path, trained.file) == wanted
    assert accuracy(tmp_path, trained.config, trained.file) == wanted
    out, images = tmp_path / 'int8.onnx', trained.data / 'val'
    words = [trained.file, images, '--out', out, '--metric']
    printed = succeed('tools/quantize.py', *words)
    found = re.search(r'accuracy/top1: (\S+) -> (\S+)', printed)
    assert float(found[1]) == pytest.approx(float(wanted), abs=1e-3)
    assert deploy.load(out).description.precision == 'int8'


@pytest.mark.slow
def test_predictions_need_neither_config_nor_data(
    trained: Trained, tmp_path: Path
) -> None:
    """Names come with the file: that of the folder is another one here."""
    images = tmp_path / 'images'
    for path in find_images(str(trained.data)):
        path = path.rename(trained.data / f'{path.parent.name}_{path.name}')
        (images / path.name).parent.mkdir(exist_ok=True)
        (images / path.name).write_bytes(path.read_bytes())
        path.rename(trained.data / 'val' / Path(*path.name.split('_')))
    out = tmp_path / 'out'
    gone = ['--data-root', tmp_path / 'gone']
    words = [trained.file, images, '--out', out, '--html', '--save-labels']
    succeed('tools/predict.py', *words, *gone)
    lines = (out / 'labels.txt').read_text().splitlines()
    model = deploy.load(trained.file)
    best = {
        path.name: model.predict(path).classes[0]
        for path in find_images(str(images))
    }
    assert dict(line.rsplit(maxsplit=1) for line in lines) == best
    assert len(set(best.values())) > 1
    assert (out / 'index.html').is_file()


@pytest.mark.slow
def test_a_published_classifier_leaves_without_data(
    trained: Trained, tmp_path: Path
) -> None:
    """By timm's names, its classes numbers: nothing names them."""
    raw = checkpoint.read(trained.weights)['state_dict']
    weights, file = tmp_path / 'timm.pth', tmp_path / 'm.onnx'
    torch.save(checkpoint.export(raw, 'timm'), weights)
    words = [trained.config, weights, '--out', file, '--check', trained.data]
    gone = ['--data-root', tmp_path / 'gone']
    assert ': kept' in succeed('tools/export.py', *words, *gone)
    model, own = deploy.load(file), deploy.load(trained.file)
    assert model.description.classes == ('0', '1', '2')
    assert own.description.classes == CLASSES
    image = exported.image(50, 70, seed=4)
    np.testing.assert_allclose(
        model.predict(image).scores, own.predict(image).scores, atol=1e-6
    )
