"""Small labelled folders that tests draw, and configs that read them."""

import json
from pathlib import Path
from typing import Any, Dict, List, Sequence

import cv2
import numpy as np
from mmengine.config import Config

SIZE = (48, 64)  # height, width
SPLITS = {'train': 'training', 'val': 'validation'}
CLASSES = ('ground', 'block')


def image(seed: int, size: Sequence[int] = SIZE) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3))
    return noise.astype(np.uint8)


def label(*values: int, size: Sequence[int] = SIZE) -> np.ndarray:
    """Draw bands of the values, left to right."""
    columns = np.arange(size[1]) * len(values) // size[1]
    row = np.array(values)[columns]
    row = row.astype(np.uint16 if max(values) > 255 else np.uint8)
    return np.tile(row, (size[0], 1))


def write(path: Path, picture: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix.lower(), picture)
    assert done
    path.write_bytes(data.tobytes())
    return path


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding='utf-8')
    return path


def draw_maps(root: Path, *values: int, count: int = 3) -> Path:
    """Write ADE20K's layout: images and label maps, two splits."""
    for split in SPLITS.values():
        for i in range(count):
            write(root / 'images' / split / f'{i}.jpg', image(i))
            write(root / 'annotations' / split / f'{i}.png', label(*values))
    return root


def seg_config(root: Path, **dataset: Any) -> Config:
    """Make a config of MMSegmentation for :func:`draw_maps`."""
    classes = dataset.pop('classes', CLASSES)
    steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    loaders = {
        f'{split}_dataloader': dict(
            dataset=dict(
                type='BaseSegDataset',
                data_root=str(root),
                data_prefix=dict(
                    img_path=f'images/{folder}',
                    seg_map_path=f'annotations/{folder}',
                ),
                metainfo=dict(classes=classes),
                pipeline=steps,
                **dataset,
            )
        )
        for split, folder in SPLITS.items()
    }
    head = dict(
        type='UPerHead',
        num_classes=len(classes),
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False),
    )
    return Config(
        dict(
            default_scope='mmseg',
            model=dict(type='EncoderDecoder', decode_head=head),
            **loaders,
        )
    )


def boxed(number: int, image_id: int, category: int) -> Dict:
    """Describe a block of 16 x 12 pixels as COCO does."""
    x, y = 4 * number, 6
    corners = [x, y, x + 16, y, x + 16, y + 12, x, y + 12]
    return dict(
        id=number,
        image_id=image_id,
        category_id=category,
        bbox=[x, y, 16, 12],
        area=192,
        iscrowd=0,
        segmentation=[corners],
    )


def coco(count: int = 3, classes: Sequence[str] = CLASSES) -> Dict[str, List]:
    """Make the content of a COCO file: an object of each class an image."""
    height, width = SIZE
    images = [
        dict(id=i, file_name=f'{i}.jpg', height=height, width=width)
        for i in range(count)
    ]
    numbers = range(1, count * len(classes) + 1)
    return dict(
        images=images,
        annotations=[
            boxed(
                number,
                (number - 1) // len(classes),
                (number - 1) % len(classes) + 1,
            )
            for number in numbers
        ],
        categories=[
            dict(id=i, name=name) for i, name in enumerate(classes, 1)
        ],
    )


def draw_coco(root: Path, content: Dict[str, List]) -> Path:
    """Write COCO's layout: the same content in both splits."""
    for split in SPLITS:
        for row in content['images']:
            name = row.get('file_name') or 'unnamed.jpg'
            write(root / f'{split}2017' / name, image(row['id']))
        write_json(root / f'annotations/instances_{split}2017.json', content)
    return root


def det_config(root: Path, **dataset: Any) -> Config:
    """Make a config of MMDetection for :func:`draw_coco`."""
    classes = dataset.pop('classes', CLASSES)
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    ]
    loaders = {}
    for split in SPLITS:
        file = f'annotations/instances_{split}2017.json'
        loaders[f'{split}_dataloader'] = dict(
            dataset=dict(
                type='CocoDataset',
                data_root=str(root),
                ann_file=file,
                data_prefix=dict(img=f'{split}2017'),
                metainfo=dict(classes=classes),
                pipeline=steps,
                **dataset,
            )
        )
    heads = dict(
        bbox_head=dict(type='Shared2FCBBoxHead', num_classes=len(classes)),
        mask_head=dict(type='FCNMaskHead', num_classes=len(classes)),
    )
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(type='MaskRCNN', roi_head=heads),
            val_evaluator=dict(
                type='CocoMetric',
                ann_file=f'{root}/annotations/instances_val2017.json',
            ),
            **loaders,
        )
    )
