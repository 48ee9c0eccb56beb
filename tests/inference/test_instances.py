"""Which objects are drawn, and that they can be read."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from mmconvnext.inference import instances
from mmconvnext.inference.instances import Objects, legible

BOX = [10.0, 10.0, 30.0, 30.0]


def objects(boxes: list, scores: list, labels: list = (), masks=None):
    return Objects(
        np.array(boxes, float).reshape(-1, 4),
        np.array(labels or [0] * len(boxes), int),
        np.array(scores, float),
        masks,
    )


@pytest.mark.parametrize(
    'boxes, scores, labels, kept',
    [
        ([], [], [], []),
        ([BOX, [40, 10, 60, 30]], [0.6, 0.9], [], [0.9, 0.6]),
        # the same object twice, also as another class: the surer one stays
        ([BOX, [11, 10, 31, 30]], [0.6, 0.9], [], [0.9]),
        ([BOX, [11, 10, 31, 30]], [0.9, 0.6], [0, 1], [0.9]),
        # a part is no second object of the class, but may be of another,
        # and what is around it is one
        ([BOX, [10, 10, 15, 15]], [0.9, 0.6], [], [0.9]),
        ([BOX, [10, 10, 15, 15]], [0.9, 0.6], [0, 1], [0.9, 0.6]),
        ([[10, 10, 15, 15], BOX], [0.9, 0.6], [], [0.9, 0.6]),
        # what is dropped drops nothing: the third meets only the second
        (
            [BOX, [16, 10, 36, 30], [22, 10, 42, 30]],
            [0.9, 0.8, 0.7],
            [],
            [0.9, 0.7],
        ),
        ([BOX], [0.49], [], []),
    ],
)
def test_the_surer_of_two_is_drawn(boxes, scores, labels, kept) -> None:
    found = legible(objects(boxes, scores, labels), 0.5)
    assert found.scores.tolist() == kept


def test_masks_that_cross_both_stay() -> None:
    masks = np.zeros((2, 40, 40), bool)
    masks[0, 18:22, 10:30] = masks[1, 10:30, 18:22] = True
    crossing = objects([BOX, BOX], [0.9, 0.8], masks=masks)
    assert len(legible(crossing, 0.5).boxes) == 2
    assert len(legible(crossing._replace(masks=None), 0.5).boxes) == 1


def test_a_part_of_another_class_is_seen_by_its_mask() -> None:
    masks = np.zeros((2, 40, 40), bool)
    masks[0, 10:30, 10:30] = masks[1, 10:30, 10:19] = True
    boxes = [BOX, [10, 10, 22, 30]]
    for labels, kept in (([0, 1], 2), ([0, 0], 1)):
        made = objects(boxes, [0.9, 0.8], labels, masks)
        assert len(legible(made, 0.5).boxes) == kept


def test_truth_is_drawn_whole() -> None:
    truth = objects([BOX, BOX], [0, 0])._replace(scores=None)
    assert legible(truth, 0.5) is truth


@pytest.mark.parametrize('masked', [True, False])
def test_drawing_shows_each_object_and_its_name(masked: bool) -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    masks = np.zeros((2, 60, 80), bool)
    masks[0, 20:40, 10:30] = masks[1, 20:40, 50:70] = True
    made = objects(
        [[10, 20, 30, 40], [50, 20, 70, 40]],
        [0.9, 0.8],
        [0, 1],
        masks if masked else None,
    )
    palette = [(255, 0, 0), (0, 0, 255)]
    drawn = instances.draw_objects(image, made, ['a', 'b'], palette)
    assert not image.any()
    for x, channel in ((10, 0), (50, 2)):
        assert drawn[30, x, channel] > 200, 'the outline'
        assert (drawn[30, x + 10, channel] > 90) == masked, 'the inside'
        # the name's ground, above the object
        assert (drawn[7:20, x : x + 20, channel] == 255).sum() > 40
    many = objects([[10, 20, 30, 40]] * 30, [0.5] * 30)
    plain = instances.draw_objects(image, many, ['a'], palette)
    assert not plain[:20].any(), 'too many objects to name'


def chips(image: np.ndarray, colour: tuple) -> np.ndarray:
    """Where the ground of a name is: whole rows of a colour."""
    return (image == colour).all(-1)


def test_a_name_hides_no_other_object() -> None:
    """Above the lower object is another, so its name goes elsewhere."""
    image = np.zeros((100, 60, 3), np.uint8)
    boxes = [[5, 50, 45, 80], [5, 20, 45, 48]]
    masks = np.zeros((2, 100, 60), bool)
    made = objects(boxes, [0.9, 0.8], [0, 1], masks)
    colours = [(250, 0, 0), (0, 0, 250)]
    drawn = instances.draw_objects(image, made, ['a', 'b'], colours)
    assert not chips(drawn, colours[0])[20:48].any()
    assert chips(drawn, colours[0])[48:].any()


def test_one_class_needs_no_name() -> None:
    image = np.zeros((60, 200, 3), np.uint8)
    made = objects(
        [[5, 30, 25, 50]], [0.9], masks=np.zeros((1, 60, 200), bool)
    )
    widths = []
    for classes in (['nucleus'], ['nucleus', 'other']):
        colours = [(250, 0, 0)] * 2
        drawn = instances.draw_objects(image, made, classes, colours)
        widths.append(chips(drawn, colours[0]).any(0).sum())
    assert 0 < widths[0] < widths[1]


def test_a_name_may_be_in_any_script() -> None:
    """What a font lacks would be the same sign for every letter.

    The two have the same letters, and so grounds of the same width.
    """
    image = np.zeros((60, 200, 3), np.uint8)
    made = objects([[5, 30, 125, 50]], [0.9])
    colour = (9, 9, 250)
    first, second = (
        instances.draw_objects(image, made, [name, ''], [colour] * 2)
        for name in ('сон', 'нос')
    )
    ends = [
        np.flatnonzero(chips(x, colour).any(0))[-1] for x in (first, second)
    ]
    assert ends[0] == ends[1]
    assert (first != second).any()


def test_names_stay_inside_and_apart() -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    boxes = [[-5, -5, 60, 60], [0, 0, 50, 50], [30, 0, 49, 10]]
    made = objects(boxes, [0.9, 0.8, 0.7], [0, 1, 2])
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    drawn = instances.draw_objects(
        image, made, ['name', 'other', 'third'], colours
    )
    assert drawn.shape == image.shape


def test_hosts_instances_are_taken() -> None:
    given = InstanceData(
        bboxes=torch.tensor([BOX]),
        labels=torch.tensor([2]),
        scores=torch.tensor([0.5]),
        masks=torch.ones(1, 4, 4, dtype=torch.bool),
    )
    found = instances.objects_of(given)
    assert found.boxes.tolist() == [BOX] and found.labels.tolist() == [2]
    assert found.masks.dtype == bool and found.scores.tolist() == [0.5]
    rotated = InstanceData(bboxes=torch.zeros(1, 5), labels=torch.zeros(1))
    assert instances.objects_of(rotated) is None
