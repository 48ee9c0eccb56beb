"""Panels and captions, on pictures drawn here."""

from drawn import picture

from mmconvnext.inference.pictures import (
    CAPTION,
    GAP,
    Drawn,
    captioned,
    side_by_side,
)


def test_panels_lie_side_by_side() -> None:
    row = side_by_side([picture(value=v) for v in (10, 20, 30)])
    assert row.shape == (40, 3 * 60 + 2 * GAP, 3)
    assert [row[0, 68 * i, 0] for i in range(3)] == [10, 20, 30]
    assert (row[:, 60:68] == 255).all()


def test_captions_stand_above_and_the_legend_below() -> None:
    panels = {'input': picture(), 'ground truth': picture()}
    plain = captioned(Drawn(panels))
    assert plain.shape == (40 + CAPTION, 128, 3)
    strip = plain[:CAPTION]
    assert (strip < 100).any() and (strip[:, 60:68] == 255).all()
    names = {f'class {i}': (0, 200, i) for i in range(7)}
    whole = captioned(Drawn(panels, legend=names))
    # One name of this length fits beside another in 128 pixels: 7 rows.
    assert whole.shape == (40 + 8 * CAPTION, 128, 3)
    for i in range(7):
        block = whole[40 + (i + 1) * CAPTION :][:CAPTION]
        assert (block == (0, 200, i)).all(-1).any()
