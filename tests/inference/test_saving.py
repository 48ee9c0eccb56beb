"""Predictions as labels, read again by what reads labels."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from PIL import Image
from pycocotools.coco import COCO

from mmconvnext import ClassFolderDataset
from mmconvnext.files import write_image
from mmconvnext.inference.pictures import Painter
from mmconvnext.inference.saving import LabelSaver, ListSaver

META = dict(classes=('a', 'b'), palette=[(10, 20, 30), (40, 50, 60)])
IMAGE = np.zeros((20, 30, 3), np.uint8)


def painter() -> Painter:
    made = Painter.__new__(Painter)
    made.visualizer = SimpleNamespace(dataset_meta=META)
    return made


def detected() -> BaseDataElement:
    masks = torch.zeros(3, 20, 30, dtype=torch.bool)
    masks[0, 2:8, 4:10] = masks[1, 10:20, 15:30] = True
    boxes = [[4, 2, 10, 8], [15, 10, 30, 20], [0, 0, 3, 3.0]]
    sample = BaseDataElement()
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(boxes),
        labels=torch.tensor([1, 0, 0]),
        scores=torch.tensor([0.9, 0.8, 0.1]),
        masks=masks,
    )
    return sample


def test_objects_become_a_coco_file(tmp_path: Path) -> None:
    saver = LabelSaver(painter(), 0.5, tmp_path)
    saver.add(Path('x/ä 1.jpg'), IMAGE, detected())
    path = saver.finish()
    coco = COCO(str(path))
    (image,) = coco.imgs.values()
    assert image['file_name'] == 'x/ä 1.jpg'
    assert (image['width'], image['height']) == (30, 20)
    assert [c['name'] for c in coco.cats.values()] == ['a', 'b']
    first, second = coco.anns.values()  # the third is not sure enough
    assert first['bbox'] == [4, 2, 6, 6] and first['category_id'] == 2
    assert first['area'] == 36 and first['score'] == pytest.approx(0.9)
    mask = coco.annToMask(second).astype(bool)
    assert mask[10:20, 15:30].all() and mask.sum() == 150


@pytest.mark.parametrize('zero', [False, True])
def test_label_maps_have_the_numbers_of_the_labels(
    zero: bool, tmp_path: Path
) -> None:
    data = torch.zeros(1, 20, 30, dtype=torch.long)
    data[0, :5] = 1
    sample = BaseDataElement(metainfo=dict(reduce_zero_label=zero))
    sample.pred_sem_seg = PixelData(data=data)
    saver = LabelSaver(painter(), 0.5, tmp_path)
    saver.add(Path('x/1.jpg'), IMAGE, sample)
    assert saver.finish() == tmp_path / 'labels'
    with Image.open(tmp_path / 'labels/x/1.png') as image:
        assert image.mode == 'P'
        found = np.asarray(image)
        colour = image.convert('RGB').getpixel((0, 0))
    assert (found == data[0].numpy() + zero).all()
    assert colour == (40, 50, 60)


def test_other_predictions_are_refused(tmp_path: Path) -> None:
    sample = BaseDataElement()
    sample.pred_instances = InstanceData(
        bboxes=torch.zeros(1, 5), labels=torch.zeros(1)
    )
    saver = LabelSaver(painter(), 0.5, tmp_path)
    with pytest.raises(ValueError, match='--save-labels'):
        saver.add(Path('1.jpg'), IMAGE, sample)


def test_what_is_saved_is_a_folder_for_a_new_project(tmp_path: Path) -> None:
    """The JSON lies beside the images, as people put it."""
    from mmconvnext.data.formats import read
    from mmconvnext.data.labels import Folder, Wishes

    write_image(IMAGE, tmp_path / '1.jpg')
    saver = LabelSaver(painter(), 0.5, tmp_path)
    saver.add(Path('1.jpg'), IMAGE, detected())
    saved = json.loads(saver.finish().read_text(encoding='utf-8'))
    labels = read(Folder(str(tmp_path)), '', Wishes())
    assert labels.format == 'COCO JSON'
    (picture,) = labels.pictures
    assert len(picture.items) == len(saved['annotations']) == 2


NAMES = {
    'names': (('ant', 'größe', 'cow'), 'größe'),
    'numbers': (('2', '0', '1'), '0'),
    'a name with white space': (('ant', 'tiny bee', 'cow'), '1'),
    'and a number that is its own': (('0', 'tiny bee', 'cow'), '1'),
}


@pytest.mark.parametrize('case', NAMES)
def test_classes_become_a_list_that_is_read_again(
    case: str, tmp_path: Path
) -> None:
    classes, word = NAMES[case]
    for name in ('ü 1.jpg', 'x/2.jpg'):
        write_image(IMAGE, tmp_path / 'in' / name)
    saver = ListSaver(classes, tmp_path / 'in', tmp_path / 'out')
    saver.add(Path('ü 1.jpg'), IMAGE, classified(1))
    saver.add(Path('x/2.jpg'), IMAGE, classified(2))
    path = saver.finish()
    assert path == tmp_path / 'out/labels.txt'
    text = path.read_text(encoding='utf-8')
    assert text.splitlines()[0] == f'ü 1.jpg {word}'
    dataset = ClassFolderDataset(
        ann_file=str(path),
        data_prefix=dict(img_path=str(tmp_path / 'in')),
        metainfo=dict(classes=classes),
        pipeline=[],
    )
    rows = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [row['gt_label'] for row in rows] == [1, 2]
    assert all(Path(row['img_path']).is_file() for row in rows)


def classified(label: int) -> BaseDataElement:
    return BaseDataElement(pred_label=torch.tensor(label))


@pytest.mark.parametrize('name', [' 1.jpg', 'a\n1.jpg', 'a\u2028.jpg'])
def test_names_that_a_list_cannot_hold_are_refused(
    name: str, tmp_path: Path
) -> None:
    write_image(IMAGE, tmp_path / name)
    with pytest.raises(ValueError, match='a list cannot hold the name'):
        ListSaver(('a', 'b'), tmp_path, tmp_path / 'out')


def test_numbers_that_are_names_of_others_are_refused(tmp_path: Path) -> None:
    write_image(IMAGE, tmp_path / '1.jpg')
    with pytest.raises(ValueError, match="'1', 'a b'"):
        ListSaver(('1', 'a b'), tmp_path, tmp_path / 'out')
