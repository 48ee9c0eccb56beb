"""The replacement of mmcv's compiled operators, and detectors that use it.

The other files of this folder compare the operators with three references:
slow implementations of their definitions, finite differences in double
precision through mmcv's public functions, and the compiled operators where
they are installed.
"""

import copy
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from mmconvnext import mmcv_ops

ROOT = Path(__file__).resolve().parents[2]


def python(code):
    code = f'import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}'
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_fresh_process():
    python("""
from mmconvnext import mmcv_ops
assert 'mmcv' not in sys.modules and 'torchvision' not in sys.modules
first = mmcv_ops.install(force=True)
module = sys.modules['mmcv._ext']
assert mmcv_ops.install() == mmcv_ops.install(force=True) == first
assert sys.modules['mmcv._ext'] is module
import importlib.util, mmcv, mmcv._ext, mmcv.ops
assert mmcv._ext is module
assert importlib.util.find_spec('mmcv._ext') is module.__spec__
if sys.version_info < (3, 14):
    from mmcv.utils.ext_loader import check_ops_exist
    assert check_ops_exist()
assert first['source'] == 'stand-in'
assert first['operators']['box_iou_rotated'] == 'unavailable'
assert first['operators']['nms'] in ('torchvision', 'pytorch')
from mmcv.utils import collect_env
assert 'mmconvnext' in collect_env()['MMCV Compiler']
""")


def test_installed_world():
    before = sys.modules['mmcv._ext']
    report = mmcv_ops.install()
    assert sys.modules['mmcv._ext'] is before
    stands_in = isinstance(before, mmcv_ops.StandIn)
    assert report['source'] == ('stand-in' if stands_in else 'compiled')
    assert set(mmcv_ops.OPERATORS) <= set(report['operators'])


def test_every_operator_of_mmcv_has_a_name(ops):
    module = sys.modules['mmcv._ext']
    assert len(mmcv_ops.status()['operators']) > 60
    assert all(hasattr(module, n) for n in mmcv_ops.status()['operators'])
    assert not hasattr(module, '__path__') and not hasattr(module, '_private')


# Asked for by modules that hosts import, but no detector or segmentor with a
# backbone of four stages calls them: rotated boxes are mmrotate's, and lanes
# are found by one method of the fork, on CUDA alone.
NOT_SERVED = {'nms_rotated', 'nms_quadri', 'line_nms_forward'}
HOST_IMPORT = re.compile(r'from (mmcv\.ops[\w.]*) import (?:\(([^)]*)\)|(.*))')


def names_that_hosts_import(host):
    """Names of mmcv.ops in the host's modules and in its configs."""
    root = Path(importlib.util.find_spec(host).origin).parent
    for file in root.rglob('*.py'):
        text = file.read_text(encoding='utf-8')
        for match in HOST_IMPORT.finditer(text):
            names = (match.group(2) or match.group(3)).split('#')[0]
            for name in names.split(','):
                yield match.group(1), name.split(' as ')[0].strip()
        # Region pooling is looked up in mmcv.ops by the name in a config.
        for name in re.findall(r'roi_layer=dict\(\s*type=.(\w+)', text):
            yield 'mmcv.ops', name


@pytest.mark.parametrize('host', ('mmdet', 'mmseg'))
def test_operators_that_hosts_use_are_served(ops, host):
    """Each name's module in mmcv.ops asks only for what is served."""
    if importlib.util.find_spec(host) is None:
        pytest.skip(f'{host} is not installed')
    names = {pair for pair in names_that_hosts_import(host) if pair[1]}
    assert ('mmcv.ops', 'point_sample') in names
    lacking = {}
    for source, name in sorted(names):
        served = getattr(importlib.import_module(source), name)
        module = sys.modules[served.__module__]
        text = Path(module.__file__).read_text(encoding='utf-8')
        asked = set(re.findall(r'\bext_module\.([a-z]\w*)', text))
        missing = asked - set(mmcv_ops.OPERATORS) - NOT_SERVED
        if missing:
            lacking[name] = sorted(missing)
    assert not lacking


def test_unavailable_operator_raises_when_used(ops):
    with pytest.raises(RuntimeError, match='box_iou_rotated.*onedl-mmcv'):
        ops.box_iou_rotated(torch.rand(2, 5), torch.rand(2, 5))


def test_replacing_operators_is_undone():
    before = sys.modules['mmcv._ext']
    user = importlib.import_module('mmcv.ops.nms')
    with mmcv_ops.standing_in() as module:
        assert user.ext_module is module is sys.modules['mmcv._ext']
    assert user.ext_module is before is sys.modules['mmcv._ext']


def test_no_mmcv(monkeypatch):
    for name in [n for n in sys.modules if n.startswith('mmcv.')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'mmcv', None)
    assert mmcv_ops.status()['source'] == 'missing'
    with pytest.raises(ImportError, match='pip install onedl-mmcv'):
        mmcv_ops.install()


def test_too_late(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmdet.models.half', ModuleType('half'))
    monkeypatch.delitem(sys.modules, 'mmcv.ops', raising=False)
    with pytest.raises(RuntimeError, match='fresh process'):
        mmcv_ops.install()


def test_broken_compiled_module_is_reported(monkeypatch):
    def broken(name):
        raise ImportError('undefined symbol')

    logged = []
    monkeypatch.setattr(mmcv_ops.importlib, 'import_module', broken)
    monkeypatch.setattr(
        mmcv_ops, 'print_log', lambda text, *args: logged.append(text)
    )
    assert mmcv_ops._compiled() is None
    assert 'undefined symbol' in logged[0]


def test_torchvision_serves_its_rows(monkeypatch):
    """Argument order of the two torchvision operators, by a recorder."""
    calls = {}

    class Recorder:
        def __getattr__(self, name):
            return lambda *args: calls.setdefault(name, args)[0][..., :1, :1]

    monkeypatch.setattr(mmcv_ops, '_torchvision_fault', str)
    module = mmcv_ops.StandIn()
    assert module.sources['nms'] == 'torchvision'
    monkeypatch.setattr(torch.ops, 'torchvision', Recorder(), raising=False)
    boxes, scores = torch.rand(3, 4), torch.rand(3)
    module.nms(boxes, scores, iou_threshold=0.5, offset=0)
    assert calls['nms'][2] == 0.5
    image, weight = torch.rand(1, 2, 5, 5), torch.rand(2, 2, 3, 3)
    empty, output = torch.empty(0), torch.empty(1, 2, 1, 1)
    module.deform_conv_forward(
        image,
        weight,
        torch.rand(1, 2 * 8 * 9, 1, 1),
        output,
        empty,
        empty,
        kW=3,
        kH=3,
        dW=2,
        dH=1,
        padW=4,
        padH=3,
        dilationW=6,
        dilationH=5,
        group=7,
        deformable_group=8,
        im2col_step=1,
    )
    assert calls['deform_conv2d'][5:] == (1, 2, 3, 4, 5, 6, 7, 8, False)


SMALL = dict(
    depth=18,
    num_classes=3,
    num_things_classes=3,
    num_stuff_classes=0,
    num_queries=10,
    nms_pre=50,
    max_per_img=20,
    max_per_image=20,
    num_points=64,
)
DETECTORS = (
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'retinanet/retinanet_r50_fpn_1x_coco.py',
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'dyhead/atss_r50_fpn_dyhead_1x_coco.py',
    'carafe/mask-rcnn_r50_fpn-carafe_1x_coco.py',
    'dcn/faster-rcnn_r50_fpn_dpool_1x_coco.py',
)


def shrink(node):
    """A config of the host with a tiny backbone and few boxes."""
    if isinstance(node, (list, tuple)):
        if list(node) == [256, 512, 1024, 2048]:
            return [64, 128, 256, 512]
        return type(node)(shrink(v) for v in node)
    if not isinstance(node, dict):
        return node
    node = {k: shrink(v) for k, v in node.items() if k != 'init_cfg'}
    if node.get('type') == 'SyncBN':
        node['type'] = 'BN'
    if 'class_weight' in node:
        node['class_weight'] = [1.0] * 3 + [0.1]
    if 'transformer_decoder' in node:
        node['transformer_decoder']['num_layers'] = 2
        node['num_transformer_feat_level'] = 3
    if 'depth' in node:
        node.update(frozen_stages=-1, norm_eval=False)
    return {
        k: SMALL.get(k, v) if isinstance(v, int) else v
        for k, v in node.items()
    }


def config_of(host, path):
    from mmengine.config import Config, ConfigDict

    spec = importlib.util.find_spec(host)
    if spec is None:
        pytest.skip(f'{host} is not installed')
    file = Path(spec.origin).parent / '.mim' / 'configs' / path
    if not file.exists():
        pytest.skip(f'this {host} carries no configs')
    return ConfigDict(shrink(Config.fromfile(file).model.to_dict()))


def check_step(model, losses):
    loss = sum(
        sum(v) if isinstance(v, list) else v
        for k, v in losses.items()
        if 'loss' in k
    )
    loss.backward()
    grads = [p.grad for p in model.backbone.parameters() if p.requires_grad]
    assert loss.isfinite()
    assert all(g is not None and g.isfinite().all() for g in grads)
    assert any(g.any() for g in grads)


@pytest.mark.parametrize('path', DETECTORS)
def test_detector_trains_and_predicts(ops, path):
    config = config_of('mmdet', path)
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    config['data_preprocessor'].pop('batch_augments', None)
    model = MODELS.build(config)
    model.init_weights()
    inputs = demo_mm_inputs(
        2,
        [[3, 96, 128], [3, 64, 96]],
        num_items=[2, 3],
        num_classes=3,
        with_mask='mask' in path,
    )
    data = model.data_preprocessor(copy.deepcopy(inputs), True)
    check_step(model, model.train().loss(*data.values()))
    with torch.no_grad():
        data = model.data_preprocessor(inputs, False)
        results = model.eval().predict(*data.values())
    assert all('bboxes' in r.pred_instances for r in results)


def test_upernet_trains_and_predicts(ops):
    config = config_of('mmseg', '_base_/models/upernet_r50.py')
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    config['auxiliary_head']['in_channels'] = 256
    for head in ('decode_head', 'auxiliary_head'):
        config[head]['channels'] = 16
    config['data_preprocessor']['size'] = (64, 96)
    model = MODELS.build(config)
    sample = SegDataSample(
        gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, 64, 96)))
    )
    sample.set_metainfo(dict(img_shape=(64, 96), ori_shape=(64, 96)))
    data = dict(
        inputs=[torch.randint(0, 256, (3, 64, 96)).byte()] * 2,
        data_samples=[sample, copy.deepcopy(sample)],
    )
    data = model.data_preprocessor(data, True)
    check_step(model, model.train().loss(**data))
    with torch.no_grad():
        assert len(model.eval().predict(**data)) == 2
