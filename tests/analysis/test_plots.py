"""What the plots of the analysis show."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from mmconvnext.analysis import plots
from mmconvnext.analysis.features import mosaic_of


def curve(label: str, distance: list) -> plots.Curve:
    last = len(distance) - 1
    return plots.Curve(
        label,
        [
            dict(
                layer=f'stages.0.{i}',
                depth=i / last,
                distance=value,
                distance_std=0.01,
                dead=0.2,
                saturated=0.1,
            )
            for i, value in enumerate(distance)
        ],
    )


def test_distance_plot_has_a_curve_per_model() -> None:
    curves = [curve('V1', [0.4, 0.1]), curve('V2', [0.4, 0.3, 0.4])]
    (axes,) = plots.plot_distance(curves, 'grn', 7).axes
    shown = {line.get_label(): line for line in axes.get_lines()}
    assert shown['V1'].get_ydata().tolist() == [0.4, 0.1]
    assert shown['V2'].get_xdata().tolist() == [0, 0.5, 1]
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ['V1', 'V2']
    assert '7 images' in axes.get_title() and 'GRN' in axes.get_title()
    colours = {shown[name].get_color() for name in ('V1', 'V2')}
    assert len(colours) == 2


def test_channel_plot_stacks_dead_and_saturated() -> None:
    figure = plots.plot_channels([curve('V1', [0.4, 0.1])], 'gelu', 3)
    (axes,) = figure.axes
    tops = sorted(bar.get_y() + bar.get_height() for bar in axes.patches)
    assert tops == pytest.approx([20, 20, 30, 30])
    assert [t.get_text() for t in axes.get_xticklabels()] == ['0.0', '0.1']


def test_mosaic_lays_channels_out_in_order() -> None:
    maps = torch.arange(64.0).expand(1, 3, 5, 64).clone()
    maps[..., 9] = 0
    mosaic = mosaic_of('V1', maps)
    # Channel 0 is zero too; the others are the same everywhere.
    assert mosaic.dead.nonzero()[0].tolist() == [0, 9]
    assert mosaic.saturated.sum() == 62
    canvas, centres = plots._tile(mosaic.maps)
    assert canvas.shape == (8 * 4 - 1, 8 * 6 - 1)
    assert canvas[0:3, 6:11].tolist() == [[1.0] * 5] * 3
    assert canvas[4:7, 0:5].tolist() == [[8.0] * 5] * 3
    assert np.isnan(canvas[3]).all() and np.isnan(canvas[:, 5]).all()
    assert centres[10].tolist() == [2 * 6 + 2, 1 * 4 + 1]
    image = np.zeros((8, 8, 3), np.uint8)
    figure = plots.plot_mosaics('stages.0.0', 'grn', image, [mosaic] * 2)
    assert '64 of 64 channels, 2 dead, 62 saturated' in (
        figure.axes[1].get_title()
    )


def test_mosaic_takes_evenly_spread_channels_of_a_wide_layer() -> None:
    maps = torch.arange(640.0).expand(1, 2, 2, 640)
    mosaic = mosaic_of('V2', maps)
    assert mosaic.channels == 640 and mosaic.maps.shape == (2, 2, 64)
    assert mosaic.maps[0, 0, [0, 63]].tolist() == [0, 639]


def test_nothing_is_left_half_written(tmp_path: Path) -> None:
    figure = plots.plot_distance([curve('V1', [0.4, 0.1])], 'grn', 1)
    plots.save(figure, tmp_path / 'deep/plot.png')
    assert [p.name for p in (tmp_path / 'deep').iterdir()] == ['plot.png']
    assert plt.get_fignums() == []
