"""Curves of loss and metrics, from what a run has logged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Tuple

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..files import whole_file

# Okabe and Ito: distinct for every kind of colour vision.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
MOST = 6  # curves in a panel

Points = Dict[int, float]


class CurvesHook(Hook):
    """Draw the curves of a run when it ends.

    Args:
        name: of the file in the work dir.
    """

    # After what logs the last metrics, before what names the file.
    priority = 'VERY_LOW'

    def __init__(self, name: str = 'curves.png') -> None:
        self.name = name

    @master_only
    def after_train(self, runner: Runner) -> None:
        draw(runner.work_dir, str(Path(runner.work_dir, self.name)))


def read_scalars(work_dir: str) -> List[Dict[str, Any]]:
    """Read the rows that the runs in a work dir have logged.

    A run that was resumed writes into a folder of its own; its rows come
    after the earlier ones. A row that a killed run left unfinished is
    skipped.
    """
    rows = []
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in file.read_text(encoding='utf-8').splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
    return rows


def losses_of(rows: List[Dict[str, Any]]) -> Dict[str, Points]:
    """Return losses by name and iteration; later rows replace earlier."""
    found: Dict[str, Points] = {}
    for row in rows:
        if 'loss' not in row:
            continue
        step = row.get('iter', row['step'])
        for name, value in row.items():
            if 'loss' in name and isinstance(value, (int, float)):
                found.setdefault(name, {})[step] = value
    return found


def metrics_of(rows: List[Dict[str, Any]]) -> Dict[str, Points]:
    """Return validation's metrics by name and step, iteration or epoch."""
    found: Dict[str, Points] = {}
    for row in rows:
        if 'loss' in row or 'lr' in row:
            continue
        for name, value in row.items():
            if name in ('step', 'iter', 'epoch') or name.endswith('time'):
                continue
            if isinstance(value, (int, float)) and value != -1:
                found.setdefault(name, {})[row['step']] = value
    return found


def draw(work_dir: str, path: str) -> bool:
    """Draw loss and metrics of the runs in a work dir as a PNG file.

    Returns:
        Whether there was anything to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_scalars(work_dir)
    losses, metrics = losses_of(rows), metrics_of(rows)
    panels: List[Tuple[str, Dict[str, Points]]] = [
        (name, curves)
        for name, curves in (('loss', losses), ('metrics', metrics))
        if curves
    ]
    if not panels:
        return False
    figure = Figure(figsize=(9, 3.2 * len(panels)), layout='constrained')
    for place, (name, curves) in enumerate(panels, 1):
        axes = figure.add_subplot(len(panels), 1, place)
        _draw_panel(axes, name, curves)
    with whole_file(path) as part:
        FigureCanvasAgg(figure).print_png(part)
    return True


def _draw_panel(axes: Any, name: str, curves: Dict[str, Points]) -> None:
    # The means of a kind, as bbox_mAP, before its parts, as bbox_mAP_50.
    names = sorted(curves, key=lambda n: 'mAP_' in n or 'AR' in n)[:MOST]
    for index, label in enumerate(names):
        points = curves[label]
        steps = sorted(points)
        values = [points[step] for step in steps]
        axes.plot(
            steps,
            values,
            label=f'{label}, last {values[-1]:.3g}',
            color=COLOURS[index],
            marker='o' if len(steps) < 30 else '',
            markersize=3,
        )
    axes.set(title=name, xlabel='iteration' if name == 'loss' else 'step')
    axes.grid(alpha=0.3)
    # Beside the curves, not on them.
    axes.legend(fontsize=8, loc='upper left', bbox_to_anchor=(1.01, 1))
