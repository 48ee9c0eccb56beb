"""Show that an adopted config works: one training step, one prediction."""

from __future__ import annotations

import contextlib
import copy
import importlib
import logging
import math
import warnings
from typing import (
    Any,
    Callable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Tuple,
)

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

from .. import mmcv_ops
from ..configs import bare_type, walk
from ..models.convnext import ConvNeXt, ConvNeXtV2
from .batches import (
    image_size,
    kind_of,
    loads_masks,
    test_batch,
    training_batch,
)
from .hosts import CLASSIFIERS, locate
from .measure import without_weights

# Trackers that are trained part by part: their detector is what is trained.
DETECTOR_ALONE = ('DeepSORT', 'StrongSORT')
# What a runner says before the first step.
PROGRESS = dict(iter=0, epoch=0, max_iters=1, max_epochs=1)
ALIKE = 'so does the unchanged config'
# what a prediction may have, and how it is counted
FOUND: Tuple[Tuple[str, Callable[[Any], str]], ...] = (
    ('pred_instances', lambda s: f'{len(s.pred_instances)} objects'),
    (
        'pred_track_instances',
        lambda s: f'{len(s.pred_track_instances)} tracks',
    ),
    ('pred_panoptic_seg', lambda s: 'a panoptic map'),
    ('pred_sem_seg', lambda s: 'a label map'),
)


class Check(NamedTuple):
    """What a training step and a prediction gave.

    ``unread`` names trainable parameters that got no gradient, those of the
    backbone first.
    """

    kind: str
    size: Tuple[int, int]
    loss: float
    parameters: int
    found: str
    unread: Tuple[str, ...]
    unread_backbone: int
    notes: Tuple[str, ...] = ()

    def __str__(self) -> str:
        height, width = self.size
        text = (
            f'one training step on two {self.kind} samples of {height} x '
            f'{width}, loss {self.loss:.4g}; predicted: {self.found}; '
            f'{self.parameters / 1e6:.1f} M parameters, without gradient: '
            f'{self.unread_backbone} of the backbone'
        )
        others = self.unread[self.unread_backbone :]
        text += f', {len(others)} others'
        if others:
            text += f' ({", ".join(others[:3])}{", ..." * (len(others) > 3)})'
        return '; '.join([text, *self.notes])


class CheckError(ValueError):
    """A step that fails; the message names the step and the cause."""


def check(cfg: Config, host: Optional[Config] = None) -> Check:
    """Build the model of a config, train a step and predict once.

    On the CPU, in float32, with random weights and nothing read from files.

    Args:
        cfg: the adopted config.
        host: what it was adopted from. When a step fails, it is tried as
            well: a host that cannot predict by itself is no reason against
            training, and any other fault is said to be the host's.

    Raises:
        CheckError: when a step fails, or gives a loss that is not finite.
    """
    with _quietly():
        return _check(cfg, host)


def _check(cfg: Config, host: Optional[Config]) -> Check:
    try:
        trained = _train(cfg)
    except CheckError as error:
        if host is not None and _fails_alike(_train, host, error):
            raise CheckError(f'{error} ({ALIKE})') from error
        raise
    try:
        found = _predict(trained)
    except CheckError as error:
        if host is None or not _fails_alike(_both, host, error):
            raise
        found = f'nothing, {error} ({ALIKE})'
    return _result(trained, found)


def _fails_alike(
    run: Callable[[Config], Any], host: Config, error: CheckError
) -> bool:
    """Whether the unchanged config fails in the same step, with one error."""
    try:
        run(host)
    except CheckError as own:
        return str(own) == str(error)
    return False


class Trained(NamedTuple):
    """A model after a training step, its gradients still in place."""

    model: BaseModel
    cfg: ConfigDict
    scope: str
    loss: float
    notes: Tuple[str, ...]


def _train(cfg: Config) -> Trained:
    mmcv_ops.install()
    # Some heads and augmentations ask how far training has come.
    hub = MessageHub.get_instance('mmconvnext.adopt')
    for name, value in PROGRESS.items():
        hub.update_info(name, value)
    notes: List[str] = []
    model_cfg, scope = _buildable(cfg, notes), cfg.default_scope
    with DefaultScope.overwrite_default_scope(scope):
        with _step('building the model'):
            model = revert_sync_batchnorm(MODELS.build(model_cfg))
            model.init_weights()
        with _step('building the optimizer'):
            wrapper = _optim_wrapper(model, cfg, notes)
        with _step('the training step'):
            batch = training_batch(model_cfg, scope, loads_masks(cfg))
            loss = _training_step(model, wrapper, batch)
    return Trained(model, model_cfg, scope, loss, tuple(notes))


def _predict(trained: Trained) -> str:
    scope = DefaultScope.overwrite_default_scope(trained.scope)
    with scope, _step('the prediction'):
        batch = test_batch(trained.cfg, trained.scope)
        return _prediction(trained.model, batch)


def _both(cfg: Config) -> None:
    _predict(_train(cfg))


def _result(trained: Trained, found: str) -> Check:
    model = trained.model
    unread = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    ours = [n for n in unread if n.startswith(tuple(backbone_names(model)))]
    return Check(
        kind_of(trained.cfg, trained.scope),
        image_size(trained.cfg),
        trained.loss,
        sum(p.numel() for p in model.parameters()),
        found,
        (*ours, *(name for name in unread if name not in ours)),
        len(ours),
        trained.notes,
    )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep the hosts' account of every parameter off the screen."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    """Name the step in the error that ends it."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().split('\n')[0] or 'no message'
        raise CheckError(
            f'{name} fails: {type(error).__name__}: {reason}'
        ) from error


def backbone_names(model: BaseModel) -> Iterator[str]:
    """Yield ``backbone.`` for every ConvNeXt of ours in a model."""
    for name, module in model.named_modules():
        if isinstance(module, (ConvNeXt, ConvNeXtV2)):
            yield f'{name}.'


def _buildable(cfg: Config, notes: List[str]) -> ConfigDict:
    """Copy the model's config so that it builds here, without weights."""
    model = without_weights(cfg.model)
    reid = str((model.get('reid') or {}).get('backbone', {}).get('type'))
    if bare_type(model) in DETECTOR_ALONE:
        model = _detector_alone(model)
        missing = reid.partition('.')[0] in CLASSIFIERS
        notes.append(
            f'its detector alone, which is trained by itself'
            f'{f" ({reid} was not built)" if missing else ""}'
        )
    _join_alone(model, notes)
    _do_without_torchvision(model, notes)
    teacher = model.get('teacher_config')
    if isinstance(teacher, str):
        teacher = Config.fromfile(locate(_in_host(teacher)))
        model.teacher_config = ConfigDict(model=without_weights(teacher.model))
    return model


def _join_alone(model: ConfigDict, notes: List[str]) -> None:
    """Exchange mmcv's SyncBN, which cannot be built in one process."""
    found = [n for _, n in walk(model, 'model') if n.get('type') == 'MMSyncBN']
    for norm in found:
        norm.type = 'BN'
    if found:
        notes.append('with BN for MMSyncBN, which needs several processes')


def _do_without_torchvision(model: ConfigDict, notes: List[str]) -> None:
    """Let mmcv align regions where torchvision is asked to and is missing."""
    asked = [n for _, n in walk(model, 'model') if n.get('use_torchvision')]
    try:
        if asked:
            importlib.import_module('torchvision.ops')
    except (ImportError, RuntimeError):  # or built for another torch
        for layer in asked:
            layer.use_torchvision = False
        notes.append("with mmcv's RoIAlign, for torchvision does not import")


def _detector_alone(tracker: ConfigDict) -> ConfigDict:
    model = copy.deepcopy(tracker.detector)
    if 'data_preprocessor' not in model:
        model.data_preprocessor = copy.deepcopy(tracker.data_preprocessor)
        model.data_preprocessor.type = 'DetDataPreprocessor'
    return model


def _in_host(path: str) -> str:
    """Read ``configs/gfl/x.py``, relative to the host's repository."""
    head, _, rest = path.partition('configs/')
    return path if head or not rest else f'mmdet::{rest}'


def _optim_wrapper(
    model: BaseModel, cfg: Config, notes: List[str]
) -> OptimWrapper:
    settings = copy.deepcopy(cfg.get('optim_wrapper'))
    if not settings:
        settings = ConfigDict(optimizer=dict(type='AdamW', lr=1e-4))
    if bare_type(settings) == 'AmpOptimWrapper':
        settings.type = 'OptimWrapper'
        for key in ('dtype', 'loss_scale'):
            settings.pop(key, None)
        notes.append('in float32, not in the mixed precision it asks for')
    settings.pop('accumulative_counts', None)
    return build_optim_wrapper(model, settings)


def _training_step(
    model: BaseModel, wrapper: OptimWrapper, batch: dict
) -> float:
    """Do what ``train_step`` does, and leave the gradients in place."""
    model.train()
    data = model.data_preprocessor(batch, True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    value = loss.item()
    if not math.isfinite(value):
        raise ValueError(f'the loss is {value}')
    wrapper.backward(loss)
    wrapper.step()
    return value


def _prediction(model: BaseModel, batch: dict) -> str:
    model.eval()
    with torch.no_grad():
        sample = model.test_step(batch)[0]
    if 'video_data_samples' in sample:
        sample = sample[0]
    found = [describe(sample) for name, describe in FOUND if name in sample]
    if not found:
        raise ValueError(f'no prediction in {list(sample.keys())}')
    return ', '.join(found)
