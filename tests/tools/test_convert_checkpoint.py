"""tools/convert_checkpoint.py writes what the package exports."""

from __future__ import annotations

import pytest
import torch
from checkpoints import (
    EXPORT_CASES,
    MODELS,
    backbone,
    randomise,
    same,
    save,
    spell,
    wrap,
)
from imports import import_tool, import_zoo

from mmconvnext.checkpoint import (
    export,
    load,
    parity,
    weights_io,
)
from mmconvnext.checkpoint.formats import EXPORTS

TOOL = import_tool('convert_checkpoint')


@pytest.mark.parametrize('name, version', EXPORT_CASES)
def test_the_tool_converts_and_checks(
    tmp_path, capsys, name: str, version: int
) -> None:
    if name in ('timm', 'transformers'):
        import_zoo(name)
    source = randomise(backbone(version))
    path = save(tmp_path, wrap(source.state_dict(), 'state_dict', 'backbone.'))
    out = str(tmp_path / 'out.pth')
    TOOL.main([path, out, '--to', name, '--check'])
    text = capsys.readouterr().out
    assert f'written    {len(export(source, name))} tensors' in text
    assert 'features equal within' in text
    target = backbone(version)
    lost = 'norm{i}.{p}' not in EXPORTS[name].names
    load(target, out, final_norm=lost)
    but = r'norm[0-2]\.' if lost else '^$'
    assert same(source.state_dict(), target.state_dict(), but)


def test_the_check_of_the_tool_can_fail(tmp_path, monkeypatch) -> None:
    path = save(tmp_path, randomise(backbone(1)).state_dict())
    out = tmp_path / 'out.pth'
    real = parity.BUILDERS['native']

    def wrong(found, state):
        state['stages.2.1.gamma'] = state['stages.2.1.gamma'] * 1.01
        return real(found, state)

    monkeypatch.setitem(parity.BUILDERS, 'native', wrong)
    with pytest.raises(SystemExit, match='features differ'):
        TOOL.main([path, str(out), '--to', 'native', '--check'])
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.pth']


def test_the_tool_inspects_without_writing(tmp_path, capsys) -> None:
    state = spell(randomise(MODELS[2]('atto')), 'timm')
    path = save(tmp_path, state, 'x.pth')
    TOOL.main([path, '--inspect'])
    text = capsys.readouterr().out
    assert 'timm, ConvNeXt V2 atto (depths 2 2 6 2, dims 40' in text
    assert 'CC BY-NC' in text and len(list(tmp_path.iterdir())) == 1


def test_the_tool_keeps_a_whole_detector(tmp_path) -> None:
    state = wrap(randomise(backbone(1)).state_dict(), 'backbone.')
    state['decode_head.conv_seg.weight'] = torch.ones(3)
    meta = {'CLASSES': ('wall', 'sky'), 'PALETTE': [[1, 2, 3]], 'epoch': 7}
    path = save(tmp_path, {'state_dict': state, 'meta': meta})
    out = str(tmp_path / 'out.pth')
    TOOL.main([path, out, '--to', 'native', '--whole'])
    back = weights_io.read(out)
    assert same(back['state_dict'], state)
    names = back['meta']['dataset_meta']
    assert names == {'classes': ('wall', 'sky'), 'palette': [[1, 2, 3]]}
