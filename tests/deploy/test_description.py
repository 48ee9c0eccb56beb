"""What a file says about itself comes back from it."""

import json

import exported
import pytest
import tiny

from mmconvnext import __version__
from mmconvnext.deploy import Description, describe

RECIPES = [exported.UPERNET[2], exported.MASK[2], exported.CASCADE]


@pytest.mark.parametrize('name', RECIPES)
def test_round_trip(name: str) -> None:
    cfg = tiny.load(name)
    about = describe.describe(cfg)
    again = Description.from_metadata(about.to_metadata(), 'model.onnx')
    assert again == about._replace(
        window=about.window and list(about.window),
        stride=about.stride and list(about.stride),
    )
    assert again.version == __version__ and again.config == name[:-3]
    assert len(again.classes) == len(again.palette) in (80, 150)


def test_test_data_comes_back_as_it_was() -> None:
    """Tuples, too: a host's Resize takes no list."""
    cfg = tiny.load(exported.MASK[2])
    found = describe.config_of(describe.describe(cfg))
    for key in describe.TEST_KEYS:
        if key in cfg:
            assert found[key] == cfg[key]
    scale = found.test_dataloader.dataset.pipeline[1].scale
    assert scale == (1333, 800) and type(scale) is tuple


def test_windows_come_from_the_recipe() -> None:
    about = describe.describe(tiny.load(exported.UPERNET[2]))
    assert about.window == (512, 512) and about.stride == (341, 341)
    with pytest.raises(ValueError, match='--shape 512 512'):
        describe.describe(tiny.load(exported.UPERNET[2]), shape=(64, 64))


@pytest.mark.parametrize(
    'entries, message',
    [
        ({}, 'was not exported by tools/export.py'),
        (dict(task='depth'), 'cannot read: depth'),
        (dict(task='detection', version='9', sound=1), '9, .* read: sound'),
    ],
)
def test_files_from_elsewhere(entries: dict, message: str) -> None:
    given = {'mmconvnext': json.dumps(entries)} if entries else {}
    with pytest.raises(ValueError, match=f'model.onnx .*{message}'):
        Description.from_metadata(given, 'model.onnx')
