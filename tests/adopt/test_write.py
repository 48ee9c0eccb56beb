"""Adopted files: short, commented, and equal to what was adopted."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from imports import import_tool
from mmengine.config import Config
from tiny import DIMS

from mmconvnext.adopt import adopt, read
from mmconvnext.adopt.hosts import base_name, locate, public_name
from mmconvnext.adopt.report import Change, Report
from mmconvnext.adopt.write import (
    WIDTH,
    Writer,
    difference,
    different,
    plain,
    write,
)

ARCH = dict(depths=[1, 1, 1, 1], dims=DIMS)
NAMES = (
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    # Folders that mmengine's pattern of a base does not match.
    'mmdet::gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py',
    'mmdet::legacy_1.x/retinanet_r50_fpn_1x_coco_v1.py',
    # Lists inside of lists, and mmpretrain.
    'mmseg::ocrnet/ocrnet_hr18s_4xb2-40k_cityscapes-512x1024.py',
    'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    'mmseg::deeplabv3plus/'
    'deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py',
)
LOAD = 'import sys, mmconvnext; from mmengine.config import Config; '
LOAD += 'print(Config.fromfile(sys.argv[1]).model.backbone.type)'


@pytest.mark.parametrize('name', NAMES, ids=lambda name: name.split('/')[0])
def test_file_reads_as_what_was_adopted(name: str, tmp_path: Path) -> None:
    host = read(name)
    cfg, report = adopt(host, arch='tiny')
    path = tmp_path / 'elsewhere' / 'mine.py'
    write(cfg, report, host, path, ['python tools/adopt.py', name])
    text = path.read_text(encoding='utf-8')
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.startswith(f'# {report.title}\n')
    # A long name is broken after its folder.
    assert f"'{base_name(name)}'\n" in text.replace("'\n    '", '')
    assert len(text.splitlines()) < 120
    # No other file is left, and another process reads this one.
    assert list(path.parent.iterdir()) == [path]
    done = subprocess.run(
        [sys.executable, '-c', LOAD, path], capture_output=True, text=True
    )
    assert done.stdout.strip() == 'mmconvnext.ConvNeXtV2', done.stderr
    assert not [*different(plain(Config.fromfile(path)), plain(cfg), '')]


TITLES = {
    NAMES[0]: 'DINO with ConvNeXt V2 tiny instead of ResNet-50.',
    NAMES[-1]: 'DeepLabV3+ with ConvNeXt V2 tiny instead of ResNetV1c-50.',
}


@pytest.mark.parametrize('name', TITLES)
def test_file_reads_as_people_write(name: str, tmp_path: Path) -> None:
    host = read(name)
    cfg, report = adopt(host, arch='tiny')
    write(cfg, report, host, tmp_path / 'mine.py')
    text = (tmp_path / 'mine.py').read_text(encoding='utf-8')
    assert text.startswith(f'# {TITLES[name]}\n')
    order = ['backbone=', 'frozen_stages=', 'init_cfg=', 'constructor=']
    found = [text.find(key) for key in [*order, 'paramwise_cfg=']]
    found = [at for at in found if at >= 0]
    assert len(found) >= 4 and found == sorted(found)


PROJECTS = Path(__file__).parents[1] / 'campaigns' / 'projects'


@pytest.mark.parametrize(
    ('name', 'heads', 'channels'),
    [
        ('rtmdet_cspnext_nuclei', 'neck', [80, 160, 320]),
        ('mask2former_r18_camvid', 'decode_head', [40, 80, 160, 320]),
    ],
)
def test_projects_of_the_campaign_are_adopted(
    name: str, heads: str, channels: list, tmp_path: Path
) -> None:
    host = read(str(PROJECTS / f'{name}.py'))
    cfg, report = adopt(host, 'atto', weights='none')
    write(cfg, report, host, tmp_path / 'mine.py')
    again = Config.fromfile(tmp_path / 'mine.py')
    assert again.model[heads].in_channels == channels
    for key in ('train_dataloader', 'val_dataloader', 'param_scheduler'):
        assert again[key] == host[key]
    assert again.optim_wrapper.optimizer == host.optim_wrapper.optimizer


def test_file_of_a_project_is_named_by_its_path(tmp_path: Path) -> None:
    own = tmp_path / 'project' / 'mine.py'
    own.parent.mkdir()
    own.write_text(
        f"_base_ = '{NAMES[0]}'\ndata_root = 'data/mine/'\n", encoding='utf-8'
    )
    host = read(str(own))
    cfg, report = adopt(host, ARCH)
    path = tmp_path / 'configs' / 'new.py'
    write(cfg, report, host, path)
    assert "_base_ = '../project/mine.py'" in path.read_text(encoding='utf-8')
    assert Config.fromfile(path).data_root == 'data/mine/'


def test_whole_file_needs_no_base(tmp_path: Path) -> None:
    host = read(NAMES[0])
    cfg, report = adopt(host, ARCH)
    write(cfg, report, host, tmp_path / 'whole.py', whole=True)
    text = (tmp_path / 'whole.py').read_text(encoding='utf-8')
    assert '_base_' not in text and report.title in text


IMPORTING = """
from torch.optim import SGD

default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder',
    backbone=dict(type='ResNet', depth=18, out_indices=(0, 1, 2, 3)),
    decode_head=dict(type='FCNHead', in_channels=512, in_index=3))
optim_wrapper = dict(optimizer=dict(type=SGD, lr=0.01))
"""


def test_config_that_imports_its_types_is_written_whole(
    tmp_path: Path,
) -> None:
    own = tmp_path / 'own.py'
    own.write_text(IMPORTING, encoding='utf-8')
    host = read(str(own))
    cfg, report = adopt(host, ARCH)
    write(cfg, report, host, tmp_path / 'new.py')
    text = (tmp_path / 'new.py').read_text(encoding='utf-8')
    assert '_base_ =' not in text and 'imports its types' in str(report)
    assert Config.fromfile(tmp_path / 'new.py').optim_wrapper.optimizer.lr
    assert sorted(p.name for p in tmp_path.iterdir()) == ['new.py', 'own.py']


def test_file_that_reads_back_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = read(NAMES[0])
    cfg, report = adopt(host, ARCH)
    monkeypatch.setattr(Writer, 'assignment', lambda *args: [])
    with pytest.raises(ValueError, match='not written'):
        write(cfg, report, host, tmp_path / 'mine.py')
    assert not list(tmp_path.iterdir())


def settings(rng: random.Random, depth: int) -> Any:
    """Settings of any shape: what configs are made of."""
    kind = rng.choice('ndlt' if depth else 'n')
    if kind == 'n':
        leaves = (1, 2.5, None, True, 'text', "it's", (), 'a/' * 60)
        return rng.choice(leaves)
    if kind == 'd':
        names = rng.sample(
            ['a', 'b', 'type', 'in.side', '_x'], rng.randint(0, 4)
        )
        return {name: settings(rng, depth - 1) for name in names}
    values = [settings(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    return values if kind == 'l' else tuple(values)


@pytest.mark.parametrize('seed', range(200))
def test_difference_of_any_two_configs_reads_back(
    seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    old, new = (
        {key: settings(rng, 3) for key in ('one', 'two', 'three')}
        for _ in range(2)
    )
    base = ''.join(f'{key} = {value!r}\n' for key, value in old.items())
    (tmp_path / 'base.py').write_text(base, encoding='utf-8')
    writer = Writer({'one.a': 'A reason.', 'two': 'Another.'})
    lines = ["_base_ = 'base.py'"]
    for name, value in difference(old, new).items():
        lines += writer.assignment(name, value)
    (tmp_path / 'new.py').write_text('\n'.join(lines), encoding='utf-8')
    found = plain(Config.fromfile(tmp_path / 'new.py'))
    assert not [*different(found, new, '')]


def test_reason_of_an_only_setting_is_above_it() -> None:
    writer = Writer({'model.neck.in_channels': 'FPN reads these maps.'})
    value = dict(neck=dict(in_channels=[1, 2]))
    assert writer.assignment('model', value) == [
        '# FPN reads these maps.',
        'model = dict(neck=dict(in_channels=[1, 2]))',
    ]


def test_one_reason_for_several_settings_is_given_once() -> None:
    writer = Writer({'pre.mean': 'Same.', 'pre.std': 'Same.'})
    lines = writer.assignment('pre', dict(mean=[1], std=[2]))
    assert [line.strip() for line in lines].count('# Same.') == 1


def test_report_shows_every_part() -> None:
    report = Report()
    report.title = 'A with B.'
    report.changes.append(Change('a.b', dict(type='Old'), 'x' * 99, 'Why.'))
    report.left.append(('precision', 'float32'))
    report.look.append('schedule: 12 epochs')
    text = str(report)
    assert 'a.b: Old -> ' in text and '... Why.' not in text
    assert 'x' * 99 not in text
    for part in ('A with B.', 'Why.', 'precision: float32', '12 epochs'):
        assert part in text


def test_hosts_configs_are_found_and_named() -> None:
    path = locate(NAMES[0])
    assert public_name(path) == NAMES[0]
    assert locate(NAMES[0].removesuffix('.py')) == path
    assert public_name(Path(__file__)) is None


WRONG = (
    ('mmdet::dino/dino.py', 'dino-4scale_r50_8xb2-12e_coco.py'),
    ('mmdet::nothing/x.py', 'mmdet::dino/'),
    ('mmpose::x/y.py', 'configs by name are those of mmdet, mmseg'),
    ('nothing.py', 'config file not found: nothing.py'),
)


@pytest.mark.parametrize('name, message', WRONG)
def test_wrong_names_say_what_is_there(name: str, message: str) -> None:
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        locate(name)


def test_tool_writes_nothing_for_a_refused_design(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tool = import_tool('adopt')
    name = 'mmdet::tridentnet/tridentnet_r50-caffe_1x_coco.py'
    out = tmp_path / 'new.py'
    monkeypatch.setattr(sys, 'argv', ['adopt.py', name, '--out', str(out)])
    with pytest.raises(SystemExit) as stopped:
        tool.main()
    assert 'error: TridentResNet: ' in str(stopped.value)
    assert not list(tmp_path.iterdir())


def test_tool_keeps_a_file_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = import_tool('adopt')
    out = tmp_path / 'new.py'
    out.write_text('mine', encoding='utf-8')
    argv = ['adopt.py', NAMES[0], '--out', str(out), '--no-check']
    monkeypatch.setattr(sys, 'argv', argv)
    with pytest.raises(SystemExit) as stopped:
        tool.main()
    assert '--force' in str(stopped.value)
    assert out.read_text(encoding='utf-8') == 'mine'
    monkeypatch.setattr(sys, 'argv', [*argv, '--force'])
    tool.main()
    text = out.read_text(encoding='utf-8')
    assert f'python tools/adopt.py {NAMES[0]} ' in text
    assert '--force' not in text
