"""Pictures of a classifier's predictions, read back pixel by pixel."""

from __future__ import annotations

from typing import Any, List, Optional, Sequence

import numpy as np
import pytest
import torch
from drawn import picture
from mmengine.structures import BaseDataElement

from mmconvnext.inference import bars
from mmconvnext.inference.bars import EDGE, PLAIN, RIGHT, WIDTH, WRONG

NAMES = [f'class {i}' for i in range(8)]


def sample(scores: Sequence[float], label: Optional[int] = None) -> Any:
    made = BaseDataElement(pred_scores=torch.tensor(scores))
    if label is not None:
        made.set_field(torch.tensor(label), 'gt_label')
    return made


def texts_of(monkeypatch: pytest.MonkeyPatch, *args: Any) -> List[str]:
    """Draw, and return what was written."""
    found: List[str] = []

    def note(image: np.ndarray, lines: Sequence) -> np.ndarray:
        found.extend(line.text for line in lines)
        return image

    monkeypatch.setattr(bars, 'write', note)
    bars.panels(*args)
    return found


def lengths(panel: np.ndarray, colour: Sequence[int]) -> List[int]:
    """Return the length of each bar of a colour, top to bottom."""
    rows = (panel == colour).all(-1).sum(1)
    starts = np.flatnonzero((rows > 0) & (np.roll(rows, 1) == 0))
    return [int(rows[start]) for start in starts]


SHAPES = [
    ((100, 100), (240, 240)),
    ((10, 30), (80, 240)),
    ((1, 1), (240, 240)),
    ((300, 400), (300, 400)),
    ((3000, 4000), (480, 640)),
    ((2000, 3), (640, 1)),
]


@pytest.mark.parametrize(('given', 'shown'), SHAPES)
def test_images_of_every_size_are_legible(given: tuple, shown: tuple) -> None:
    image, panel = bars.panels(
        picture(*given), sample([0.1, 0.9]), NAMES[:2]
    ).values()
    assert image.shape[0] == panel.shape[0] >= shown[0]
    assert image.shape[1] == shown[1] and panel.shape[1] == WIDTH
    assert (image[: shown[0]] == 90).all()
    assert (image[shown[0] :] == 255).all()


def test_bars_are_the_probabilities_of_the_first_five(monkeypatch) -> None:
    scores = [0.02, 0.4, 0.03, 0.3, 0.1, 0.01, 0.09, 0.05]
    panel = bars.panels(picture(), sample(scores), NAMES)['prediction']
    whole = WIDTH - 2 * EDGE
    first = [0.4, 0.3, 0.1, 0.09, 0.05]
    assert lengths(panel, PLAIN) == [round(whole * v) for v in first]
    assert not lengths(panel, RIGHT)
    assert texts_of(monkeypatch, picture(), sample(scores), NAMES) == [
        *('class 1', '40.0 %', 'class 3', '30.0 %', 'class 4', '10.0 %'),
        *('class 6', '9.0 %', 'class 7', '5.0 %'),
    ]


def test_two_classes_have_two_rows() -> None:
    panel = bars.panels(picture(), sample([0.25, 0.75]), NAMES[:2])
    assert len(lengths(panel['prediction'], PLAIN)) == 2


VERDICTS = {
    'right': (1, ['right: class 1']),
    'among the first': (6, ['wrong, true class: class 6']),
    'not among them': (
        5,
        ['wrong, true class: class 5', 'rank 8: class 5', '1.0 %'],
    ),
}


@pytest.mark.parametrize('case', VERDICTS)
def test_the_true_class_is_marked(case: str, monkeypatch) -> None:
    label, words = VERDICTS[case]
    scores = [0.02, 0.4, 0.03, 0.3, 0.1, 0.01, 0.09, 0.05]
    given = sample(scores, label)
    panel = bars.panels(picture(), given, NAMES)['prediction']
    whole = WIDTH - 2 * EDGE
    longest = max(lengths(panel, RIGHT))
    assert longest == round(whole * scores[label])
    assert bool(lengths(panel, WRONG)) == (case != 'right')
    assert set(words) <= set(texts_of(monkeypatch, picture(), given, NAMES))


def test_a_label_alone_is_above_the_image() -> None:
    drawn = bars.labelled(picture(100, 100), 'größe')
    assert drawn.shape == (270, 240, 3)
    assert (drawn[:30] < 128).any() and (drawn[30:] == 90).all()


def test_scores_that_are_no_numbers_are_drawn_empty() -> None:
    given = sample([torch.nan] * 3)
    panel = bars.panels(picture(), given, NAMES[:3])['prediction']
    assert not lengths(panel, PLAIN)
