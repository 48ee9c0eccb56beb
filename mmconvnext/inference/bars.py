"""An image beside the classes it was given: names, bars, percent."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import cv2
import numpy as np

from .writing import Line, write

TOP = 5  # classes shown
SMALL, LARGE = 240, 640  # limits of the longer side of the image's panel
WIDTH, EDGE, ROW, BAR, FONT = 320, 14, 42, 10, 15  # pixels
PERCENT = 66  # room of '100.0 %'
TRACK, INK = (232, 232, 232), (26, 26, 26)
# Colours that people with any colour vision tell apart (Okabe and Ito).
PLAIN, RIGHT, WRONG = (0, 114, 178), (0, 158, 115), (213, 94, 0)


class Bar(NamedTuple):
    """A row of the panel: name, probability in [0, 1], and RGB."""

    name: str
    value: float
    colour: Sequence[int]


def panels(
    image: np.ndarray, sample: Any, classes: Sequence[str]
) -> Dict[str, np.ndarray]:
    """Draw an image and its most probable classes, two panels of one height.

    Where the sample has a ``gt_label``, a line says whether the prediction
    is right, the bar of the true class is green, and that class has a row
    even if it is not among the first.

    Args:
        image: RGB, ``(H, W, 3)`` uint8; its panel is its own size within
            limits: a longer side of 240 to 640 pixels.
        sample: with ``pred_scores``, ``(len(classes),)``.
        classes: names by label.

    Returns:
        RGB pictures by caption, 'input' and 'prediction'.
    """
    scores = sample.pred_scores.detach().float().cpu().numpy()
    label = int(sample.gt_label) if 'gt_label' in sample else None
    image = fitted(image)
    panel = _panel(scores, label, classes, image.shape[0])
    below = panel.shape[0] - image.shape[0]
    image = cv2.copyMakeBorder(
        image, 0, below, 0, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255)
    )
    return {'input': image, 'prediction': panel}


def fitted(image: np.ndarray) -> np.ndarray:
    """Enlarge a tiny image, shrink a large one; the aspect stays."""
    longer = max(image.shape[:2])
    scale = min(max(longer, SMALL), LARGE) / longer
    if scale == 1:
        return image
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, size, interpolation=how)


def labelled(image: np.ndarray, name: str) -> np.ndarray:
    """Draw an image below the name of its class, as :func:`panels`."""
    image = fitted(image)
    strip = np.full((2 * FONT, image.shape[1], 3), 255, np.uint8)
    line = Line(name, EDGE, FONT, FONT, image.shape[1] - 2 * EDGE, INK)
    return np.vstack([write(strip, [line]), image])


def _panel(
    scores: np.ndarray,
    label: Optional[int],
    classes: Sequence[str],
    height: int,
) -> np.ndarray:
    rows = _rows(scores, label, classes)
    lines, y = [], EDGE
    if label is not None:
        lines.append(_verdict(int(scores.argmax()), label, classes))
        y += ROW * 3 // 4
    height = max(height, y + ROW * len(rows))
    panel = np.full((height, WIDTH, 3), 255, np.uint8)
    for row in rows:
        lines += _texts(row, y)
        _draw_bar(panel, row, y + ROW // 2)
        y += ROW
    return write(panel, lines)


def _rows(
    scores: np.ndarray, label: Optional[int], classes: Sequence[str]
) -> List[Bar]:
    """List the first classes, and after them the true one."""
    order = np.argsort(-scores, kind='stable')
    rows = []
    for rank, i in enumerate(order.tolist()):
        if rank < TOP or i == label:
            place = '' if rank < TOP else f'rank {rank + 1}: '
            colour = RIGHT if i == label else PLAIN
            rows.append(Bar(f'{place}{classes[i]}', float(scores[i]), colour))
    return rows


def _verdict(found: int, label: int, classes: Sequence[str]) -> Line:
    right = found == label
    text = f'{"right" if right else "wrong, true class"}: {classes[label]}'
    return Line(
        text,
        EDGE,
        EDGE + FONT // 2,
        FONT,
        WIDTH - 2 * EDGE,
        RIGHT if right else WRONG,
    )


def _texts(row: Bar, y: int) -> List[Line]:
    middle, room = y + FONT // 2, WIDTH - 2 * EDGE - PERCENT
    percent = f'{100 * row.value:.1f} %'
    return [
        Line(row.name, EDGE, middle, FONT, room, INK),
        Line(percent, WIDTH - EDGE, middle, FONT, PERCENT, INK, right=True),
    ]


def _draw_bar(panel: np.ndarray, row: Bar, y: int) -> None:
    left, right = EDGE, WIDTH - EDGE
    panel[y : y + BAR, left:right] = TRACK
    share = row.value if np.isfinite(row.value) else 0.0
    end = left + round((right - left) * share)
    panel[y : y + BAR, left:end] = row.colour
