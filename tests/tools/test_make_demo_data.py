"""The demo data: both formats agree, and other folders stay untouched."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Dict, List

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
sys.path.insert(0, str(TOOLS))

import make_demo_data as demo  # noqa: E402

TRAIN, VAL = 12, 6
SPLITS = list(demo.SPLITS)


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('data') / 'demo'
    demo.make(out, TRAIN, VAL, seed=0)
    return out


def digests(root: Path) -> Dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def read_labels(root: Path, split: str) -> Dict[str, np.ndarray]:
    folder = root / 'ade20k/annotations' / demo.SPLITS[split][1]
    return {
        path.stem: cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        for path in sorted(folder.iterdir())
    }


def read_masks(root: Path, split: str) -> Dict[str, List[tuple]]:
    """Read (annotation, mask) pairs of each image with pycocotools."""
    name = f'instances_{demo.SPLITS[split][0]}.json'
    coco = COCO(str(root / 'coco/annotations' / name))
    return {
        Path(info['file_name']).stem: [
            (ann, coco.annToMask(ann)) for ann in coco.imgToAnns[image_id]
        ]
        for image_id, info in coco.imgs.items()
    }


def test_layout(root: Path) -> None:
    files = set(digests(root))
    assert files == set(demo.files_of(dict(train=TRAIN, val=VAL)))
    assert 'coco/annotations/instances_train2017.json' in files
    assert f'coco/val2017/val_{VAL:05d}.jpg' in files
    assert 'ade20k/images/training/train_00001.jpg' in files
    assert 'ade20k/annotations/validation/val_00001.png' in files


@pytest.mark.parametrize('split', SPLITS)
def test_one_image_in_both_formats(root: Path, split: str) -> None:
    coco, ade = demo.SPLITS[split]
    name = f'instances_{coco}.json'
    content = json.loads((root / 'coco/annotations' / name).read_text())
    labels = read_labels(root, split)
    for info in content['images']:
        first = root / 'coco' / coco / info['file_name']
        second = root / 'ade20k/images' / ade / info['file_name']
        assert first.read_bytes() == second.read_bytes()
        shape = (info['height'], info['width'])
        assert cv2.imread(str(first)).shape == (*shape, 3)
        assert labels[first.stem].shape == shape


@pytest.mark.parametrize('split', SPLITS)
def test_instances_are_the_label_map(root: Path, split: str) -> None:
    labels = read_labels(root, split)
    masks = read_masks(root, split)
    assert list(masks) == list(labels)
    for stem, label in labels.items():
        drawn = np.zeros_like(label)
        times = np.zeros_like(label)
        for ann, mask in masks[stem]:
            name = demo.OBJECT_CLASSES[ann['category_id'] - 1]
            drawn[mask == 1] = demo.CLASSES.index(name) + 1
            times += mask
        assert times.max(initial=0) <= 1, f'{stem}: instances overlap'
        objects = np.where(label > len(demo.GROUND_CLASSES), label, 0)
        np.testing.assert_array_equal(drawn, objects, err_msg=stem)


@pytest.mark.parametrize('split', SPLITS)
def test_boxes_and_areas_are_those_of_the_masks(
    root: Path, split: str
) -> None:
    pairs = [
        pair for scene in read_masks(root, split).values() for pair in scene
    ]
    assert len({ann['id'] for ann, _ in pairs}) == len(pairs)
    for ann, mask in pairs:
        encoded = mask_api.encode(np.asfortranarray(mask))
        assert ann['bbox'] == mask_api.toBbox(encoded).tolist()
        assert ann['area'] == mask_api.area(encoded) >= demo.MIN_AREA
        assert ann['iscrowd'] == 0 < ann['id']


def test_label_values(root: Path) -> None:
    labels = {**read_labels(root, 'train'), **read_labels(root, 'val')}
    counts = np.zeros(256, int)
    for stem, label in labels.items():
        assert label.dtype == np.uint8 and label.ndim == 2
        assert 0 < np.mean(label == 0) < 0.15, f'{stem}: unlabelled share'
        counts += np.bincount(label.ravel(), minlength=256)
    assert counts[1 : len(demo.CLASSES) + 1].all(), 'a class never occurs'
    assert not counts[len(demo.CLASSES) + 1 :].any()


def test_objects_hide_and_cut_each_other(root: Path) -> None:
    # The hard cases for instance formats: several parts, and holes.
    parts, holes = 0, 0
    for scene in read_masks(root, 'train').values():
        for _, mask in scene:
            parts += cv2.connectedComponents(mask)[0] - 1 > 1
            holes += cv2.connectedComponents(1 - mask)[0] - 1 > 1
    assert parts and holes


def test_images_are_exposed(root: Path) -> None:
    for path in (root / 'coco').rglob('*.jpg'):
        image = cv2.imread(str(path))
        assert 50 < image.mean() < 190 and image.std() > 20, path.name


def test_palette_separates_classes() -> None:
    assert len(set(demo.PALETTE)) == len(demo.CLASSES) == len(demo.PALETTE)
    assert (0, 0, 0) not in demo.PALETTE


@pytest.mark.parametrize(
    ('name', 'first'), [('seg', 0), ('det', len(demo.GROUND_CLASSES))]
)
def test_configs_have_these_classes(name: str, first: int) -> None:
    bases = TOOLS.parent / 'configs/_base_'
    metainfo = Config.fromfile(bases / f'demo_{name}.py').metainfo
    assert metainfo.classes == demo.CLASSES[first:]
    assert tuple(metainfo.palette) == demo.PALETTE[first:]


def test_same_arguments_same_bytes(root: Path, tmp_path: Path) -> None:
    demo.make(tmp_path / 'again', TRAIN, VAL, seed=0)
    assert digests(tmp_path / 'again') == digests(root)


def test_another_seed_other_scenes(root: Path, tmp_path: Path) -> None:
    demo.make(tmp_path / 'other', 2, 1, seed=1)
    first, second = digests(root), digests(tmp_path / 'other')
    for name in ('train_00001', 'train_00002', 'val_00001'):
        paths = [p for p in second if name in p]
        assert len(paths) == 3
        assert all(first[path] != second[path] for path in paths)


def test_more_scenes_keep_the_first(root: Path, tmp_path: Path) -> None:
    demo.make(tmp_path / 'fewer', 3, 2, seed=0)
    fewer, more = digests(tmp_path / 'fewer'), digests(root)
    pictures = [path for path in fewer if path.endswith(('jpg', 'png'))]
    assert len(pictures) == 15
    assert all(fewer[path] == more[path] for path in pictures)
    assert fewer['coco/train2017/train_00001.jpg'] not in {
        fewer['coco/train2017/train_00002.jpg'],
        fewer['coco/val2017/val_00001.jpg'],
    }


def test_reuses_what_exists(tmp_path: Path) -> None:
    out = tmp_path / 'demo'
    assert demo.make(out, 2, 1)
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    assert not demo.make(out, 2, 1)
    after = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    assert after == before


@pytest.mark.parametrize(
    'change', [dict(train=3), dict(val=2), dict(seed=4)], ids=str
)
def test_redraws_for_other_arguments(tmp_path: Path, change: dict) -> None:
    out = tmp_path / 'demo'
    demo.make(out, **dict(train=2, val=1, seed=0))
    wanted = {**dict(train=2, val=1, seed=0), **change}
    assert demo.make(out, **wanted)
    assert set(digests(out)) == set(demo.files_of(wanted))
    assert not demo.make(out, **wanted)


@pytest.mark.parametrize('name', sorted(demo.files_of(dict(train=1, val=1))))
def test_redraws_what_is_incomplete(tmp_path: Path, name: str) -> None:
    out = tmp_path / 'demo'
    demo.make(out, 1, 1)
    whole = digests(out)
    (out / name).unlink()
    if name == demo.STAMP:
        with pytest.raises(FileExistsError, match=demo.STAMP):
            demo.make(out, 1, 1)
    else:
        assert demo.make(out, 1, 1)
        assert digests(out) == whole


def test_another_version_is_redrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo.make(tmp_path / 'demo', 1, 1)
    monkeypatch.setattr(demo, 'VERSION', demo.VERSION + 1)
    assert demo.make(tmp_path / 'demo', 1, 1)


FOREIGN = {
    'no stamp': ('notes.txt', 'mine'),
    'broken stamp': (demo.STAMP, '{'),
    'other stamp': (demo.STAMP, '["mine"]'),
}


@pytest.mark.parametrize('case', FOREIGN)
def test_refuses_a_foreign_folder(tmp_path: Path, case: str) -> None:
    name, text = FOREIGN[case]
    (tmp_path / name).write_text(text)
    with pytest.raises(FileExistsError, match='is no demo data'):
        demo.make(tmp_path, 1, 1)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == text


def test_refuses_a_folder_with_foreign_files(tmp_path: Path) -> None:
    out = tmp_path / 'demo'
    demo.make(out, 1, 1)
    (out / 'coco/notes.txt').write_text('mine')
    before = digests(out)
    with pytest.raises(FileExistsError, match='coco/notes.txt'):
        demo.make(out, 2, 1)
    assert digests(out) == before


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / 'demo').write_text('mine')
    with pytest.raises(FileExistsError, match='is no demo data'):
        demo.make(tmp_path / 'demo', 1, 1)
    assert (tmp_path / 'demo').read_text() == 'mine'


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    assert demo.make(tmp_path, 1, 1)
    assert (tmp_path / demo.STAMP).is_file()


def test_a_failure_leaves_the_old_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / 'demo'
    demo.make(out, 1, 1)
    before = digests(tmp_path)

    def fail(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, 'write_instances', fail)
    with pytest.raises(KeyboardInterrupt):
        demo.make(out, 2, 1)
    assert digests(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ['demo']


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ['--out', str(tmp_path / 'a/demo'), '--train=1', '--val=1']
    assert demo.main(arguments) == tmp_path / 'a/demo'
    assert '1 train, 1 val scenes drawn' in capsys.readouterr().out
    demo.main(arguments)
    assert 'nothing to do' in capsys.readouterr().out


@pytest.mark.parametrize(
    'argument', ['--train=0', '--val=-1', '--seed=-1'], ids=str
)
def test_bad_arguments_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture, argument: str
) -> None:
    with pytest.raises(SystemExit):
        demo.main(['--out', str(tmp_path / 'demo'), argument])
    name, value = argument[2:].split('=')
    message = capsys.readouterr().err
    assert f'{name} must be at least' in message and value in message
    assert not (tmp_path / 'demo').exists()


def test_size_of_the_default_set(root: Path) -> None:
    files = [path for path in root.rglob('*') if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    # The default has 200 scenes.
    assert size / (TRAIN + VAL) * 200 < 8e6
