"""The doctor on stacks that are broken on purpose.

The stacks are folders of small fake packages; the interpreters that the
doctor starts see nothing else that is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, NamedTuple, Tuple

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
sys.path.insert(0, str(TOOLS))

import doctor  # noqa: E402
from checkup import config  # noqa: E402

# Runs at the start of each interpreter, and hides what is truly installed.
HIDE = """
import sys
sys.path[:] = [p for p in sys.path if not p.endswith('-packages')]
sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in repr(f)]
"""
TORCH = """
__version__ = '2.13.0'
class version: cuda = None
class cuda: is_available = staticmethod(lambda: False)
class Tensor:
    def __matmul__(self, other): return self
    def numpy(self): return self
    def tolist(self): return [0, 2]
ones = tensor = from_numpy = lambda *args, **kwargs: Tensor()
allclose = lambda *args: True
"""
GPU = """
class version: cuda = '12.8'
class cuda:
    is_available = is_bf16_supported = staticmethod(lambda: True)
    device_count = staticmethod(lambda: 1)
    get_device_name = staticmethod(lambda index: 'H200')
Tensor.add_ = lambda self, other: self
Tensor.item = lambda self: 2
"""
REGISTRY = """
class MODELS:
    get = staticmethod(lambda name: type(name.split('.')[1], (), {}))
"""
MMCV_OPS = """
def install(): import sys; sys.modules['mmcv._ext'] = sys
def summary(): return 'stand-in (2 pytorch)'
"""
NMS = """
import mmcv._ext
def nms(boxes, scores, threshold): return boxes, scores
def roi_align(*args): return args[0]
"""
# file: its text
MODULES = {
    'sitecustomize.py': HIDE,
    'torch/__init__.py': TORCH,
    'numpy/__init__.py': "__version__ = '2.2.6'\nuint8 = ones = lambda *a, "
    '**k: a',
    'cv2/__init__.py': "__version__ = '4.12.0'\nresize = lambda *a: a",
    'mmengine/__init__.py': "__version__ = '0.10.12'",
    'mmengine/runner.py': '',
    'mmengine/registry.py': REGISTRY,
    'mmcv/__init__.py': "import mmengine\n__version__ = '2.3.6'",
    'mmcv/_ext.py': '',
    'mmcv/ops.py': NMS,
    'mmdet/__init__.py': "import mmcv\n__version__ = '3.5.1'",
    'mmdet/models.py': 'import mmcv.ops',
    'mmdet/datasets.py': 'import pycocotools.mask',
    'mmseg/__init__.py': "import mmcv\n__version__ = '1.4.2'",
    'mmseg/models.py': '',
    'mmseg/datasets.py': '',
    'mmconvnext/__init__.py': "import mmengine\n__version__ = '0.1.0'",
    'mmconvnext/registry.py': '',
    'mmconvnext/mmcv_ops.py': MMCV_OPS,
    'pycocotools/__init__.py': '',
    'pycocotools/mask.py': 'encode = lambda *a: a',
}
DISTS = {
    'torch': '2.13.0',
    'numpy': '2.2.6',
    'opencv-python': '4.12.0.88',
    'pycocotools': '2.0.11',
    **dict(doctor.LINES['onedl'].values()),
}


class Stack:
    """A folder of fake packages that tests can break."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def remove(self, *names: str) -> None:
        for name in names:
            path = self.root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def dist(self, name: str, version: str) -> None:
        text = f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
        self.write(f'{self.folder(name)}/METADATA', text)

    def undist(self, *names: str) -> None:
        self.remove(*map(self.folder, names))

    def folder(self, name: str) -> str:
        found = self.root.glob(f'{name.replace("-", "_")}-*.dist-info')
        return next(
            (path.name for path in found),
            f'{name.replace("-", "_")}-1.dist-info',
        )

    def examine(self, *arguments: str, **environ: str) -> Tuple[int, str]:
        done = subprocess.run(
            [sys.executable, str(TOOLS / 'doctor.py'), *arguments],
            env={**os.environ, 'PYTHONPATH': str(self.root), **environ},
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert 'Traceback' not in done.stdout, done.stdout
        return done.returncode, done.stdout


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """A stack without problems."""
    stack = Stack(tmp_path)
    for name, text in MODULES.items():
        stack.write(name, text)
    for name, version in DISTS.items():
        stack.dist(name, version)
    return stack


def test_all_is_well(stack: Stack) -> None:
    code, text = stack.examine()
    assert code == 0, text
    assert text.endswith('All that is needed works.\n')
    assert 'PROBLEM' not in text and 'Problems' not in text
    for name in (*doctor.PROBES, 'host line'):
        assert f'\n{name} ' in text
    lines = text.split('\n')
    start = lines[0].index('state')
    table = lines[: lines.index('')]
    assert len(table) == len(doctor.PROBES) + 2
    assert {line[start:].split()[0] for line in table[1:]} == {'ok', 'note'}


class Case(NamedTuple):
    """Something broken, the exit code, and words of the report."""

    harm: Callable[[Stack], object]
    words: Tuple[str, ...]
    code: int = 1


def no_package(name: str, dist: str) -> Callable[[Stack], object]:
    return lambda s: (s.remove(name), s.undist(dist))


def change(name: str, text: str) -> Callable[[Stack], object]:
    return lambda s: s.write(name, text)


def both_lines(s: Stack) -> None:
    s.dist('mmengine', '0.10.7')


def foreign_mmdet(s: Stack) -> None:
    s.undist('onedl-mmdetection')
    s.dist('mmdet', '3.3.0')
    s.write(
        'mmdet/__init__.py',
        "assert False, 'MMCV==2.3.6 is used but incompatible. Please install "
        "mmcv>=2.0.0rc4, <2.2.0.'",
    )


def openmmlab(s: Stack, mmcv: str, version: str) -> None:
    """Exchange the hosts, with an mmcv of this distribution and version."""
    s.undist(*(dist for dist, _ in doctor.LINES['onedl'].values()))
    for dist, tested in doctor.LINES['OpenMMLab'].values():
        if dist != 'mmcv':
            s.dist(dist, tested)
    s.dist(mmcv, version)


def late_mmcv(s: Stack) -> None:
    openmmlab(s, 'mmcv', '2.2.0')
    s.write(
        'mmdet/__init__.py',
        "assert False, 'MMCV==2.2.0 is used but incompatible. Please install "
        "mmcv>=2.0.0rc4, <2.2.0.'",
    )


REBUILD = (
    'fix: pip install --no-build-isolation --no-cache-dir --force-reinstall '
    '--no-deps onedl-mmcv==2.3.6\n'
)
TORCHVISION = "raise RuntimeError('operator torchvision::nms does not exist')"
SYMBOL = "raise ImportError('_ext.so: undefined symbol: _ZN2at4_ops')"
CASES: Dict[str, Case] = {
    'no mmcv': Case(
        no_package('mmcv', 'onedl-mmcv'),
        (
            'mmcv, mmcv operators, mmdet, mmseg: mmcv is not installed',
            'fix: pip install --no-build-isolation --no-cache-dir '
            'onedl-mmcv==2.3.6\n',
            '1 problem to fix',
        ),
    ),
    'no operators, stand-in': Case(
        lambda s: s.remove('mmcv/_ext.py'),
        ('note', "mmconvnext replaces them (No module named 'mmcv._ext')"),
        code=0,
    ),
    'no operators, no stand-in': Case(
        lambda s: s.remove('mmcv/_ext.py', 'mmconvnext/mmcv_ops.py'),
        (
            'mmcv operators, mmdet: mmcv is installed without its compiled',
            REBUILD,
            '1 problem to fix',
        ),
    ),
    'operators for another torch, stand-in': Case(
        change('mmcv/_ext.py', SYMBOL),
        ('undefined symbol', 'replaces them'),
        code=0,
    ),
    'operators for another torch, no stand-in': Case(
        lambda s: (
            s.write('mmcv/_ext.py', SYMBOL),
            s.remove('mmconvnext/mmcv_ops.py'),
        ),
        ('made for other libraries, mostly another torch', REBUILD),
    ),
    'operators that compute wrongly': Case(
        change(
            'torch/__init__.py', TORCH.replace('return [0, 2]', 'return [0]')
        ),
        ('AssertionError: nms kept boxes [0]', REBUILD),
    ),
    'torchvision for another torch': Case(
        change('torchvision/__init__.py', TORCHVISION),
        (
            'torchvision: the compiled part of torchvision was made for',
            'fix: pip uninstall -y torchvision\n',
        ),
    ),
    'old mmengine': Case(
        change('mmengine/__init__.py', "__version__ = '0.5.0'"),
        (
            'mmengine 0.5.0 is too old, 0.8.3 or later is needed',
            'fix: pip install onedl-mmengine==0.10.12\n',
        ),
    ),
    'numpy of another build': Case(
        change(
            'numpy/__init__.py',
            "raise ImportError('numpy.core.multiarray failed to import')",
        ),
        (
            'compiled for another major version of numpy',
            'fix: pip install "numpy<2"\n',
            '1 problem to fix',
        ),
    ),
    'torch without numpy': Case(
        change(
            'torch/__init__.py',
            TORCH + 'def from_numpy(a): '
            "raise RuntimeError('Numpy is not available')",
        ),
        ('another major version of numpy', 'fix: pip install "numpy<2"\n'),
    ),
    'no torch': Case(
        no_package('torch', 'torch'),
        ('torch is not installed', 'fix: pip install torch==2.13.0\n'),
    ),
    'old torch': Case(
        change('torch/__init__.py', TORCH.replace('2.13.0', '2.0.1')),
        (
            'torch 2.0.1 is older than 2.1',
            'fix: pip install torch==2.13.0\n',
        ),
    ),
    'old numpy': Case(
        change(
            'numpy/__init__.py',
            "__version__ = '1.24.4'\nuint8 = ones = lambda *a, **k: 1",
        ),
        ('numpy 1.24.4 is older than 1.26', 'fix: pip install "numpy>=1.26"'),
    ),
    'no mmengine': Case(
        no_package('mmengine', 'onedl-mmengine'),
        (
            'mmengine is not installed',
            'fix: pip install onedl-mmengine==0.10.12\n',
            '1 problem to fix',
        ),
    ),
    'no mmdet': Case(
        no_package('mmdet', 'onedl-mmdetection'),
        ('mmdet is not', 'fix: pip install onedl-mmdetection==3.5.1\n'),
    ),
    'no mmseg': Case(
        no_package('mmseg', 'onedl-mmsegmentation'),
        ('mmseg is not', 'fix: pip install onedl-mmsegmentation==1.4.2\n'),
    ),
    'half an mmdet': Case(
        lambda s: s.remove('mmdet/models.py'),
        (
            'a part of mmdet is missing',
            'fix: pip install --force-reinstall --no-deps '
            'onedl-mmdetection==3.5.1\n',
        ),
    ),
    'mmdet of the other line': Case(
        foreign_mmdet,
        (
            'want mmcv<2.2.0',
            'fix: pip uninstall -y mmdet && pip install --force-reinstall '
            '--no-deps onedl-mmdetection==3.5.1\n',
        ),
    ),
    'mmcv too new for its line': Case(
        late_mmcv,
        (
            'want mmcv<2.2.0',
            'fix: pip install "setuptools<81" && pip install '
            '--no-build-isolation --no-cache-dir --force-reinstall --no-deps '
            'mmcv==2.1.0\n',
        ),
    ),
    'the mmcv of requirements/openmmlab.txt': Case(
        lambda s: openmmlab(s, 'mmcv-lite', '2.1.0'),
        ('OpenMMLab  ok', 'versions tested together'),
        code=0,
    ),
    'another mmcv-lite': Case(
        lambda s: openmmlab(s, 'mmcv-lite', '2.0.1'),
        ('tested: mmcv 2.1.0 (here 2.0.1)',),
        code=0,
    ),
    'mmcv-lite beside mmcv': Case(
        lambda s: (
            openmmlab(s, 'mmcv', '2.1.0'),
            s.dist('mmcv-lite', '2.1.0'),
        ),
        (
            'mmcv and mmcv-lite are both installed',
            'fix: pip uninstall -y mmcv mmcv-lite && ',
        ),
    ),
    'mmcv-lite, no stand-in': Case(
        lambda s: (
            openmmlab(s, 'mmcv-lite', '2.1.0'),
            s.remove('mmcv/_ext.py', 'mmconvnext/mmcv_ops.py'),
        ),
        (
            'fix: pip uninstall -y mmcv-lite && pip install "setuptools<81" '
            '&& pip install --no-build-isolation --no-cache-dir '
            '--force-reinstall --no-deps mmcv==2.1.0\n',
            '1 problem to fix',
        ),
    ),
    'both lines at once': Case(
        both_lines,
        (
            'onedl-mmengine and mmengine are both installed',
            'fix: pip uninstall -y onedl-mmengine mmengine && '
            'pip install onedl-mmengine==0.10.12\n',
        ),
    ),
    'a crash': Case(
        change('mmseg/models.py', 'import os; os.abort()'),
        (
            'mmseg does not work: its process was killed by SIGABRT',
            'onedl-mmsegmentation==1.4.2\n',
            '1 problem to fix',
        ),
    ),
    'a crash that others inherit': Case(
        change('mmengine/__init__.py', 'import os; os.abort()'),
        (
            'mmengine: mmengine does not work: its process was killed by',
            'onedl-mmengine==0.10.12\n',
            '1 problem to fix',
        ),
    ),
    'an exit': Case(
        change('mmdet/__init__.py', 'import os; os._exit(3)'),
        ('its process ended with exit code 3', 'onedl-mmdetection==3.5.1'),
    ),
    'a polite exit': Case(
        change('mmdet/__init__.py', 'raise SystemExit(3)'),
        ('SystemExit: 3', 'onedl-mmdetection==3.5.1'),
    ),
    'a syntax error': Case(
        change('mmseg/datasets.py', 'def broken(:'),
        ('SyntaxError', 'onedl-mmsegmentation==1.4.2'),
    ),
    'a crash in an extra': Case(
        change('timm/__init__.py', 'import ctypes; ctypes.string_at(0)'),
        ('its process was killed by SIGSEGV (tests and benchmarks',),
        code=0,
    ),
    'an extra that fails': Case(
        change('transformers/__init__.py', '1 / 0'),
        ('ZeroDivisionError: division by zero (tests against it)',),
        code=0,
    ),
    'noise on the streams': Case(
        change(
            'mmdet/__init__.py',
            "import io, sys; print('\\n{noise}'); sys.stderr.write('noise');"
            "sys.stdout = io.StringIO(); __version__ = '3.5.1'",
        ),
        ('All that is needed works',),
        code=0,
    ),
    'a scope that does not resolve': Case(
        change(
            'mmengine/registry.py',
            REGISTRY.replace(
                'get = ',
                'get = lambda name: None if name.starts'
                "with('mmconvnext') else name #",
            ),
        ),
        (
            "mmconvnext scope does not work: AssertionError: 'mmconvnext."
            "ConvNeXtV2' is in no registry",
            'fix: pip install --no-build-isolation -e ',
        ),
    ),
    'both lines at once, and refused': Case(
        lambda s: (foreign_mmdet(s), s.dist('onedl-mmdetection', '3.5.1')),
        (
            'installed twice: mmdet',
            'fix: pip uninstall -y onedl-mmdetection mmdet && '
            'pip install onedl-mmdetection==3.5.1\n',
            '1 problem to fix',
        ),
    ),
    'a GPU': Case(
        change('torch/__init__.py', TORCH + GPU),
        ('1 visible', 'H200, bf16', 'built for CUDA 12.8'),
        code=0,
    ),
    'a GPU that fails': Case(
        change(
            'torch/__init__.py',
            TORCH + GPU.replace("'H200'", '1 / 0'),
        ),
        ('gpu does not work: ZeroDivisionError', 'fix: nvidia-smi'),
    ),
    'damaged metadata': Case(
        lambda s: s.remove(f'{s.folder("onedl-mmcv")}/METADATA'),
        ('onedl-mmcv 2.3.6 (here none)',),
        code=0,
    ),
}


@pytest.mark.parametrize('name', CASES)
def test_names_the_problem_and_its_fix(stack: Stack, name: str) -> None:
    case = CASES[name]
    case.harm(stack)
    code, text = stack.examine()
    for words in case.words:
        assert words in text, text
    assert code == case.code, text
    assert ('PROBLEM' in text) == ('Problems' in text) == bool(code), text


def test_does_not_wait_for_ever(stack: Stack) -> None:
    stack.write('mmseg/models.py', 'import time; time.sleep(600)')
    code, text = stack.examine('--timeout', '5')
    assert code == 1
    assert 'mmseg does not work: no answer in 5 s' in text


def test_a_gpu_that_torch_cannot_use(stack: Stack) -> None:
    stack.write('bin/nvidia-smi', '')
    (stack.root / 'bin/nvidia-smi').chmod(0o755)
    path = f'{stack.root / "bin"}{os.pathsep}{os.environ["PATH"]}'
    code, text = stack.examine(PATH=path)
    assert code == 0
    assert 'nvidia-smi is there, but this torch is built without CUDA' in text


def test_several_problems_are_separate(stack: Stack) -> None:
    stack.remove('mmcv/_ext.py', 'mmconvnext/mmcv_ops.py', 'mmseg')
    stack.write('torchvision/__init__.py', TORCHVISION)
    code, text = stack.examine('--json')
    report = json.loads(text)
    assert code == 1 and not report['ok']
    assert [problem['components'] for problem in report['problems']] == [
        ['mmcv operators', 'mmdet'],
        ['mmseg'],
        ['torchvision'],
    ]
    assert all(problem['fix'] for problem in report['problems'])
    states = {row['component']: row['state'] for row in report['rows']}
    assert states['mmcv'] == 'ok' and states['timm'] == 'note'
    assert states['mmdet'] == 'PROBLEM'


def test_the_doctor_imports_the_standard_library_only() -> None:
    code = (
        'import sys; sys.path.insert(0, sys.argv[1]); import doctor; '
        'print(*{name.split(".")[0] for name in sys.modules})'
    )
    command = [sys.executable, '-S', '-c', code, str(TOOLS)]
    names = subprocess.check_output(command, universal_newlines=True).split()
    assert 'doctor' in names
    packages = {'torch', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmseg'}
    assert not packages & set(names)


@pytest.mark.parametrize('component', ['mmengine', 'mmcv operators'])
def test_the_stack_of_this_interpreter(component: str) -> None:
    found = doctor.ask(component, [], timeout=180)
    if component == 'mmengine':
        assert found['version'] == sys.modules['mmengine'].__version__
    else:
        assert 'remark' in found or 'mmcv' in found['error'], found


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where a config is based on one with custom imports."""
    # It would stay in place for the tests that follow.
    monkeypatch.setattr(config, 'serve_operators', lambda: '')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'base.py').write_text(
        "custom_imports = dict(imports=['json'], allow_failed_imports=False)"
    )
    (tmp_path / 'middle.py').write_text("_base_ = './base.py'")
    return tmp_path


def check(config: str) -> list:
    Path('config.py').write_text(config, encoding='utf-8')
    return doctor.probe_config('config.py')()['problems']


def test_a_config_that_is_well(configs: Path) -> None:
    (configs / 'data/train').mkdir(parents=True)
    assert not check(
        "_base_ = ['middle.py']\n"
        # These data sets have paths and no type: nothing reads their labels.
        "data_check = 'off'\n"
        "hook = dict(type='mmengine.EMAHook')\n"
        "train_dataloader = dict(dataset=dict(data_root='data',"
        " ann_file='', data_prefix=dict(img='train/')))\n"
        'test_dataloader = dict(dataset=dict('
        "data_root='s3://bucket', ann_file='a.json'))"
    )


@pytest.mark.parametrize('base', ['base.py', 'middle.py'])
def test_names_imports_that_were_replaced(configs: Path, base: str) -> None:
    (problem,) = check(
        f"_base_ = ['{base}']\ncustom_imports = dict(imports=['csv'])"
    )
    assert 'custom_imports replaces that of' in problem.what
    assert "['json'] will not be imported, only ['csv']" in problem.what
    assert "dict(imports=['json', 'csv'])" in problem.fix


def test_a_base_that_replaced_imports_of_its_own(configs: Path) -> None:
    (configs / 'middle.py').write_text(
        "_base_ = 'base.py'\ncustom_imports = dict(imports=['csv'])"
    )
    (problem,) = check("_base_ = 'middle.py'")
    assert 'custom_imports replaces that of base.py' in problem.what


def test_own_imports_beside_those_of_the_base(configs: Path) -> None:
    assert not check(
        "_base_ = 'base.py'\ncustom_imports = dict(imports=['csv', 'json'])"
    )


FAULTS = {
    "custom_imports = dict(imports=['not_there.at_all'])": (
        'not_there.at_all does not import',
        'PYTHONPATH',
    ),
    "hook = [dict(type='mmengine.NoHook')]": (
        "'mmengine.NoHook' is in no registry",
        'python -c "import mmengine.registry"',
    ),
    "model = dict(backbone=dict(type='nowhere.Net'))": (
        "'nowhere.Net' is in no registry",
        'pip install nowhere',
    ),
    "data_root = 'data/x/'\ntrain_dataloader = dict(dataset=dict("
    "data_root='data/x/', ann_file='a.json'))": (
        'data/x/a.json',
        'ln -s /path/to/it data/x',
    ),
    'val_dataloader = dict(dataset=dict(datasets=[dict('
    "data_root='.', data_prefix=dict(img='pictures/'))]))": (
        'pictures',
        '--data-root',
    ),
    "_base_ = 'gone.py'": ('config.py does not load', 'edit config.py'),
    'broken = (': ('config.py does not load', 'edit config.py'),
}


@pytest.mark.parametrize('config', FAULTS)
def test_names_the_fault_of_a_config(configs: Path, config: str) -> None:
    (problem,) = check(config)
    what, fix = FAULTS[config]
    assert what in problem[0] and fix in problem[1], problem


def test_a_config_that_is_not_there(configs: Path) -> None:
    (problem,) = doctor.probe_config('none.py')()['problems']
    assert 'config none.py does not exist' in problem[0]


def test_a_config_is_part_of_the_report(stack: Stack) -> None:
    stack.write('mmengine/config.py', 'class Config: pass')
    code, text = stack.examine('--config', 'none.py')
    assert code == 1
    assert 'config: config none.py does not exist' in text


@pytest.mark.parametrize(
    'base',
    [
        'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
        'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    ],
)
def test_a_base_of_a_host_is_found(base: str, tmp_path: Path) -> None:
    """In a process of its own: here mmconvnext is imported."""
    path = tmp_path / 'mine.py'
    path.write_text(f'_base_ = {base!r}\n', encoding='utf-8')
    run = 'import sys; from checkup.config import probe_config; '
    run += 'print(probe_config(sys.argv[1])()["problems"])'
    places = [str(TOOLS), str(TOOLS.parent)]
    done = subprocess.run(
        [sys.executable, '-c', run, path],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(places)},
    )
    assert 'does not load' not in done.stdout
    assert 'data set not found' in done.stdout, done.stderr
