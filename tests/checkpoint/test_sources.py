"""Downloads and hubs give whole files with the right digest or raise."""

from __future__ import annotations

import hashlib
import io
import sys
from types import SimpleNamespace

import pytest
from checkpoints import (
    assert_refused,
    backbone,
    randomise,
    same,
    save,
    spell,
    torch_bytes,
    write_bytes,
)

from mmconvnext.checkpoint import load, sources


@pytest.mark.parametrize(
    'source, package',
    [
        ('{}/a.safetensors', 'safetensors'),
        ('hf-hub://owner/name', 'huggingface_hub'),
        ('timm://convnext_tiny.fb_in1k', 'timm'),
    ],
)
def test_a_library_that_is_absent_is_named(
    tmp_path, monkeypatch, source: str, package: str
) -> None:
    for module in (package, f'{package}.torch'):
        monkeypatch.setitem(sys.modules, module, None)
    write_bytes(tmp_path, b'1' * 99, 'a.safetensors')
    source = source.format(tmp_path)
    assert_refused(backbone(1), source, f'pip install {package}')


class Answer(io.BytesIO):
    def __init__(self, data: bytes, length: int) -> None:
        super().__init__(data)
        self.headers = {'Content-Length': str(length)}


def test_downloads_are_kept_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    source = randomise(backbone(1))
    data = torch_bytes(source.state_dict())
    calls = []
    answers = {'body': data, 'length': len(data)}

    def urlopen(url, timeout):
        calls.append(url)
        return Answer(answers['body'], answers['length'])

    monkeypatch.setattr(sources.urllib.request, 'urlopen', urlopen)
    monkeypatch.setattr(sources, 'cache_dir', lambda: tmp_path / 'cache')
    url = 'https://host/dir/convnext.pth?x=1'
    target = backbone(1)
    answers['body'] = data[:-5]
    assert_refused(target, url, f'got {len(data) - 5} of {len(data)} bytes')
    answers['body'] = data
    assert_refused(target, url, 'sha256', sha256='0' * 64)
    assert not list((tmp_path / 'cache').iterdir())
    right = hashlib.sha256(data).hexdigest()
    load(target, url, sha256=right)
    assert same(source.state_dict(), target.state_dict())
    assert len(calls) == 3 and len(list((tmp_path / 'cache').iterdir())) == 1
    load(target, url, sha256=right[:8])
    assert len(calls) == 3
    assert_refused(target, url, 'sha256', sha256=right[:7])
    assert_refused(target, url, 'sha256', sha256='0' * 8)


def test_hubs_are_asked_for_known_files(tmp_path, monkeypatch) -> None:
    source = randomise(backbone(1))
    path = save(tmp_path, spell(source, 'timm'), 'pytorch_model.bin')
    asked = []
    hub = SimpleNamespace(
        list_repo_files=lambda repo: ['README.md', 'pytorch_model.bin'],
        hf_hub_download=lambda *args: asked.append(args) or path,
    )
    monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
    cfg = SimpleNamespace(hf_hub_id='timm/convnext_x.in1k', url='')
    timm = SimpleNamespace(get_pretrained_cfg=lambda name: cfg)
    monkeypatch.setitem(sys.modules, 'timm', timm)
    for name in ('hf-hub://owner/name', 'timm://convnext_x.in1k'):
        load(backbone(1), name)
    assert asked == [
        ('owner/name', 'pytorch_model.bin'),
        ('timm/convnext_x.in1k', 'pytorch_model.bin'),
    ]
    assert_refused(backbone(1), 'hf-hub://name', 'no hf-hub://owner/name')
    hub.list_repo_files = lambda repo: ['README.md']
    assert_refused(backbone(1), 'hf-hub://owner/name', 'none of model.safe')
