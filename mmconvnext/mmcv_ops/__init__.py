"""Replaces mmcv's compiled operators where they are absent.

mmcv is often installed without its compiled module ``mmcv._ext``, and then
no detector can be imported. :func:`install` puts a module of that name into
``sys.modules``. It serves the operators that the detectors and segmentors of
the hosts need: by torchvision's compiled operators where torchvision works,
in plain PyTorch otherwise. Every other operator, those for rotated
boxes and lanes among them, raises an error that names it when it is called.
A compiled module that can be imported is left alone.

    >>> from mmconvnext import mmcv_ops
    >>> mmcv_ops.install()  # before mmdet or mmseg is imported
    >>> mmcv_ops.status()['source']
    'stand-in'

The functions of :data:`OPERATORS` have the signatures of the compiled ones:
results are written into the tensors that the caller allocated. What they
compute follows mmcv's C++ sources (Apache-2.0); how they do it is our own.
Nearly all are one primitive, the weighted sum of a few rows of a table
(``embedding_bag``): pixels are the rows, bilinear taps the weights.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import re
import sys
import types
from collections import Counter
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional

import torch
from mmengine.logging import print_log
from torch import Tensor

from .attention import (
    ms_deform_attn_backward,
    ms_deform_attn_forward,
    psamask_backward,
    psamask_forward,
)
from .boxes import nms, nms_match, softnms
from .carafe import (
    carafe_backward,
    carafe_forward,
    carafe_naive_backward,
    carafe_naive_forward,
)
from .deform import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    masked_col2im_forward,
    masked_im2col_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
    torchvision_conv,
)
from .deform_pool import deform_roi_pool_backward, deform_roi_pool_forward
from .losses import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from .roi import (
    roi_align_backward,
    roi_align_forward,
    roi_pool_backward,
    roi_pool_forward,
)
from .sampling import in_full

NAME = 'mmcv._ext'
FIX = (
    'Two ways to get it: build mmcv with operators (pip install '
    '--no-build-isolation --no-cache-dir onedl-mmcv, in an environment '
    'that has torch, setuptools, wheel and ninja), or install a wheel of '
    'mmcv that has them and matches this torch.'
)


def get_compiler_version() -> str:
    """What mmcv's environment report shows as its compiler."""
    return 'none (operators by mmconvnext.mmcv_ops)'


def get_compiling_cuda_version() -> str:
    """What mmcv's environment report shows as its CUDA compiler."""
    return 'not available'


OPERATORS: Dict[str, Callable] = {
    fn.__name__: fn
    for fn in (
        nms,
        softnms,
        nms_match,
        roi_align_forward,
        roi_align_backward,
        roi_pool_forward,
        roi_pool_backward,
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
        softmax_focal_loss_forward,
        softmax_focal_loss_backward,
        deform_conv_forward,
        deform_conv_backward_input,
        deform_conv_backward_parameters,
        modulated_deform_conv_forward,
        modulated_deform_conv_backward,
        ms_deform_attn_forward,
        ms_deform_attn_backward,
        masked_im2col_forward,
        masked_col2im_forward,
        carafe_forward,
        carafe_backward,
        carafe_naive_forward,
        carafe_naive_backward,
        psamask_forward,
        psamask_backward,
        deform_roi_pool_forward,
        deform_roi_pool_backward,
        get_compiler_version,
        get_compiling_cuda_version,
    )
}


def _torchvision_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int
) -> Tensor:
    if offset:  # torchvision has no such convention
        return nms(boxes, scores, iou_threshold, offset)
    return torch.ops.torchvision.nms(
        in_full(boxes), in_full(scores), iou_threshold
    )


# RoI pooling is missing because torchvision's rounds boxes to pixels and
# mmcv's does not; RoIAlign because its CPU code is the slow loop that mmcv
# compiles.
TORCHVISION: Dict[str, Callable] = {
    'nms': _torchvision_nms,
    **{
        name: partial(OPERATORS[name], conv=torchvision_conv)
        for name in OPERATORS
        if 'deform_conv' in name
    },
}


def _torchvision_fault() -> str:
    """Why torchvision's operators cannot be used, or ''."""
    try:
        importlib.import_module('torchvision')
        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    # A torchvision built for another torch fails in many ways.
    except Exception as fault:
        return f'{type(fault).__name__}: {fault}'
    return ''


class StandIn(types.ModuleType):
    """The module ``mmcv._ext``; calling a missing operator raises an error."""

    def __init__(self) -> None:
        super().__init__(NAME, 'Operators of mmcv by mmconvnext.mmcv_ops.')
        self.__spec__ = importlib.machinery.ModuleSpec(
            NAME, _Loader(), origin=__file__
        )
        self.torchvision_fault = _torchvision_fault()
        served = {} if self.torchvision_fault else TORCHVISION
        self.sources = {
            name: 'torchvision' if name in served else 'pytorch'
            for name in OPERATORS
        }
        vars(self).update(OPERATORS, **served)

    def __getattr__(self, name: str) -> Callable:
        if name.startswith('_'):
            raise AttributeError(f'module {NAME!r} has no attribute {name!r}')

        def unavailable(*args, **kwargs) -> None:
            raise RuntimeError(
                f'the operator {name!r} of mmcv is not available: this mmcv '
                f'has no compiled operators, and mmconvnext.mmcv_ops '
                f'replaces only {", ".join(OPERATORS)}. {FIX}'
            )

        return unavailable


class _Loader(importlib.abc.Loader):
    """Lets ``find_spec`` and ``pkgutil`` see a module that has no file."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> StandIn:
        return StandIn()

    def exec_module(self, module: types.ModuleType) -> None:
        """Does nothing: the module is complete when it is made."""


def _compiled() -> Optional[types.ModuleType]:
    """The compiled module, or None where there is none or it is broken."""
    try:
        module = importlib.import_module(NAME)
    except ModuleNotFoundError as fault:
        if fault.name not in (NAME, 'mmcv'):
            raise
        return None
    except (ImportError, OSError) as fault:
        print_log(
            f'{NAME} is installed but cannot be loaded ({fault})',
            'current',
            logging.WARNING,
        )
        return None
    return None if isinstance(module, StandIn) else module


def _users() -> List[types.ModuleType]:
    """Modules of mmcv.ops that already hold the module of operators."""
    return [
        module
        for name, module in list(sys.modules.items())
        if name.startswith('mmcv.ops.') and 'ext_module' in vars(module)
    ]


def _put(module: types.ModuleType) -> None:
    sys.modules[NAME] = module
    importlib.import_module('mmcv')._ext = module
    for user in _users():
        user.ext_module = module


def install(force: bool = False) -> Dict:
    """Makes ``mmcv._ext`` importable; call it before mmdet or mmseg.

    Args:
        force: replace the compiled module too, for tests and comparisons.

    Returns:
        :func:`status`.

    Raises:
        ImportError: if mmcv itself is not installed.
        RuntimeError: if an import of mmcv.ops has already failed in this
            process and parts of it are still loaded.
    """
    if importlib.util.find_spec('mmcv') is None:
        raise ImportError('mmcv is not installed: pip install onedl-mmcv')
    _check_order()
    if isinstance(sys.modules.get(NAME), StandIn):
        return status()
    if force or _compiled() is None:
        _put(StandIn())
    print_log(f'mmcv operators: {summary()}', 'current')
    return status()


def summary() -> str:
    """:func:`status` in one line."""
    report = status()
    counts = Counter(report['operators'].values())
    parts = [f'{count} {source}' for source, count in counts.items()]
    return f'{report["source"]} ({", ".join(parts)})'


def _check_order() -> None:
    """Raises an error if an import of mmcv.ops failed half-way.

    Its modules have registered their classes; a second import of them would
    fail with "already registered", far from the cause.
    """
    late = [
        name
        for name in sys.modules
        if name.startswith(('mmcv.ops.', 'mmdet.models.', 'mmseg.models.'))
    ]
    if late and 'mmcv.ops' not in sys.modules:
        raise RuntimeError(
            f'{late[0]} was imported before mmcv.ops could be: call '
            'mmconvnext.mmcv_ops.install() first, in a fresh process'
        )


@contextmanager
def standing_in() -> Iterator[StandIn]:
    """Uses this replacement inside the block, whatever is installed."""
    before = sys.modules.get(NAME) or importlib.import_module(NAME)
    module = before if isinstance(before, StandIn) else StandIn()
    _put(module)
    try:
        yield module
    finally:
        _put(before)


def status() -> Dict:
    """Which implementation serves each operator that mmcv asks for.

    Returns:
        ``source``: 'compiled', 'stand-in' or 'missing'; ``operators``: name
        to 'compiled', 'torchvision', 'pytorch' or 'unavailable';
        ``torchvision``: 'used' or why it is not.
    """
    names = _names()
    module = sys.modules.get(NAME)
    if isinstance(module, StandIn):
        return dict(
            source='stand-in',
            operators={
                name: module.sources.get(name, 'unavailable') for name in names
            },
            torchvision=module.torchvision_fault or 'used',
        )
    module = _compiled() if names else None
    return dict(
        source='compiled' if module else 'missing',
        operators={
            name: 'compiled' if hasattr(module, name) else 'unavailable'
            for name in names
        },
        torchvision='not asked',
    )


def _names() -> List[str]:
    """Operators that the Python files of mmcv.ops call."""
    spec = importlib.util.find_spec('mmcv')
    if spec is None:
        return []
    files = Path(spec.origin).parent.glob('ops/*.py')
    text = ' '.join(file.read_text(encoding='utf-8') for file in files)
    return sorted(set(re.findall(r'\bext_module\.([a-z]\w*)', text)))
