"""What scorers of every host share: the score, and the config's test data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

from mmengine.config import Config
from mmengine.registry import DATASETS

from ..configs import leaves


class Score(NamedTuple):
    """Percentages by column, as IoU; NaN where a column has no meaning.

    ``means`` are over classes, ``classes`` has each class; ``overall`` are
    of all images without regard to classes, as top-1, and ``words`` say
    what an image is and is taken for. An image's columns may be others than
    those of the total.
    """

    means: Mapping[str, float]
    classes: Mapping[str, Mapping[str, float]]
    overall: Mapping[str, float] = {}
    words: Mapping[str, str] = {}


class Scorer:
    """What a page asks of the labels.

    Attributes:
        classes: names, in their order.
        colours: RGB by class; empty where classes are not drawn in colour.
        rule: what an image's score is.
        absent: what a dash in the table of classes means.
    """

    classes: List[str]
    colours: Dict[str, Sequence[int]]
    rule = ''
    absent = 'the class is in no label here'

    def details(self) -> str:
        """Return HTML for the page, below the table of classes."""
        return ''


def test_data(cfg: Config, **options: Any) -> Any:
    """Build the config's test data without its pipeline.

    Raises:
        ValueError: for several data sets: whose labels would be meant?
    """
    found = list(leaves(cfg.test_dataloader.dataset))
    if len(found) > 1:
        raise ValueError(
            f'--labels: the config tests on {len(found)} data sets at once; '
            f'give one by --cfg-options test_dataloader.dataset=...'
        )
    pipeline: List[Dict] = []
    return DATASETS.build({**found[0], 'pipeline': pipeline, **options})


def check_exists(path: Path) -> None:
    """Raise FileNotFoundError where there are no labels."""
    if not path.exists():
        raise FileNotFoundError(f'labels not found: {path}')
