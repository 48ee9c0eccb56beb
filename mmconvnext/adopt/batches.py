"""Synthetic batches of the kind that a model's data loader would yield.

Two images, each with two rectangles, and the labels that the model's training
pipeline loads. Masks go only where they are loaded: some heads look whether
there are any.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData, PixelData

from ..configs import bare_type, walk

SIZE = (96, 128)
# From stride 8 up SIZE has 256 positions, the other one 1,020.
MANY, SIZE_OF_MANY = 250, (192, 256)
# type anywhere in the model: the smallest image that it takes
SIZES: Dict[str, Tuple[int, int]] = {
    'SSDNeck': (320, 320),  # its last levels have no padding
    'LRASPPHead': (448, 448),  # averages windows of 49 x 49 at stride 8
    'CLRHead': (320, 800),  # the only size that its priors are for
}
PANOPTIC = ('LoadPanopticAnnotations',)
BOXES = [[8.0, 8.0, 56.0, 72.0], [40.0, 24.0, 104.0, 88.0]]
Batch = Dict[str, Any]


def image_size(model: ConfigDict) -> Tuple[int, int]:
    """Return height and width of the images for a model."""
    nodes = [node for _, node in walk(model, 'model')]
    sizes = [SIZES.get(bare_type(node), SIZE) for node in nodes]
    # Transformers choose queries among the positions of all maps.
    if any(node.get('num_queries', 0) > MANY for node in nodes):
        sizes.append(SIZE_OF_MANY)
    return max(sizes)


def loads_masks(cfg: Config) -> bool:
    """Whether the training pipeline loads masks of objects.

    Without one, whether the model has a part for masks.
    """
    loader = cfg.get('train_dataloader')
    if loader:
        return any(
            node.get('with_mask') or bare_type(node) in PANOPTIC
            for _, node in walk(loader, 'train_dataloader')
        )
    return any('mask_head' in node for _, node in walk(cfg.model, 'model'))


def kind_of(model: ConfigDict, scope: str) -> str:
    """Name the row of ``KINDS`` whose batches a model takes."""
    preprocessor = bare_type(model.get('data_preprocessor'))
    if scope == 'mmseg':
        return 'segmentation'
    if preprocessor == 'MultiBranchDataPreprocessor':
        return 'semi-supervised'
    if preprocessor == 'TrackDataPreprocessor':
        joint = model.data_preprocessor.get('use_det_processor')
        return 'frames' if joint else 'clips'
    return 'lines' if preprocessor == 'LineDetDataProcessor' else 'detection'


def training_batch(model: ConfigDict, scope: str, masks: bool) -> Batch:
    """Two images with labels, before the data preprocessor."""
    batch = KINDS[kind_of(model, scope)](model)
    if not masks:
        _drop_masks(batch['data_samples'])
    return batch


def _drop_masks(samples: Any) -> None:
    for sample in samples.values() if isinstance(samples, dict) else samples:
        if isinstance(sample, list) or 'video_data_samples' in sample:
            _drop_masks(list(sample))
        elif 'gt_instances' in sample:
            del sample.gt_instances.masks


def test_batch(model: ConfigDict, scope: str) -> Batch:
    """One image, or a clip of one, as the test loader yields it."""
    kind = kind_of(model, scope)
    if kind in ('frames', 'clips'):
        return _clips(model, count=1, frames=1)
    makers = dict(segmentation=_segmentation, lines=_lines)
    return makers.get(kind, _detection)(model, count=1)


def _images(size: Tuple[int, int], count: int) -> List[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    shape = (3, *size)
    return [
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
        for _ in range(count)
    ]


def _meta(size: Tuple[int, int], index: int) -> Dict[str, Any]:
    return dict(
        img_id=index,
        img_path=f'{index}.jpg',
        img_shape=size,
        ori_shape=size,
        pad_shape=size,
        batch_input_shape=size,
        scale_factor=(1.0, 1.0),
        flip=False,
        flip_direction=None,
        homography_matrix=np.eye(3, dtype=np.float32),
        border=np.array([0.0, size[0], 0.0, size[1]]),
    )


def _segmentation(model: ConfigDict, count: int = 2) -> Batch:
    from mmseg.structures import SegDataSample

    size = image_size(model)
    labels = torch.zeros(1, *size, dtype=torch.long)
    labels[..., size[1] // 2 :] = _num_classes(model) - 1
    edges = torch.zeros_like(labels)
    edges[..., size[1] // 2] = 1
    samples = [
        SegDataSample(
            metainfo=_meta(size, index),
            gt_sem_seg=PixelData(data=labels),
            gt_edge_map=PixelData(data=edges),
        )
        for index in range(count)
    ]
    return dict(inputs=_images(size, count), data_samples=samples)


def _num_classes(model: ConfigDict) -> int:
    """Return the smallest number of classes of any head, at most two."""
    numbers = [node.get('num_classes') for _, node in walk(model, 'model')]
    return min([n for n in numbers if isinstance(n, int) and n > 0] + [2])


def _detection(model: ConfigDict, count: int = 2) -> Batch:
    size = image_size(model)
    samples = [_detection_sample(model, size, i) for i in range(count)]
    return dict(inputs=_images(size, count), data_samples=samples)


def _detection_sample(
    model: ConfigDict, size: Tuple[int, int], index: int
) -> Any:
    from mmdet.structures import DetDataSample

    truth = _instances(size, _num_classes(model))
    sample = DetDataSample(metainfo=_meta(size, index), gt_instances=truth)
    sample.ignored_instances = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
    )
    sample.proposals = InstanceData(
        bboxes=torch.tensor(BOXES), scores=torch.ones(len(BOXES))
    )
    sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, *size).long())
    text = dict(text=('cat', 'dog'), custom_entities=True)
    sample.set_metainfo(text)
    return sample


def _instances(size: Tuple[int, int], num_classes: int) -> InstanceData:
    from mmdet.structures.mask import BitmapMasks

    masks = np.zeros((len(BOXES), *size), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, np.int64(BOXES)):
        mask[top:bottom, left:right] = 1
    return InstanceData(
        bboxes=torch.tensor(BOXES),
        labels=torch.arange(len(BOXES)) % num_classes,
        masks=BitmapMasks(masks, *size),
        instances_ids=torch.arange(len(BOXES)),
    )


def _lines(model: ConfigDict, count: int = 2) -> Batch:
    """Two upright lane markings: class, start, angle, length, positions."""
    from mmdet.structures import DetDataSample

    size = image_size(model)
    head = model.get('head') or model.bbox_head
    points = head.get('num_points', 72)
    lines = np.zeros((4, 6 + points), np.float32)
    for line, x in zip(lines, (200.0, 600.0)):
        line[:6] = 0, 1, 0, x, 0.5, points
        line[6:] = x
    lines[2:, 0] = 1  # the others are none
    samples = []
    for index in range(count):
        sample = DetDataSample(metainfo=_meta(size, index))
        sample.lines_array, sample.lines = lines, []
        sample.org_height, sample.org_width = size
        sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, *size).long())
        samples.append(sample)
    return dict(inputs=_images(size, count), data_samples=samples)


def _semi_supervised(model: ConfigDict) -> Batch:
    names = ('sup', 'unsup_teacher', 'unsup_student')
    parts = {name: _detection(model) for name in names}
    return {
        key: {name: part[key] for name, part in parts.items()}
        for key in ('inputs', 'data_samples')
    }


def _clips(model: ConfigDict, count: int = 2, frames: int = 2) -> Batch:
    from mmdet.structures import TrackDataSample

    size = image_size(model)
    samples = []
    for _ in range(count):
        clip = TrackDataSample()
        clip.video_data_samples = [
            _detection_sample(model, size, i) for i in range(frames)
        ]
        for index, frame in enumerate(clip.video_data_samples):
            frame.set_metainfo(
                dict(frame_id=index, video_id=0, video_length=frames)
            )
            frame.set_metainfo(dict(ori_video_length=frames))
        clip.set_metainfo(dict(key_frames_inds=[0]))
        clip.set_metainfo(dict(ref_frames_inds=list(range(1, frames))))
        samples.append(clip)
    inputs = [torch.stack(_images(size, frames)) for _ in range(count)]
    return dict(inputs=inputs, data_samples=samples)


# kind: what the training loader yields
KINDS: Dict[str, Callable[[ConfigDict], Batch]] = {
    'segmentation': _segmentation,
    'detection': _detection,
    'frames': _detection,  # a tracker that trains its detector on images
    'clips': _clips,
    'lines': _lines,
    'semi-supervised': _semi_supervised,
}
