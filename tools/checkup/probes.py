"""What is installed: one function for each component."""

from __future__ import annotations

import contextlib
import importlib
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import Callable, List, Tuple

from .fixes import (
    OLDEST,
    OLDEST_MMENGINE,
    install_command,
    installed,
)


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
