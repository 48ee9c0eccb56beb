"""Judge the masks of a COCO file: polygons and run lengths."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Optional, Tuple

from .coco_rows import MANY, Coco, are_numbers
from .findings import Finding, some

NO_MASK = 'no segmentation'


def judge_masks(coco: Coco) -> Iterator[Finding]:
    """Find objects without a mask where masks are read."""
    if not coco.masks:
        return
    sizes = {
        row['id']: [row['height'], row['width']]
        for row in coco.content['images']
    }
    kinds: Dict[Tuple[str, str], List] = {}
    for row in coco.content['annotations']:
        kind = mask_fault(row.get('segmentation'), sizes.get(row['image_id']))
        if kind:
            kinds.setdefault(kind, []).append(row['id'])
    rows = len(coco.content['annotations'])
    for (severity, words), ids in kinds.items():
        missing = words == NO_MASK
        yield coco.finding(
            'error' if len(ids) > MANY * rows else severity,
            f'{words} in {len(ids)} of {rows} annotations: {some(ids)}',
            'polygons [[x1, y1, x2, y2, x3, y3, ...], ...] in pixels, or run '
            'lengths of the size of the image',
            'boxes only: with_mask=False in LoadAnnotations, no mask_head, '
            "metric='bbox'; python tools/new_project.py --task boxes"
            if missing
            else 'write these masks again: such objects stop training, or are ignored',
        )


def mask_fault(mask: Any, size: Optional[List]) -> Optional[Tuple[str, str]]:
    """Return severity and words for a mask that hosts cannot use.

    Args:
        mask: an annotation's segmentation.
        size: height and width of its image, None where there is no image.
    """
    if not mask:
        return 'error', NO_MASK
    if isinstance(mask, list):
        return _polygon_fault(mask, size)
    if isinstance(mask, dict) and mask.get('counts'):
        return _runs_fault(mask, size)
    return 'error', 'a segmentation that is neither'


def _polygon_fault(
    mask: List, size: Optional[List]
) -> Optional[Tuple[str, str]]:
    if not all(map(are_numbers, mask)):
        return 'error', 'polygons that are no lists of finite numbers'
    whole = [p for p in mask if len(p) % 2 == 0 and len(p) >= 6]
    if not whole:
        return 'warning', 'polygons of too few points'
    if size and all(_is_outside(polygon, *size) for polygon in whole):
        return 'warning', 'polygons outside of their image'
    return None


def _is_outside(polygon: List[float], height: float, width: float) -> bool:
    xs, ys = polygon[::2], polygon[1::2]
    beyond = min(xs) >= width or min(ys) >= height
    return beyond or max(xs) <= 0 or max(ys) <= 0


def _runs_fault(mask: Dict, size: Optional[List]) -> Optional[Tuple[str, str]]:
    if size and mask.get('size') != size:
        return 'error', f'run lengths of {mask.get("size")}, image {size}'
    if size and _sum_of_runs(mask['counts']) != size[0] * size[1]:
        return 'error', f'run lengths that do not add up to {size}'
    return None


def _sum_of_runs(counts: Any) -> Optional[float]:
    """Add up run lengths, given as a list or in COCO's compressed text.

    The text has 5 bits a character, the lowest first; bit 6 says that more
    follow, and the last one's bit 5 is the sign. From the fourth run on, a
    number is the difference to the run two before.

    Returns:
        The number of pixels; None where the counts are no run lengths.
    """
    if isinstance(counts, list):
        return sum(counts) if are_numbers(counts) else None
    runs: List[int] = []
    value = shift = 0
    for character in counts if isinstance(counts, str) else ():
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return sum(runs) if runs and not shift and min(runs) >= 0 else None
