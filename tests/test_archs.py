"""The table of published sizes, and how it is read."""

import pytest

from mmconvnext import ARCHS, ConvNeXt, ConvNeXtV2
from mmconvnext.archs import STRIDES, Arch, arch_name, get_arch

SIZES = dict(depths=[1, 2, 3, 4], dims=[8, 16, 24, 32])


@pytest.mark.parametrize('name', ARCHS)
def test_an_arch_is_found_by_name_and_by_sizes(name: str) -> None:
    row = ARCHS[name]
    assert len(row.depths) == len(row.dims) == len(STRIDES)
    for version in row.versions:
        assert get_arch(name, version) is row
    assert arch_name(list(row.depths), list(row.dims)) == name


def test_own_sizes() -> None:
    row = get_arch(SIZES, version=2)
    assert row == Arch((1, 2, 3, 4), (8, 16, 24, 32))
    assert arch_name(row.depths, row.dims) == 'custom'


def test_versions_know_their_archs() -> None:
    with pytest.raises(ValueError, match='xlarge.*not a ConvNeXt V2'):
        ConvNeXtV2('xlarge')
    with pytest.raises(ValueError, match='huge.*not a ConvNeXt V1'):
        ConvNeXt('huge')


@pytest.mark.parametrize(
    ('arch', 'match'),
    [
        ('giant', r"'giant' is not a ConvNeXt V1; known: atto, .*xxlarge, or"),
        (dict(depths=[1, 1, 1, 1]), 'must be a name or dict'),
        ({**SIZES, 'eps': 1e-6}, 'must be a name or dict'),
        ({**SIZES, 'dims': [8, 16, 24]}, "arch.'dims'. must be 4 positive"),
        ({**SIZES, 'depths': [1, 2, 0, 1]}, "arch.'depths'. must be 4 pos"),
        ({**SIZES, 'depths': [1, 2, 1.5, 1]}, "arch.'depths'. must be 4 pos"),
    ],
)
def test_bad_archs_raise(arch, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        get_arch(arch, version=1)
