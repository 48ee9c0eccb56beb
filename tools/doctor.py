"""Say what is installed, whether it works together, and how to fix it.

    python tools/doctor.py
    python tools/doctor.py --config configs/mask_rcnn_convnextv2_base_coco.py

Every check runs in a process of its own: a package that is broken, hangs or
crashes its interpreter is reported, and the other checks go on. The exit
code is 0 where all that is needed works, 1 where something has to be fixed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

ROOT = Path(__file__).resolve().parents[1]
# Stands before a check's answer: packages print to the same stream.
MARK = '\x1eanswer:'

# Versions seen working together; import names are the same in both lines.
LINES: Dict[str, Dict[str, Tuple[str, str]]] = {
    'onedl': {
        'mmengine': ('onedl-mmengine', '0.10.12'),
        'mmcv': ('onedl-mmcv', '2.3.6'),
        'mmdet': ('onedl-mmdetection', '3.5.1'),
        'mmseg': ('onedl-mmsegmentation', '1.4.2'),
    },
    'OpenMMLab': {
        'mmengine': ('mmengine', '0.10.7'),
        'mmcv': ('mmcv', '2.1.0'),
        'mmdet': ('mmdet', '3.3.0'),
        'mmseg': ('mmsegmentation', '1.2.2'),
    },
}
HOSTS = tuple(LINES['onedl'])
# The least that the hosts of the default line accept.
OLDEST_MMENGINE = (0, 8, 3)
# The table in README.md says the same.
OLDEST = {'python': (3, 10), 'torch': (2, 1), 'numpy': (1, 26)}
# The same code without compiled operators, of equal versions: what
# requirements/openmmlab.txt installs.
LITE = {'mmcv': 'mmcv-lite'}
# Other distributions that fill the same import folder.
RIVALS = {'mmcv': (LITE['mmcv'], 'mmcv-full')}
# Import names that differ from what pip calls them.
PIP_NAMES = {
    'PIL': 'pillow',
    'cv2': 'opencv-python',
    'faster_coco_eval': 'faster-coco-eval',
    'opencv': 'opencv-python',
    'pkg_resources': '"setuptools<81"',
    'skimage': 'scikit-image',
    'torch': 'torch==2.13.0',
    'yaml': 'PyYAML',
}
# A build that pip keeps or makes on its own may come without operators.
BUILD = 'pip install --no-build-isolation --no-cache-dir'


class Problem(NamedTuple):
    what: str
    fix: str


class Row(NamedTuple):
    """One line of the report; ``state`` is ok, note or PROBLEM."""

    component: str
    version: str
    state: str
    remark: str
    problems: Tuple[Problem, ...] = ()


class Probe(NamedTuple):
    """A check: a function that imports what it needs and reports on it.

    It returns a dict that may hold ``version``, ``remark``, ``note`` (true
    where the remark deserves attention) and ``problems``, pairs of what is
    wrong and its fix.

    Attributes:
        needs: Checks whose failure explains one of this.
        use: For an optional package, what it is for.
        harmful: Whether an optional package does harm where it is broken.
        fix: What to do about an error that is not in ``KNOWN``, where
            installing the package again is not the answer.
    """

    run: Callable[[], dict]
    dists: Tuple[str, ...] = ()
    needs: Tuple[str, ...] = ()
    use: str = ''
    harmful: bool = False
    fix: str = ''


class Known(NamedTuple):
    """An error message that has a known cause and fix."""

    pattern: str
    what: str
    fix: str


KNOWN = (
    Known(
        r"No module named 'mmcv\._ext'",
        'mmcv is installed without its compiled operators, and nothing '
        'replaces them',
        '{rebuild_mmcv}',
    ),
    Known(
        r"No module named '(?P<module>\w+)'",
        '{module} is not installed',
        '{install}',
    ),
    Known(
        r"No module named '(?P<module>\w+)\.",
        'a part of {module} is missing',
        '{reinstall}',
    ),
    Known(
        r'operator torchvision::\w+ does not exist',
        'the compiled part of torchvision was made for another torch; the '
        'Runner imports torchvision where it is installed, and would stop. '
        'Nothing here needs it (else install the one made for this torch)',
        'pip uninstall -y torchvision',
    ),
    Known(
        r'MMCV==\S+ is used but incompatible',
        '{component} accepts only other versions of mmcv (mmdet 3.3.0 and '
        'mmsegmentation 1.2.2 want mmcv<2.2.0)',
        '{align}',
    ),
    Known(
        r'MMEngine==\S+ is used but incompatible',
        '{component} accepts only other versions of mmengine',
        '{align_mmengine}',
    ),
    Known(
        r'multiarray failed to import|_ARRAY_API not found'
        r'|dtype size changed|Numpy is not available'
        r'|compiled using NumPy 1',
        'a part of {component} was compiled for another major version of '
        'numpy (or install a {component} built for the numpy that is there)',
        'pip install "numpy<2"',
    ),
    Known(
        r'undefined symbol|DLL load failed|symbol not found',
        'the compiled part of {component} was made for other libraries, '
        'mostly another torch',
        '{reinstall}',
    ),
    Known(
        r'lib(GL|gthread|glib)\S*\.so',
        'this opencv needs system libraries of a desktop',
        'pip uninstall -y opencv-python && '
        'pip install --force-reinstall --no-deps opencv-python-headless',
    ),
    Known(
        r'No package metadata was found for',
        'a package is there without its metadata, so {component} cannot '
        'read its version',
        '{reinstall}',
    ),
)


def host_line() -> str:
    """Name the line most hosts are from; the default where none is."""
    counts = {
        line: sum(bool(installed_host(dist)) for dist, _ in hosts.values())
        for line, hosts in LINES.items()
    }
    return max(counts, key=lambda line: counts[line])


def installed(dist: str) -> str:
    """Read a distribution's version; empty where it is not installed."""
    # Slow to import, and most checks do without.
    from importlib import metadata

    try:
        return metadata.version(dist) or ''
    except Exception:  # metadata may itself be damaged
        return ''


def installed_host(dist: str) -> str:
    """Read a host's version, be it with compiled operators or without."""
    return installed(dist) or installed(LITE.get(dist, dist))


def install_command(name: str, command: str = 'pip install') -> str:
    """Write the command that installs a package by its import name."""
    if name == 'mmconvnext':
        return f'pip install --no-build-isolation -e {ROOT}'
    if name not in HOSTS:
        return f'{command} {PIP_NAMES.get(name, name)}'
    line = host_line()
    dist, version = LINES[line][name]
    if name != 'mmcv':
        return f'{command} {dist}=={version}'
    build = command.replace('pip install', BUILD)
    # Its setup.py uses pkg_resources, which setuptools has no longer.
    first = 'pip install "setuptools<81" && ' if line == 'OpenMMLab' else ''
    return f'{first}{build} {dist}=={version}'


def reinstall_command(name: str) -> str:
    return install_command(name, 'pip install --force-reinstall --no-deps')


def rebuild_command() -> str:
    """Write the command that compiles mmcv's operators."""
    lite = ''.join(
        f'pip uninstall -y {dist} && '
        for dist in LITE.values()
        if installed(dist)
    )
    return lite + reinstall_command('mmcv')


def align_command(component: str) -> str:
    """Bring a host and mmcv to one line: mmcv's, where that is tested."""
    for line in LINES.values():
        dist, version = line['mmcv']
        if component in line and installed_host(dist) == version:
            wanted, version = line[component]
            others = ' '.join(set(rivals(component)) - {wanted})
            return (
                f'pip uninstall -y {others} && '
                f'pip install --force-reinstall --no-deps {wanted}=={version}'
            )
    return reinstall_command('mmcv')


def rivals(host: str) -> Tuple[str, ...]:
    """Name the distributions that fill one host's import folder."""
    names = [line[host][0] for line in LINES.values()]
    return (*names, *RIVALS.get(host, ()))


def diagnose(component: str, error: str) -> Optional[Problem]:
    """Match an error with the known ones; None where it is not known."""
    for known in KNOWN:
        match = re.search(known.pattern, error)
        if match:
            # Operators are mmcv's, the scope is mmconvnext's.
            package = component.split()[0]
            module = match.groupdict().get('module') or package
            fields = dict(
                component=package,
                module=module,
                install=install_command(module),
                reinstall=reinstall_command(module),
                rebuild_mmcv=rebuild_command(),
                align=align_command(package),
                align_mmengine=reinstall_command('mmengine'),
            )
            return Problem(
                known.what.format(**fields), known.fix.format(**fields)
            )
    return None


def number(version: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r'\d+', version)[:3])


def probe_module(name: str) -> Callable[[], dict]:
    def run() -> dict:
        module = importlib.import_module(name)
        return dict(version=str(getattr(module, '__version__', '')))

    return run


def probe_python() -> dict:
    version = platform.python_version()
    remark = f'{sys.executable}, {platform.platform()}'
    problems = too_old('python', version, 'install a newer Python')
    return dict(version=version, remark=remark, problems=problems)


def too_old(name: str, version: str, fix: str) -> List[Tuple[str, str]]:
    """Find a version that is older than what this package supports."""
    numbers = tuple(int(n) for n in re.findall(r'\d+', version)[:2])
    if numbers >= OLDEST[name]:
        return []
    oldest = '.'.join(map(str, OLDEST[name]))
    return [(f'{name} {version} is older than {oldest}', fix)]


def probe_torch() -> dict:
    import torch

    built = torch.version.cuda or getattr(torch.version, 'hip', None)
    torch.ones(2, 2) @ torch.ones(2, 2)
    return dict(
        version=torch.__version__,
        remark=f'built for CUDA {built}' if built else 'built for CPU only',
        problems=too_old('torch', torch.__version__, install_command('torch')),
    )


def probe_gpu() -> dict:
    import torch

    if torch.cuda.is_available():
        half = 'bf16' if torch.cuda.is_bf16_supported() else 'no bf16'
        torch.ones(1, device='cuda').add_(1).item()
        count = torch.cuda.device_count()
        return dict(
            version=f'{count} visible',
            remark=f'{torch.cuda.get_device_name(0)}, {half}',
        )
    if not shutil.which('nvidia-smi'):
        return dict(version='none', remark='runs on the CPU')
    built = torch.version.cuda
    cause = (
        f'CUDA {built} may need a newer driver'
        if built
        else ('this torch is built without CUDA')
    )
    return dict(
        version='none', note=True, remark=f'nvidia-smi is there, but {cause}'
    )


def probe_numpy() -> dict:
    import numpy
    import torch

    torch.from_numpy(numpy.ones(2)).numpy()
    version = numpy.__version__
    return dict(
        version=version,
        remark='torch can share arrays',
        problems=too_old('numpy', version, 'pip install "numpy>=1.26"'),
    )


def probe_opencv() -> dict:
    import cv2
    import numpy

    cv2.resize(numpy.ones((4, 4, 3), numpy.uint8), (2, 2))
    names = [
        name
        for name in ('opencv-python', 'opencv-python-headless')
        if installed(name)
    ]
    if len(names) < 2:
        return dict(version=cv2.__version__)
    return dict(version=cv2.__version__, remark=f'from {" and ".join(names)}')


def probe_coco() -> dict:
    import numpy
    from pycocotools import mask

    mask.encode(numpy.ones((2, 2), numpy.uint8, order='F'))
    return {}


def probe_mmengine() -> dict:
    import mmengine
    import mmengine.runner  # noqa: F401

    version = mmengine.__version__
    if number(version) >= OLDEST_MMENGINE:
        return dict(version=version)
    oldest = '.'.join(map(str, OLDEST_MMENGINE))
    what = f'mmengine {version} is too old, {oldest} or later is needed'
    return dict(
        version=version, problems=[(what, install_command('mmengine'))]
    )


def serve_operators() -> str:
    """Load mmcv's operators or put our stand-in there; say which it is.

    Raises:
        ImportError: If there are neither, with what mmcv said.
    """
    importlib.import_module('mmcv')
    try:
        importlib.import_module('mmcv._ext')
        return 'compiled'
    except ImportError as error:
        missing = error
    try:
        mmcv_ops = importlib.import_module('mmconvnext.mmcv_ops')
    except ImportError:
        raise missing from None
    mmcv_ops.install()
    summary = mmcv_ops.summary()
    return f'mmconvnext replaces them ({missing}): {summary}'


def probe_operators() -> dict:
    import mmcv
    import torch

    served = serve_operators()
    from mmcv.ops import nms, roi_align

    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [8, 8, 12, 12]])
    kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)[1]
    assert kept.tolist() == [0, 2], f'nms kept boxes {kept.tolist()}'
    rois = torch.tensor([[0.0, 0, 0, 4, 4]])
    pooled = roi_align(torch.ones(1, 1, 8, 8), rois, 2)
    assert torch.allclose(pooled, torch.ones(1, 1, 2, 2)), 'roi_align is off'
    return dict(
        version=mmcv.__version__, remark=served, note=served != 'compiled'
    )


def probe_host(package: str, model: str) -> Callable[[], dict]:
    def run() -> dict:
        module = importlib.import_module(package)
        with contextlib.suppress(ImportError):
            serve_operators()
        importlib.import_module(f'{package}.models')
        importlib.import_module(f'{package}.datasets')
        from mmengine.registry import MODELS

        assert MODELS.get(f'{package}.{model}'), f'{model} does not resolve'
        return dict(version=module.__version__)

    return run


def probe_package() -> dict:
    module = importlib.import_module('mmconvnext')
    remark = str(Path(module.__file__).parent)
    if installed('mmconvnext'):
        return dict(version=module.__version__, remark=remark)
    return dict(
        version=module.__version__,
        note=True,
        remark=f'not installed, found at {remark}; to have it everywhere: '
        + install_command('mmconvnext'),
    )


def probe_scope() -> dict:
    from mmengine.registry import MODELS

    found = MODELS.get('mmconvnext.ConvNeXtV2')
    if found is None:
        # The registry hides why the import failed.
        importlib.import_module('mmconvnext.registry')
    assert found, "'mmconvnext.ConvNeXtV2' is in no registry"
    return dict(remark=f'{found.__name__} resolves with no custom_imports')


STACK = ('torch', 'numpy', 'opencv', 'mmengine')
HOST_NEEDS = (*STACK, 'mmcv', 'mmcv operators', 'pycocotools', 'torchvision')
PROBES: Dict[str, Probe] = {
    'python': Probe(probe_python),
    'torch': Probe(probe_torch, ('torch',)),
    'gpu': Probe(
        probe_gpu, needs=('torch',), fix='nvidia-smi  # does the driver work?'
    ),
    'numpy': Probe(probe_numpy, ('numpy',), ('torch',)),
    'opencv': Probe(
        probe_opencv, ('opencv-python', 'opencv-python-headless'), ('numpy',)
    ),
    'mmengine': Probe(probe_mmengine, rivals('mmengine'), STACK[:3]),
    'mmcv': Probe(probe_module('mmcv'), rivals('mmcv'), STACK),
    'mmcv operators': Probe(probe_operators, (), (*STACK, 'mmcv')),
    'mmdet': Probe(
        probe_host('mmdet', 'MaskRCNN'), rivals('mmdet'), HOST_NEEDS
    ),
    'mmseg': Probe(
        probe_host('mmseg', 'EncoderDecoder'), rivals('mmseg'), HOST_NEEDS
    ),
    'mmconvnext': Probe(probe_package, ('mmconvnext',), STACK),
    'mmconvnext scope': Probe(probe_scope, (), (*STACK, 'mmconvnext')),
    'pycocotools': Probe(probe_coco, ('pycocotools',), ('numpy',)),
    'torchvision': Probe(
        probe_module('torchvision'),
        ('torchvision',),
        ('torch',),
        'tests against it',
        harmful=True,
    ),
}
EXTRAS = {
    'timm': 'tests and benchmarks against it',
    'transformers': 'tests against it',
    'safetensors': 'checkpoints in that format',
    'triton': 'fused kernels on GPU',
    'faster_coco_eval': 'quicker evaluation',
    'tensorboard': 'training curves',
}
PROBES.update(
    {
        name: Probe(probe_module(name), (PIP_NAMES.get(name, name),), use=use)
        for name, use in EXTRAS.items()
    }
)


def bases(path: Path) -> Iterator[Path]:
    """Yield the files a config is based on, directly or not.

    Bases of other packages (``mmdet::...``) are left out.
    """
    if path.suffix != '.py' or not path.is_file():
        return
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        targets = getattr(node, 'targets', [])
        if '_base_' in [getattr(target, 'id', '') for target in targets]:
            names = ast.literal_eval(node.value)
            for name in [names] if isinstance(names, str) else names:
                yield path.parent / name
                yield from bases(path.parent / name)


def imports_of(cfg: dict) -> List[str]:
    names = (cfg.get('custom_imports') or {}).get('imports') or []
    return [names] if isinstance(names, str) else list(names)


def lost_imports(path: Path, cfg: dict) -> Iterator[Problem]:
    """Find imports of base files that the config replaced by its own.

    mmengine merges dicts, but a list replaces the list of the base.
    """
    from mmengine.config import Config

    final = imports_of(cfg)
    known = list(final)
    for base in filter(Path.is_file, bases(path)):
        loaded = Config.fromfile(base, import_custom_modules=False)
        lost = [name for name in imports_of(loaded) if name not in known]
        known = [*lost, *known]
        if lost:
            yield Problem(
                f'custom_imports replaces that of {base.name}: {lost} will '
                f'not be imported, only {final}',
                f'edit {path}: custom_imports = dict(imports={known})',
            )


def failed_imports(cfg: dict) -> Iterator[Problem]:
    for name in imports_of(cfg):
        try:
            importlib.import_module(name)
        except Exception as error:
            yield Problem(
                f'custom_imports: {name} does not import ({error})',
                'PYTHONPATH=FOLDER_OF_THE_MODULE:$PYTHONPATH before the '
                f'command, or {install_command(name.split(".")[0])}',
            )


def dicts_in(node: Any) -> Iterator[dict]:
    if isinstance(node, dict):
        yield node
    if isinstance(node, (dict, list, tuple)):
        for child in node.values() if isinstance(node, dict) else node:
            yield from dicts_in(child)


def unknown_types(cfg: dict) -> Iterator[Problem]:
    """Find types with a scope, as in mmdet.ResNet, that no registry knows."""
    # mmengine's own types are registered by what training imports.
    from mmengine import registry, runner  # noqa: F401

    registries = [
        value
        for value in vars(registry).values()
        if isinstance(value, registry.Registry)
    ]

    def resolves(name: str) -> bool:
        for each in registries:
            with contextlib.suppress(Exception):
                if each.get(name) is not None:
                    return True
        return False

    names = [node.get('type') for node in dicts_in(cfg)]
    scoped = {n for n in names if isinstance(n, str) and '.' in n}
    for name in sorted(scoped):
        if not resolves(name):
            scope = name.split('.')[0]
            yield Problem(
                f'type {name!r} is in no registry: {scope} is not '
                f'installed, does not import, or has no such name',
                f'python -c "import {scope}.registry"  # shows the cause; '
                f'if it is missing: {install_command(scope)}',
            )


def missing_data(cfg: dict) -> Iterator[Problem]:
    """Ask what the other tools ask of the data before they start."""
    try:
        cli = importlib.import_module('mmconvnext.cli')
    except Exception:
        return  # why it does not import is reported by itself
    try:
        cli.check_data(cfg, cli.LOADERS)
    except (FileNotFoundError, ValueError) as error:
        faults = getattr(error, 'findings', [])
        yield from (Problem(str(each), each.fix) for each in faults)
        if faults:
            return
        lines = [line for line in str(error).splitlines() if line.strip()]
        lacking = [line.split()[0] for line in lines if 'MISSING' in line]
        yield Problem(f'{lines[0]} {" ".join(lacking)}', lines[-1])
    else:
        yield from wrong_data(cfg)


def wrong_data(cfg: dict) -> Iterator[Problem]:
    """Ask what train.py asks of the labels."""
    if cfg.get('data_check') == 'off':
        return
    try:
        data = importlib.import_module('mmconvnext.data')
    except Exception:
        return  # as above
    for each in data.check(cfg):
        if each.severity != 'note':
            yield Problem(
                f'{each.severity} in {each.file}: {each.found}; expected '
                f'{each.expected}',
                each.fix,
            )


def probe_config(name: str) -> Callable[[], dict]:
    def run() -> dict:
        from mmengine.config import Config

        path = Path(name)
        if not path.is_file():
            what = f'config {name} does not exist'
            return dict(problems=[(what, f'ls {path.parent}')])
        try:
            cfg = Config.fromfile(path, import_custom_modules=False)
        except Exception as error:
            what = f'{name} does not load: {type(error).__name__}: {error}'
            return dict(problems=[(what, f'edit {name}')])
        with contextlib.suppress(ImportError):
            serve_operators()
        checks = (failed_imports, unknown_types, missing_data)
        problems = list(lost_imports(path, cfg))
        settings = dict(cfg.items())
        problems += [each for check in checks for each in check(settings)]
        return dict(remark=name, problems=problems)

    return run


def answer(run: Callable[[], dict]) -> None:
    """Run one check in this process and print what it found as JSON."""
    # As for the other tools, and last, where it shadows nothing.
    sys.path.append(str(ROOT))
    try:
        found = run()
    except BaseException as error:
        text = ' '.join(str(error).split())
        found = dict(error=f'{type(error).__name__}: {text}')
    sys.stdout.flush()
    # A package may have replaced the stream.
    os.write(1, f'{MARK}{json.dumps(found)}'.encode())
    # A damaged library may crash when the interpreter ends.
    os._exit(0)


def ask(component: str, arguments: Sequence[str], timeout: float) -> dict:
    """Run one check in its own process; whatever happens is an answer."""
    command = [sys.executable, __file__, '--probe', component, *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return dict(error=f'no answer in {timeout:g} s')
    output = done.stdout.decode(errors='replace')
    if MARK in output:
        return json.loads(output.rsplit(MARK, 1)[1])
    lines = done.stderr.decode(errors='replace').split('\n')
    last = next((line for line in reversed(lines) if line.strip()), '')
    return dict(error=f'its process {ending(done.returncode)} {last}'.strip())


def ending(code: int) -> str:
    if code >= 0:
        return f'ended with exit code {code}'
    try:
        return f'was killed by {signal.Signals(-code).name}'
    except ValueError:
        return f'was killed by signal {-code}'


def is_absent(component: str, found: dict) -> bool:
    error = found.get('error', '')
    return error.endswith(f"No module named '{component}'")


def has_failed(component: str, probe: Probe, found: dict) -> bool:
    if is_absent(component, found) and probe.use:
        return False
    return bool(found.get('error') or found.get('problems'))


def examine(
    component: str, probe: Probe, found: dict, failed: Sequence[str]
) -> Row:
    """Turn what a check found into a line of the report.

    Args:
        failed: The checks that failed.
    """
    version = found.get('version') or next(
        filter(None, map(installed, probe.dists)), '-'
    )
    error = found.get('error', '')
    remark = found.get('remark') or error
    if component in failed and (probe.harmful or not probe.use):
        problems = [Problem(*pair) for pair in found.get('problems', ())]
        if error:
            problems = explain(component, probe, error, failed)
        row = Row(component, version, 'PROBLEM', remark, tuple(problems))
    elif error:
        absent = is_absent(component, found)
        remark = f'{"not installed" if absent else error} ({probe.use})'
        row = Row(component, version, 'note', remark)
    else:
        state = 'note' if found.get('note') else 'ok'
        row = Row(component, version, state, remark)
    return row


def explain(
    component: str, probe: Probe, error: str, failed: Sequence[str]
) -> List[Problem]:
    """Say what to do about an error; nothing if its cause is named already."""
    if component in HOSTS and twice(component):
        return []
    known = diagnose(component, error)
    if known:
        return [known]
    if set(probe.needs) & set(failed):
        return []
    fix = probe.fix or reinstall_command(component.split()[0])
    return [Problem(f'{component} does not work: {error}', fix)]


def twice(host: str) -> List[str]:
    """Name a host's distributions, where more than one is installed."""
    found = [name for name in rivals(host) if installed(name)]
    return found if len(found) > 1 else []


def examine_lines() -> Row:
    """Check that each host is installed once, and from one line."""
    problems = [
        Problem(
            f'{" and ".join(twice(host))} are both installed into the folder '
            f'{host}/ and overwrite each other',
            f'pip uninstall -y {" ".join(twice(host))} && '
            + install_command(host),
        )
        for host in HOSTS
        if twice(host)
    ]
    line = host_line()
    others = [
        f'{dist} {version} (here {installed_host(dist) or "none"})'
        for dist, version in LINES[line].values()
        if installed_host(dist) != version
    ]
    if problems:
        remark = f'installed twice: {", ".join(filter(twice, HOSTS))}'
        return Row('host line', '-', 'PROBLEM', remark, tuple(problems))
    if others:
        return Row('host line', line, 'note', f'tested: {", ".join(others)}')
    return Row('host line', line, 'ok', 'versions tested together')


def gather(config: Optional[str], timeout: float) -> List[Row]:
    """Run all checks, some at a time, and keep the table's order."""
    probes = dict(PROBES)
    arguments = ['--config', config] if config else []
    if config:
        probes['config'] = Probe(
            probe_config(config), needs=HOSTS, fix=f'edit {config}'
        )
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        answers = pool.map(lambda name: ask(name, arguments, timeout), probes)
        found = dict(zip(probes, answers))
    failed = [n for n in probes if has_failed(n, probes[n], found[n])]
    rows = [examine(n, probes[n], found[n], failed) for n in probes]
    place = list(probes).index('mmdet')
    return [*rows[:place], examine_lines(), *rows[place:]]


def shorten(text: str, limit: int = 100) -> str:
    text = ' '.join(text.split())
    return text if len(text) <= limit else f'{text[: limit - 3]}...'


def list_problems(rows: List[Row]) -> List[dict]:
    """Collect the problems; those that one command fixes are one."""
    collected: Dict[str, dict] = {}
    for row in rows:
        for what, fix in row.problems:
            entry = dict(components=[], what=what, fix=fix)
            entry = collected.setdefault(fix, entry)
            if row.component not in entry['components']:
                entry['components'].append(row.component)
    return list(collected.values())


def to_text(rows: List[Row]) -> str:
    head = ('component', 'version', 'state', 'remark')
    cells = [head, *((*row[:3], shorten(row.remark)) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(3)]
    lines = [
        '  '.join([*map(str.ljust, line[:3], widths), line[3]]).rstrip()
        for line in cells
    ]
    problems = list_problems(rows)
    if problems:
        lines += ['', 'Problems']
    for i, problem in enumerate(problems, 1):
        names = ', '.join(problem['components'])
        lines.append(f'{i}. {names}: {problem["what"]}')
        lines.append(f'   fix: {problem["fix"]}')
    count = len(problems)
    closing = (
        f'{count} problem{"s" * (count > 1)} to fix; begin with the first.'
    )
    lines += ['', closing if count else 'All that is needed works.']
    return '\n'.join(lines)


def to_json(rows: List[Row]) -> str:
    problems = list_problems(rows)
    table = [dict(zip(Row._fields[:4], row)) for row in rows]
    return json.dumps(
        dict(ok=not problems, rows=table, problems=problems), indent=2
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--config', help='check this config too')
    parser.add_argument('--json', action='store_true')
    parser.add_argument(
        '--timeout', type=float, default=180, help='seconds for one check'
    )
    parser.add_argument('--probe', help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.probe == 'config':
        answer(probe_config(args.config))
    elif args.probe:
        answer(PROBES[args.probe].run)
    rows = gather(args.config, args.timeout)
    print((to_json if args.json else to_text)(rows))
    return 1 if list_problems(rows) else 0


if __name__ == '__main__':
    sys.exit(main())
