"""Let mmengine load through this package: ``init_cfg`` and every file."""

from __future__ import annotations

from typing import Any, Dict, Mapping

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.runner import checkpoint as engine
from torch import nn

from ..configs import bare_type
from . import fit, weights_io
from .load import load
from .sources import CheckpointError, Source

LOAD_OPTIONS = ('ema', 'prefix', 'final_norm', 'sha256', 'map_location')


class Initializer:
    """What ``init_cfg=dict(type='Pretrained', ...)`` means for a backbone.

    Takes the arguments of :func:`load`; mmengine calls it with the module.
    """

    def __init__(self, checkpoint: Source, **kwargs: Any) -> None:
        unknown = sorted(set(kwargs) - set(LOAD_OPTIONS))
        if unknown:
            raise CheckpointError(
                f'init_cfg of type Pretrained does not take {unknown}; it '
                f'takes checkpoint, {", ".join(LOAD_OPTIONS)}'
            )
        self.checkpoint, self.kwargs = checkpoint, kwargs

    def __call__(self, module: nn.Module) -> None:
        load(module, self.checkpoint, **self.kwargs)
        if hasattr(module, '_params_init_info'):
            info = f'Pretrained: load from {self.checkpoint}'
            update_init_info(module, init_info=info)


def resolve_init_cfg(init_cfg: Any) -> Any:
    """Replace mmengine's Pretrained, which is not strict, by ours, last.

    mmengine moves only its own type to the end; weights from a file have to
    overwrite the values of other entries.
    """
    if not init_cfg:
        return init_cfg
    cfgs = [init_cfg] if isinstance(init_cfg, Mapping) else list(init_cfg)
    names = ('Pretrained', PretrainedInit.__name__)
    others = [cfg for cfg in cfgs if bare_type(cfg) not in names]
    ours = [
        {**cfg, 'type': Initializer} for cfg in cfgs if bare_type(cfg) in names
    ]
    return others + ours


class PublishedHook(Hook):
    """Lets a runner load published classifiers by their own names.

    Register it before hooks that read the file as well, as EMAHook does.
    """

    def after_load_checkpoint(self, runner: Any, checkpoint: Dict) -> None:
        """Replace what a file holds by what the model takes, in place."""
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        taken = fit.native(model, checkpoint, 'load_from')
        if taken is not checkpoint:
            checkpoint.clear()
            checkpoint.update(taken)


def _read_for_engine(filename: str, map_location: Any = None, **_: Any) -> Any:
    return weights_io.read(filename, map_location=map_location)


def _read_named(filename: str, map_location: Any = None) -> Any:
    """Read ``open-mmlab://NAME``; a user's own list may name local files."""
    name = filename.partition('://')[2]
    name = engine.get_deprecated_model_names().get(name, name)
    found = engine.get_external_models().get(name)
    if found is None:
        raise CheckpointError(f'{filename}: mmengine knows no such model')
    if not found.startswith(('http://', 'https://')):
        raise CheckpointError(
            f'{filename} is the file {found} of a list of your own; give its '
            'whole path instead'
        )
    return weights_io.read(found, map_location=map_location)


def _refuse_for_engine(filename: str, map_location: Any = None) -> Any:
    raise CheckpointError(
        f'{filename} is not read: fetch it and give its path, or use '
        f'{", ".join(weights_io.schemes())}'
    )


def install_safe_loading() -> None:
    """Let mmengine load every file through :func:`weights_io.read`.

    That is ``load_from``, resuming, the checkpoint of a test and every
    other module's ``init_cfg``. mmengine alone reads a pickle without
    restriction, or cannot resume its own files (0.10.7 with torch 2.6 or
    later). Schemes whose files would bypass the reader are refused. Call it
    once at the start of a program; calling it again changes nothing.
    """
    register = engine.CheckpointLoader.register_scheme
    ours = ['', 'http://', *weights_io.schemes()]
    register(ours, _read_for_engine, force=True)
    remote = ['pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://']
    register(remote, _refuse_for_engine, force=True)
    register(['open-mmlab://', 'openmmlab://'], _read_named, force=True)
    # What torchvision:// and mmcls:// look up ends here.
    engine.load_from_http = _read_for_engine
