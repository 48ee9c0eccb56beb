"""Predictions as labels: label maps, COCO's JSON, or a list of classes.

What is written is read again by ``tools/new_project.py``: labels to correct
by hand, or to train on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Sequence, Union

import numpy as np
from PIL import Image

from ..files import find_images, whole_file, write_text
from .instances import Objects
from .outputs import label_map
from .pictures import PictureNames

FOLDER = 'labels'


class LabelSaver:
    """Keeps predictions as labels; :meth:`finish` writes what is left.

    Args:
        painter: decides which objects are sure enough, and gives classes
            and colours.
        score_thr: lowest score of an object.
        out: folder; label maps go to ``labels/NAME.png`` with the colours
            of the classes, objects to ``labels.json``.
    """

    def __init__(self, painter: Any, score_thr: float, out: Path) -> None:
        self.painter, self.score_thr, self.out = painter, score_thr, Path(out)
        self.meta = painter.visualizer.dataset_meta
        self.names = PictureNames()
        self.images: List[Dict] = []
        self.rows: List[Dict] = []

    def add(self, name: Path, image: np.ndarray, sample: Any) -> None:
        """Keep what was predicted for an image.

        Raises:
            ValueError: for predictions that are neither.
        """
        if 'pred_sem_seg' in sample:
            path = self.out / FOLDER / self.names.of(name)
            write_map(label_map(sample.to_dict()), self._colours(sample), path)
            return
        objects = self.painter.objects(sample, True, self.score_thr)
        if objects is None:
            raise ValueError(
                '--save-labels: the model predicts neither label maps nor '
                'objects in upright boxes'
            )
        self._add_objects(name, image, objects)

    def _colours(self, sample: Any) -> List[Sequence[int]]:
        colours = list(self.meta.get('palette') or ())
        return [(0, 0, 0)] * bool(sample.get('reduce_zero_label')) + colours

    def _add_objects(
        self, name: Path, image: np.ndarray, objects: Objects
    ) -> None:
        height, width = image.shape[:2]
        number = len(self.images) + 1
        row = dict(id=number, file_name=name.as_posix())
        self.images.append(dict(**row, width=width, height=height))
        for i in range(len(objects.boxes)):
            row = dict(id=len(self.rows) + 1, image_id=number, iscrowd=0)
            self.rows.append({**row, **coco_object(objects, i)})

    def finish(self) -> Path:
        """Write what belongs into one file; return where the labels are."""
        if not self.images:
            return self.out / FOLDER
        kinds = enumerate(self.meta['classes'], 1)
        content = dict(
            images=self.images,
            annotations=self.rows,
            categories=[dict(id=i, name=name) for i, name in kinds],
        )
        path = self.out / f'{FOLDER}.json'
        write_text(json.dumps(content, ensure_ascii=False), path)
        return path


class ListSaver:
    """Keeps predicted classes; ``labels.txt`` lists them, PATH CLASS.

    :class:`mmconvnext.ClassFolderDataset` reads it again. Classes are
    called by name, or all by number where a name has white space.

    Args:
        classes: names.
        images: file or folder that will be predicted on.
        out: folder.

    Raises:
        ValueError: for an image whose name a list cannot hold; names it.
    """

    def __init__(
        self, classes: Sequence[str], images: Union[str, Path], out: Path
    ) -> None:
        self.path = Path(out) / f'{FOLDER}.txt'
        numbers = [str(i) for i in range(len(classes))]
        named = all(len(name.split()) == 1 for name in classes)
        self.names = list(classes) if named else numbers
        # A number that is the name of another class would be taken for it.
        taken = dict(zip(classes, numbers))
        if any(taken.get(n, n) != n for n in self.names if not named):
            raise ValueError(
                f'--save-labels: some of the classes have white space in '
                f'their names, some are numbers, and a list cannot hold '
                f'both: {", ".join(map(repr, classes))}'
            )
        self.lines: List[str] = []
        root = Path(images)
        root = root.parent if root.is_file() else root
        for path in find_images(str(images)):
            self._line(path.relative_to(root), 0)

    def add(self, name: Path, image: np.ndarray, sample: Any) -> None:
        """Keep the class of an image."""
        self.lines.append(self._line(name, int(sample.pred_label)))

    def _line(self, name: Path, label: int) -> str:
        path, found = name.as_posix(), self.names[label]
        line = f'{path} {found}'
        try:
            line.encode('utf-8')
            whole = line.strip().rsplit(maxsplit=1) == [path, found]
        except UnicodeEncodeError:
            whole = False
        if not whole or len(line.splitlines()) > 1:
            raise ValueError(
                f'--save-labels: a list cannot hold the name {path!r}; '
                f'rename the image'
            )
        return line

    def finish(self) -> Path:
        """Write the list; return where it is."""
        write_text(''.join(f'{line}\n' for line in self.lines), self.path)
        return self.path


def coco_object(objects: Objects, i: int) -> Dict:
    """Describe an object as COCO does; masks as compressed run lengths."""
    x1, y1, x2, y2 = map(float, objects.boxes[i])
    row: Dict[str, Any] = dict(
        category_id=int(objects.labels[i]) + 1,
        bbox=[round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
        area=round((x2 - x1) * (y2 - y1), 2),
        score=round(float(objects.scores[i]), 4),
    )
    if objects.masks is not None:
        from pycocotools import mask

        runs = mask.encode(np.asfortranarray(objects.masks[i], np.uint8))
        runs['counts'] = runs['counts'].decode('ascii')
        row.update(segmentation=runs, area=int(objects.masks[i].sum()))
    return row


def write_map(
    labels: np.ndarray, colours: Sequence[Sequence[int]], path: Path
) -> None:
    """Write a label map as PNG, with colours where 8 bits hold it."""
    image = Image.fromarray(labels)
    if labels.dtype == np.uint8 and colours:
        image = image.convert('P')
        flat = [int(c) for colour in colours[:256] for c in colour]
        image.putpalette(flat + [0] * (768 - len(flat)))
    with whole_file(path) as part:
        image.save(part, format='PNG')
