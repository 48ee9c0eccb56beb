"""What a file says about itself: the metadata that a runtime needs.

One entry, :data:`KEY`, of the ONNX file's ``metadata_props`` holds it as
JSON. This module imports no library.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

KEY = 'mmconvnext'
TASKS = ('segmentation', 'detection', 'classification')


class Description(NamedTuple):
    """What is in a file, and what a program has to do around it.

    Attributes:
        task: one of :data:`TASKS`.
        classes: names, in the order of the labels.
        palette: an RGB colour for each class; empty for a classifier.
        resize: how an image is resized before it goes in, arguments of the
            config's Resize: ``scale`` (width, height) or ``scale_factor``,
            and ``keep_ratio``. Of a classifier: ``size`` (height, width) and
            ``crop_ratio``. None: not at all.
        shape: height and width that the file takes; None: any.
        window, stride: height and width of the windows of a segmentor that
            slides over the image; None: the whole image goes in.
        align_corners: how logits are resized back to the image.
        threshold: probability of a segmentor's only class, if it has one.
        mask_threshold: from which a pixel belongs to an object; None for a
            detector without masks.
        precision: fp32, fp16 or int8.
        version: of mmconvnext.
        config: name of the config.
        licence: of the weights, as far as it is known.
        test: the config's test data, evaluator and visualizer.
    """

    task: str
    classes: Tuple[str, ...]
    palette: Tuple[Tuple[int, int, int], ...]
    resize: Optional[Dict[str, Any]] = None
    shape: Optional[Tuple[int, int]] = None
    window: Optional[Tuple[int, int]] = None
    stride: Optional[Tuple[int, int]] = None
    align_corners: bool = False
    threshold: Optional[float] = None
    mask_threshold: Optional[float] = None
    precision: str = 'fp32'
    version: str = ''
    config: str = ''
    licence: str = ''
    test: Optional[Dict[str, Any]] = None

    def to_metadata(self) -> Dict[str, str]:
        return {KEY: json.dumps(self._asdict())}

    @classmethod
    def from_metadata(
        cls, entries: Mapping[str, str], file: str
    ) -> Description:
        """Read what :meth:`to_metadata` wrote.

        Raises:
            ValueError: for a file that was not exported here, or by a later
                version.
        """
        if KEY not in entries:
            raise ValueError(
                f'{file} has no entry {KEY!r} in its metadata: it was not '
                f'exported by tools/export.py'
            )
        found = json.loads(entries[KEY])
        unknown = sorted(set(found) - set(cls._fields))
        if unknown or found.get('task') not in TASKS:
            raise ValueError(
                f'{file} was exported by mmconvnext {found.get("version")}, '
                f'which this version cannot read: '
                f'{", ".join(unknown) or found.get("task")}'
            )
        found['classes'] = tuple(found['classes'])
        found['palette'] = tuple(map(tuple, found['palette']))
        return cls(**found)
