"""What the tools share: config, data, precision, runner.

A tool parses its command line first (``tools/arguments.py``, which needs no
library), then imports this module, and calls :func:`prepare_hosts`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
)

import torch
from mmengine.config import Config, DictAction
from mmengine.dist import get_world_size
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from . import checkpoint, hub, mmcv_ops
from .checkpoint import fit
from .configs import as_list, bare_type, host_of, leaves
from .data import Finding, demand
from .training.batch_norm import check_batch
from .training.checks import check_resume
from .training.curves import CurvesHook
from .training.quiet import log_prints, quiet_runner, silence
from .training.screen import ScreenHook

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """End the program with one line instead of a traceback.

    For what the user can correct: a wrong option, a missing file.
    """
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f'error: {error}')


def prepare_hosts(verbose: bool = False) -> None:
    """Set up what the hosts find; call it before any of them is imported.

    Operators for an mmcv without them, one safe reader for every checkpoint,
    files that are written whole, output that holds any path and class name,
    whatever the locale, and hosts that keep their notices to the log unless
    it is to be ``verbose``. Calling it again changes nothing.
    """
    if not verbose:
        silence()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    mmcv_ops.install()
    checkpoint.install_safe_loading()
    checkpoint.install_whole_writing()


def read_config(path: str) -> Config:
    """Read a config file, or one of ours as ``mmconvnext::name``.

    Raises:
        FileNotFoundError: when the file is missing.
    """
    if str(path).startswith(hub.PREFIX):
        return hub.get_config(path)
    if not Path(path).is_file():
        raise FileNotFoundError(f'config file not found: {path}')
    cfg = Config.fromfile(path)
    if not cfg.get('default_scope') and host_of(cfg):
        # Pure-Python configs have classes, but parts of hosts that are left
        # to their defaults are names all the same.
        cfg.default_scope = host_of(cfg)
    return cfg


def settings(pairs: Sequence[str]) -> Dict[str, Any]:
    """Turn KEY=VALUE texts into settings, as mmengine's tools read them.

    >>> settings(['train_cfg.max_iters=5', 'scale="(4,8)"'])
    {'train_cfg.max_iters': 5, 'scale': (4, 8)}
    """
    parser = argparse.ArgumentParser()
    parser.add_argument('pairs', nargs='*', action=DictAction)
    return parser.parse_args([*pairs]).pairs or {}


def device(asked: Optional[str]) -> str:
    """Return the device asked for, or cuda where there is a GPU, or cpu."""
    return asked or ('cuda' if torch.cuda.is_available() else 'cpu')


def load_config(
    args: argparse.Namespace, given: Optional[Config] = None
) -> Config:
    """Read the config file and apply the command line to it.

    Args:
        args: of the tool.
        given: in the place of a file, from an exported model.

    Raises:
        FileNotFoundError: when the file is missing.
        ValueError: when ``--data-root`` meets a config without data_root.
    """
    cfg = read_config(args.config) if given is None else given
    if args.data_root is not None:
        set_data_root(cfg, args.data_root)
    cfg.merge_from_dict(settings(args.cfg_options))
    if hasattr(args, 'work_dir'):
        named = args.config or args.checkpoint
        stem = Path(named.replace(hub.PREFIX, '')).stem
        default = cfg.get('work_dir') or str(Path('work_dirs', stem))
        cfg.work_dir = args.work_dir or default
        cfg.launcher = args.launcher
    return cfg


def check_checkpoint(path: str) -> None:
    """Raise FileNotFoundError for a path that holds no file."""
    if '://' not in path and not Path(path).is_file():
        raise FileNotFoundError(f'checkpoint not found: {path}')


def set_data_root(cfg: Config, root: str) -> None:
    """Point everything below the config's ``data_root`` to another folder."""
    old = cfg.get('data_root')
    if not old:
        raise ValueError(
            f'--data-root {root}: the config {cfg.filename} has no data_root'
        )
    for key in (*LOADERS, 'val_evaluator', 'test_evaluator', 'data_root'):
        if key in cfg:
            cfg[key] = _replace_root(cfg[key], old.rstrip('/'), root)


def _replace_root(node: Any, old: str, new: str) -> Any:
    if isinstance(node, dict):
        return {k: _replace_root(v, old, new) for k, v in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_replace_root(v, old, new) for v in node)
    if isinstance(node, str) and (node + '/').startswith(old + '/'):
        return new.rstrip('/') + node[len(old) :]
    return node


def data_paths(dataset: Dict) -> Iterator[Path]:
    """Yield the files and folders that a dataset config reads.

    Wrappers (RepeatDataset, ConcatDataset, ...) are looked through.
    """
    for leaf in leaves(dataset):
        root = leaf.get('data_root') or ''
        prefixes = leaf.get('data_prefix') or {}
        if isinstance(prefixes, str):
            prefixes = {'img': prefixes}
        for part in (leaf.get('ann_file'), *prefixes.values()):
            if part and '://' not in f'{root}{part}':  # of an object store
                yield Path(root, part)


def check_data(
    cfg: Config,
    loaders: Sequence[str],
    model: bool = True,
    say: Callable[[Finding], None] = print,
) -> None:
    """Stop before any work when data is missing or cannot be right.

    The config's ``data_help`` says what the data set is and where people get
    it; it becomes part of the message. Content is judged by
    :func:`mmconvnext.data.demand`, and whether the model's heads fit it
    unless ``model`` is false. ``say`` gets the warnings and notes.

    Raises:
        FileNotFoundError: names what is missing, the layout expected, and
            the ways to point elsewhere.
        DataError: with every fault of the content, and its fix.
    """
    paths: List[Path] = []
    for loader in loaders:
        dataset = (cfg.get(loader) or {}).get('dataset')
        paths += data_paths(dataset) if dataset else []
    paths = list(dict.fromkeys(paths))
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise FileNotFoundError(_missing_data(cfg, paths, missing))
    demand(cfg, loaders, say, model)


def _missing_data(cfg: Config, paths: List[Path], missing: List[Path]) -> str:
    root = Path(cfg.get('data_root') or missing[0])
    layout = [
        f'  {path}  {"MISSING" if path in missing else "found"}'
        for path in paths
    ]
    return '\n'.join(
        [
            f'data set not found: looked in {root.absolute()}',
            'Expected layout:',
            *layout,
            cfg.get('data_help', ''),
            f'Link the folder there (ln -s /path/to/it {root}) or pass '
            f'--data-root /path/to/it',
        ]
    )


def set_amp(cfg: Config, amp: Optional[str]) -> None:
    """Switch mixed precision on in a dtype, or off; None leaves the config.

    Raises:
        ValueError: when the result needs a GPU and there is none.
    """
    if amp == 'off':
        cfg.optim_wrapper.type = 'OptimWrapper'
        for key in ('dtype', 'loss_scale'):
            cfg.optim_wrapper.pop(key, None)
    elif amp is not None:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.dtype = amp
        # bfloat16 has the exponents of float32: nothing to scale.
        scale = 'dynamic' if amp == 'float16' else dict(enabled=False)
        cfg.optim_wrapper.loss_scale = scale
    wants_amp = bare_type(cfg.optim_wrapper) == 'AmpOptimWrapper'
    if wants_amp and not torch.cuda.is_available():
        raise ValueError(
            'mixed precision (optim_wrapper.type=AmpOptimWrapper) needs a '
            'GPU, and torch sees none; pass --amp off to train in float32'
        )


def build_runner(cfg: Config, verbose: bool = True) -> Runner:
    """Build the runner that the config asks for.

    Its log goes to the screen where it is ``verbose``; else only to its
    file, and :func:`watch` shows people what matters.
    """
    checkpoint.resolve_resume(cfg)
    kind = RUNNERS.get(cfg.get('runner_type') or 'Runner')
    if verbose:
        return kind.from_cfg(cfg)
    runner = quiet_runner(kind).from_cfg(cfg)
    runner.logger.info(f'mmcv operators: {mmcv_ops.summary()}')
    if host_of(cfg) == 'mmdet':
        log_prints()
    return runner


def watch(runner: Runner, verbose: bool) -> None:
    """Let a run show its progress, and draw its curves at the end."""
    curves = CurvesHook()
    pretraining = any(
        bare_type(hook) == 'LossCurveHook'  # draws a picture of its own
        for hook in as_list(runner.cfg.get('custom_hooks'))
    )
    if not pretraining:
        runner.register_hook(curves)
    if not verbose:
        path = Path(runner.work_dir, curves.name)
        runner.register_hook(ScreenHook('' if pretraining else str(path)))


def batch_size(cfg: Config, world_size: int) -> Tuple[int, Optional[int]]:
    """Return the whole batch size of this run and that of the recipe."""
    per_step = cfg.optim_wrapper.get('accumulative_counts', 1) * world_size
    recipe = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    return cfg.train_dataloader.batch_size * per_step, recipe


def warn_of_batch_size(cfg: Config) -> None:
    """Say so when the batch is not the one the learning rate is meant for."""
    batch, recipe = batch_size(cfg, get_world_size())
    if recipe and batch != recipe:
        scaled = cfg.auto_scale_lr.get('enable', False)
        todo = 'is scaled' if scaled else 'stays: see --auto-scale-lr'
        print(
            f'warning: batch size {batch}, the recipe has {recipe}; '
            f'the learning rate {todo}',
            flush=True,
        )


def check_start(runner: Runner, cfg: Config) -> None:
    """Check the batch, and compare the file that a run starts from.

    The file has to fit model and config. What is loaded, and what a resumed
    run does not take from the config, is logged.

    Raises:
        ValueError: for a file that does not fit, and for a batch that batch
            norm cannot train with.
    """
    size = cfg.train_dataloader.get('batch_size')
    if size:
        check_batch(bare_model(runner), size, get_world_size())
    path = cfg.get('load_from')
    if not path or Path(path).is_dir() or is_sharded(runner):
        return
    raw, model = checkpoint.read(path), bare_model(runner)
    if not cfg.get('resume'):
        raw = _published(runner, raw, path)
        account = fit.require_backbone(model, raw, path)
        runner.logger.info(f'load_from\n{account}')
        return
    fit.require_whole(model, raw, path)
    try:
        loop, epoch = runner.train_loop, len(runner.train_dataloader)
        lines = check_resume(cfg, raw, loop.max_iters, epoch)
    except ValueError as error:
        raise ValueError(f'--resume {path}: {error}') from error
    for line in lines:
        runner.logger.warning(f'resuming: {line}')


def check_whole(runner: Runner, path: str) -> None:
    """Check that a file has all that the runner's model needs to be tested.

    Raises:
        CheckpointError: says what does not fit and what would help.
    """
    if is_sharded(runner):
        return
    raw = _published(runner, checkpoint.read(path), path)
    for line in fit.require_whole(bare_model(runner), raw, path):
        runner.logger.info(line)


def _published(runner: Runner, raw: Any, path: str) -> Any:
    """Return a file by the model's names; let the runner read it as well."""
    taken = fit.native(bare_model(runner), raw, path)
    if taken is not raw:
        runner.register_hook(checkpoint.PublishedHook(), 'HIGHEST')
        runner.logger.info(f'{path}: a classifier, loaded with its head')
    return taken


def is_sharded(runner: Runner) -> bool:
    """Whether the tensors of the model are parts of those in a file."""
    return 'FullyShard' in type(runner.model).__name__


def bare_model(runner: Runner) -> nn.Module:
    """Return the model whose names a checkpoint has: without wrappers."""
    model = runner.model
    model = model.module if is_model_wrapper(model) else model
    return model.module if isinstance(model, BaseTTAModel) else model


def scale_with_accumulation(runner: Runner, cfg: Config) -> None:
    """Let mmengine's scaling of the rate count accumulated gradients.

    mmengine scales by batch x processes / base_batch_size. Steps that add
    up ``accumulative_counts`` batches are as many times larger; dividing
    the base by that is the same.
    """
    counts = cfg.optim_wrapper.get('accumulative_counts', 1)
    settings = runner.auto_scale_lr
    if counts > 1 and settings and settings.get('enable'):
        base = settings['base_batch_size'] / counts
        runner.auto_scale_lr = {**settings, 'base_batch_size': base}
