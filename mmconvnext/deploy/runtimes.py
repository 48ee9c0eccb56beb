"""The programs that run a file: one class each, one table.

ONNX Runtime and OpenVINO are optional installs.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, Mapping, Optional, Protocol, Sequence, Type

import numpy as np

Arrays = Dict[str, np.ndarray]
# Name of a device to the provider of ONNX Runtime.
PROVIDERS = {
    'cpu': 'CPUExecutionProvider',
    'cuda': 'CUDAExecutionProvider',
    'tensorrt': 'TensorrtExecutionProvider',
}


class Session(Protocol):
    """A loaded file.

    Attributes:
        metadata: entries of the file.
    """

    metadata: Mapping[str, str]

    def run(self, image: np.ndarray, names: Sequence[str]) -> Arrays:
        """Compute outputs of ``image``, ``(N, 3, H, W)`` uint8, BGR."""


class OnnxRuntime:
    """A file in ONNX Runtime.

    Args:
        file: ONNX.
        device: a name in :data:`PROVIDERS`.
        precision: None, what the file has; nothing else is possible.
        threads: that compute; None leaves it to the library.
    """

    package = 'onnxruntime'
    devices = tuple(PROVIDERS)
    precisions: Sequence[str] = ()

    def __init__(
        self,
        file: Path,
        device: str = 'cpu',
        precision: Optional[str] = None,
        threads: Optional[int] = None,
    ) -> None:
        library = _library(self.package)
        provider = PROVIDERS[device]
        if provider not in library.get_available_providers():
            raise ValueError(
                f'device {device!r}: this onnxruntime has no {provider}, only '
                f'{", ".join(library.get_available_providers())}; '
                f'pip install onnxruntime-gpu has CUDA and TensorRT'
            )
        options = library.SessionOptions()
        options.log_severity_level = 3  # no warnings about shapes
        threads = threads or _threads()
        if threads:
            options.intra_op_num_threads = threads
        self._session = library.InferenceSession(
            str(file), options, providers=[provider]
        )
        used = self._session.get_providers()
        if used[0] != provider:
            # The library goes on with the CPU where a GPU cannot be used.
            raise ValueError(f'device {device!r} cannot be used, only {used}')
        meta = self._session.get_modelmeta()
        self.metadata = dict(meta.custom_metadata_map)

    def run(self, image: np.ndarray, names: Sequence[str]) -> Arrays:
        found = self._session.run(list(names), {'image': image})
        return dict(zip(names, found))


class OpenVino:
    """A file in OpenVINO.

    Args:
        file, threads: as for :class:`OnnxRuntime`.
        device: cpu or gpu (Intel's).
        precision: fp32 (None, too) or bf16, in which it computes. Set in any
            case: by itself the library takes bf16 where the CPU has it.
    """

    package = 'openvino'
    devices = ('cpu', 'gpu')
    precisions = ('fp32', 'bf16')

    def __init__(
        self,
        file: Path,
        device: str = 'cpu',
        precision: Optional[str] = None,
        threads: Optional[int] = None,
    ) -> None:
        library = _library(self.package)
        hint = {'fp32': 'f32', 'bf16': 'bf16'}[precision or 'fp32']
        options = {'INFERENCE_PRECISION_HINT': hint}
        threads = threads or _threads()
        if threads and device == 'cpu':
            options['INFERENCE_NUM_THREADS'] = str(threads)
        core = library.Core()
        model = core.read_model(str(file))
        self.metadata = _entries(model)
        self._model = core.compile_model(model, device.upper(), options)

    def run(self, image: np.ndarray, names: Sequence[str]) -> Arrays:
        found = self._model({'image': image})
        return {name: found[self._model.output(name)] for name in names}


RUNTIMES: Dict[str, Type[Session]] = {
    'onnxruntime': OnnxRuntime,
    'openvino': OpenVino,
}


def open_session(
    file: Path,
    runtime: str = 'onnxruntime',
    device: str = 'cpu',
    precision: Optional[str] = None,
    threads: Optional[int] = None,
) -> Session:
    """Load a file.

    Args:
        file: ONNX.
        runtime: a name in :data:`RUNTIMES`.
        device, precision, threads: of the runtime.

    Raises:
        FileNotFoundError: without the file.
        ValueError: for a runtime, device or precision that is not there.
    """
    check(runtime, device, precision)
    if not file.is_file():
        raise FileNotFoundError(f'model not found: {file}')
    return RUNTIMES[runtime](file, device, precision, threads)


def check(
    runtime: str, device: str = 'cpu', precision: Optional[str] = None
) -> None:
    """Refuse a runtime, device or precision that does not exist.

    Raises:
        ValueError: with what there is.
    """
    if runtime not in RUNTIMES:
        raise ValueError(
            f'runtime must be one of {", ".join(RUNTIMES)}, got {runtime!r}'
        )
    kind = RUNTIMES[runtime]
    if device not in kind.devices:
        raise ValueError(
            f'{runtime} runs on {", ".join(kind.devices)}, got {device!r}'
        )
    if precision is not None and precision not in kind.precisions:
        raise ValueError(_no_precision(runtime, precision))
    _library(kind.package)


def _no_precision(runtime: str, precision: str) -> str:
    known = [
        f'{name}: {", ".join(kind.precisions)}'
        for name, kind in RUNTIMES.items()
        if kind.precisions
    ]
    return (
        f'precision {precision!r} cannot be chosen for {runtime} '
        f'({"; ".join(known)}); fp16 and int8 are properties of the file: '
        f'tools/export.py --precision fp16, tools/quantize.py'
    )


def _library(name: str) -> ModuleType:
    """Import an optional package.

    Raises:
        ValueError: when it is not installed.
    """
    if find_spec(name) is None:
        raise ValueError(
            f'{name} is not installed: pip install {name} '
            f'(requirements/deploy.txt)'
        )
    return import_module(name)


def _threads() -> Optional[int]:
    """As many threads as PyTorch would take, where a user limits them."""
    given = os.environ.get('OMP_NUM_THREADS', '')
    return int(given) if given.isdigit() else None


def _entries(model: Any) -> Dict[str, str]:
    """The metadata that OpenVINO keeps of an ONNX file.

    Its frontend puts each entry below ``framework``.
    """
    if not model.has_rt_info(['framework']):
        return {}
    found = model.get_rt_info(['framework']).astype(dict)
    return {key: value.astype(str) for key, value in found.items()}
