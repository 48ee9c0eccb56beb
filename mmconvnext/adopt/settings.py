"""Replace the settings that belong to a backbone, and only those."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Tuple

from mmengine.config import ConfigDict

from ..archs import STRIDES
from ..configs import bare_type
from .draft import Draft
from .hosts import CLASSIFIERS, imported_modules
from .measure import reads_file
from .recipes import Recipe

MEAN = [123.675, 116.28, 103.53]
STD = [58.395, 57.12, 57.375]
CONSTRUCTOR = 'mmconvnext.LayerDecayOptimWrapperConstructor'
# How long the recipes train.
PUBLISHED = {
    'mmdet': '36 epochs of COCO',
    'mmseg': '160,000 iterations of ADE20K',
}
# Keys of paramwise_cfg.custom_keys that name parts of other backbones.
OTHERS_KEYS = (
    'absolute_pos_embed',
    'relative_position_bias_table',
    'rel_pos_bias',
    'pos_block',
    'cls_token',
)
# Options of mmengine's constructor that the rules of ours make needless.
BY_RULE = {
    'norm_decay_mult': 'norms never decay',
    'bias_decay_mult': 'biases never decay',
    'flat_decay_mult': 'one-dimensional parameters never decay',
    'dwconv_decay_mult': 'convolutions decay alike',
    'bias_lr_mult': 'biases learn at the rate of their layer',
    'dcn_offset_lr_mult': 'offsets learn at the rate of the head',
    'bypass_duplicate': 'shared parameters are counted once',
    'num_layers': 'it follows from the depths',
}


def replace_images(draft: Draft) -> None:
    """Normalise images as ConvNeXt's weights expect: RGB, ImageNet's mean."""
    channels = draft.backbone.get('in_channels', 3)
    if channels != 3:
        draft.report.look.append(
            f'images have {channels} channels: mean and std are the old ones'
        )
        return
    for key in _preprocessors(draft):
        node = draft.get(key)
        old = [node.get(name) for name in ('mean', 'std', 'bgr_to_rgb')]
        if old == [MEAN, STD, True]:
            continue
        why = 'RGB with the mean and deviation of ImageNet, as pre-trained.'
        draft.set(f'{key}.mean', MEAN, why)
        draft.set(f'{key}.std', STD, why)
        if node.get('rgb_to_bgr'):
            draft.set(f'{key}.rgb_to_bgr', False, why)
        draft.set(f'{key}.bgr_to_rgb', True, why)


def _preprocessors(draft: Draft) -> List[str]:
    """List the preprocessors that normalise what the backbone reads."""
    found = []
    for owner in dict.fromkeys((draft.site.owner, 'model')):
        key = f'{owner}.data_preprocessor'
        node = draft.get(owner).get('data_preprocessor')
        while node and 'data_preprocessor' in node:
            node, key = node.data_preprocessor, f'{key}.data_preprocessor'
        if node:
            found.append(key)
    normalising = [key for key in found if 'mean' in draft.get(key)]
    return normalising or found


def replace_backbone(draft: Draft, new: Dict[str, Any]) -> None:
    """Put the new backbone in place, with what carries over by meaning."""
    old = draft.backbone
    scratch = new.get('init_cfg') is None
    merged = ConfigDict(new)
    if old.get('in_channels', 3) != 3:
        merged.in_channels = old.in_channels
    if old.get('with_cp'):
        merged.with_cp = True
    frozen = _frozen(old)
    if frozen >= 0 and scratch:
        draft.report.left.append(
            (
                'frozen_stages',
                f'the old backbone froze {_named(frozen)}; random weights '
                f'must not be frozen',
            )
        )
    elif frozen >= 0:
        merged.frozen_stages = frozen
    if not scratch:  # where people look for it: at the end
        merged.init_cfg = merged.pop('init_cfg')
    why = _backbone_reason(draft, merged)
    draft.set(draft.site.backbone, merged, why)


def _backbone_reason(draft: Draft, new: ConfigDict) -> str:
    name = describe(draft.backbone)
    strides = [min(STRIDES[i], draft.output_stride) for i in draft.stages]
    words = [
        f'Maps of stride {", ".join(map(str, strides))} instead of '
        f"{name}'s {', '.join(map(str, draft.old.strides))}."
        if tuple(strides) != draft.old.strides
        else f'Maps of stride {", ".join(map(str, strides))}, as {name} has.'
    ]
    if 'frozen_stages' in new:
        frozen = _named(new.frozen_stages)
        words.append(f'{frozen[0].upper()}{frozen[1:]} stay frozen.')
    if draft.backbone.get('norm_eval'):
        words.append('No norm_eval: layer norms keep no statistics.')
    return ' '.join(words)


def describe(backbone: Mapping) -> str:
    """Name a backbone as people do: ResNet-50, ConvNeXt-tiny."""
    size = backbone.get('depth') or backbone.get('arch')
    named = isinstance(size, (int, str))
    return bare_type(backbone['type']) + (f'-{size}' if named else '')


def _frozen(old: ConfigDict) -> int:
    """Read ``frozen_stages`` in our counting: 0 is the stem alone."""
    frozen = old.get('frozen_stages', -1)
    if bare_type(old) == 'ConvNeXt':  # the classifiers' counts from 1
        return frozen if frozen > 0 else -1
    return frozen if isinstance(frozen, int) and 0 <= frozen <= 4 else -1


def _named(frozen: int) -> str:
    stages = {0: 'the stem', 1: 'the stem and the first stage'}
    return stages.get(frozen, f'the stem and the first {frozen} stages')


def remove_old_weights(draft: Draft) -> None:
    """Drop what would load another backbone's weights, or its library."""
    why = 'The weights were those of the old backbone.'
    for owner in dict.fromkeys((draft.site.owner, 'model')):
        draft.clear(f'{owner}.pretrained', why)
        if reads_file(draft.get(owner).get('init_cfg')):
            draft.clear(f'{owner}.init_cfg', why)
    draft.clear('load_from', why)
    _remove_imports(draft)


def _remove_imports(draft: Draft) -> None:
    modules = imported_modules(draft.cfg)
    kept = [m for m in modules if m.split('.')[0] not in CLASSIFIERS]
    if len(kept) == len(modules) or _uses_classifiers(draft.cfg.model):
        return
    why = 'Only the old backbone needed it.'
    if kept:
        draft.set('custom_imports.imports', kept, why)
    else:
        draft.set('custom_imports', None, why)


def _uses_classifiers(node: Any) -> bool:
    if isinstance(node, dict):
        scope = str(node.get('type')).partition('.')[0]
        return scope in CLASSIFIERS or any(
            map(_uses_classifiers, node.values())
        )
    if isinstance(node, (list, tuple)):
        return any(map(_uses_classifiers, node))
    return False


def replace_optimiser(draft: Draft, recipe: Recipe, scratch: bool) -> None:
    """AdamW with layer-wise decay; the host's own custom keys stay."""
    wrapper = draft.cfg.get('optim_wrapper')
    if not wrapper or 'optimizer' not in wrapper:
        draft.report.left.append(
            ('optimizer', 'the config has no optim_wrapper.optimizer')
        )
        return
    _replace_sgd(draft, wrapper, recipe)
    _replace_groups(draft, wrapper, recipe, scratch)
    _replace_precision(draft, wrapper)


def _replace_sgd(draft: Draft, wrapper: ConfigDict, recipe: Recipe) -> None:
    old = wrapper.optimizer
    if bare_type(old) == 'AdamW':
        draft.report.left.append(
            (
                'optimizer',
                f'AdamW already; lr {old.lr:g} and weight decay '
                f'{old.get("weight_decay", 0.01):g} are those of the method',
            )
        )
        return
    new = ConfigDict(
        type='AdamW', lr=recipe.lr, betas=(0.9, 0.999), weight_decay=0.05
    )
    why = f'AdamW as in {recipe.name}, at a batch of {recipe.batch}.'
    draft.set('optim_wrapper.optimizer', new, why)
    _scale_floors(draft, new.lr / old.lr)
    batch = (draft.cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if batch != recipe.batch:
        here = f'this config assumes {batch}' if batch else 'set it for yours'
        draft.report.look.append(
            f'learning rate: {recipe.lr:g} is meant for a batch of '
            f'{recipe.batch} images; {here}'
        )


def _scale_floors(draft: Draft, factor: float) -> None:
    """Lower absolute minima of the schedule along with the rate.

    PolyLR of MMSegmentation ends at 1e-4: for AdamW that is where it starts.
    """
    schedulers = draft.cfg.get('param_scheduler')
    if not isinstance(schedulers, (list, tuple)):
        schedulers = [schedulers] if schedulers else []
    for index, scheduler in enumerate(schedulers):
        floor = scheduler.get('eta_min')
        if floor:
            draft.set(
                f'param_scheduler.{index}.eta_min'
                if isinstance(draft.cfg.param_scheduler, list)
                else 'param_scheduler.eta_min',
                float(f'{floor * factor:.6g}'),
                'The end of the schedule follows the rate.',
            )


def _replace_groups(
    draft: Draft, wrapper: ConfigDict, recipe: Recipe, scratch: bool
) -> None:
    old = wrapper.get('paramwise_cfg') or ConfigDict()
    new = ConfigDict(decay_rate=1.0 if scratch else recipe.decay_rate)
    if not scratch:
        new.decay_type = recipe.decay_type
    kept, dropped = _custom_keys(old.get('custom_keys') or {})
    if kept:
        new.custom_keys = kept
    words = [
        'Random weights: every layer learns at the full rate.'
        if scratch
        else f'Layer-wise decay as in {recipe.name}.'
    ]
    if dropped:
        keys = ', '.join(map(repr, dropped))
        words.append(f'No custom keys {keys}: they meant the old backbone.')
    words += [
        f'No {name}: {why}.' for name, why in BY_RULE.items() if name in old
    ]
    draft.set(
        'optim_wrapper.constructor',
        CONSTRUCTOR,
        'A rate for each layer; norms, biases and GRN never decay.',
    )
    draft.set('optim_wrapper.paramwise_cfg', new, ' '.join(words))
    # What reads the groups comes first, whatever the host has.
    wrapper = draft.cfg.optim_wrapper
    wrapper.paramwise_cfg = wrapper.pop('paramwise_cfg')


def _custom_keys(keys: Dict) -> Tuple[Dict, List[str]]:
    """Split into what heads need and what named the old backbone."""
    dropped = [key for key in keys if key.split('.')[0] == 'backbone'] + [
        key for key in keys if key in OTHERS_KEYS
    ]
    kept = {key: value for key, value in keys.items() if key not in dropped}
    return kept, dropped


def _replace_precision(draft: Draft, wrapper: ConfigDict) -> None:
    if bare_type(wrapper) != 'AmpOptimWrapper':
        draft.report.left.append(
            ('precision', 'float32; --amp of tools/train.py changes it')
        )
        return
    why = 'bfloat16 has the range of float32; float16 overflows in GRN.'
    draft.set('optim_wrapper.dtype', 'bfloat16', why)
    draft.set(
        'optim_wrapper.loss_scale',
        ConfigDict(enabled=False),
        'bfloat16 needs no loss scale.',
    )


def say_what_to_look_at(draft: Draft, drop_path: float, scratch: bool) -> None:
    """Name what only the user can decide."""
    look, cfg = draft.report.look, draft.cfg
    if scratch:
        look.append('weights: random; --weights names the published ones')
    loop = cfg.get('train_cfg') or {}
    length = _length(loop)
    if length:
        look.append(
            f'schedule: {length}, unchanged; drop_path_rate {drop_path:g} is '
            f'meant for {PUBLISHED[cfg.default_scope]}'
        )
    size = (cfg.get('train_dataloader') or {}).get('batch_size')
    if size:
        look.append(f'batch size: {size} per GPU, unchanged')


def _length(loop: Dict) -> Optional[str]:
    for key, unit in (('max_epochs', 'epochs'), ('max_iters', 'iterations')):
        if loop.get(key):
            return f'{loop[key]:,} {unit}'
    return None
