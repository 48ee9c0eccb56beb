"""Designs that need more than the rules, and designs that are refused.

One row each. The rules of this package are in ``plan`` (which stage
replaces which output), ``channels`` (what reads it) and ``settings``.
"""

from __future__ import annotations

import math
from typing import Callable, Dict, NamedTuple, Tuple

from mmengine.config import ConfigDict

from ..configs import bare_type, walk
from .draft import Draft
from .report import RefusedError

# type anywhere in the model: why no other backbone fits
REFUSED: Dict[str, str] = {
    'HourglassNet': 'its heads supervise two stacked hourglasses, one map '
    'per stack, all at stride 4',
    'DetectoRS_ResNet': 'its neck feeds the pyramid back into the backbone, '
    'and its convolutions switch their dilation',
    'TridentResNet': 'its backbone has three branches with shared weights, '
    'and TridentRoIHead counts them',
    'Detectron2Wrapper': 'Detectron2 builds the whole model from settings '
    'of its own',
    'BiSeNetV2': 'the detail and semantic branches are the method',
    'CGNet': 'the context guided network is the method',
    'DDRNet': 'its two branches exchange features inside of the backbone',
    'ERFNet': 'encoder and decoder are one network',
    'FastSCNN': 'the learning-to-downsample network is the method',
    'ICNet': 'it calls the stem and the layers of a ResNet one by one, on '
    'three sizes of the image',
    'PIDNet': 'its three branches exchange features inside of the backbone',
    'UNet': 'encoder and decoder are one network',
    'MLANeck': 'it adds the maps of a plain transformer, which have one size',
    'DPTHead': 'it reads the class token of a vision transformer',
    'SideAdapterCLIPHead': 'its side adapter runs along the layers of CLIP',
    'VPD': 'it reads the attention maps of a diffusion model',
}
# the model's own type: why no other backbone fits
REFUSED_MODELS: Dict[str, str] = {
    'BaseReID': 're-identification compares crops of one object; nothing '
    'reads a pyramid',
}
# A transformer with one stride throughout: its deepest map is the last one.
PLAIN = ('VisionTransformer', 'BEiT', 'MAE')
# Necks that make a pyramid of such a transformer's maps.
PLAIN_NECKS = ('Feature2Pyramid', 'MultiLevelNeck')
# Heads that decide which stages they get, and at which output stride:
# LRASPP averages windows of 49 x 49 on the deepest map, which is of stride 8
# in its MobileNet as well.
STAGES: Dict[str, Tuple[Tuple[int, ...], int]] = {
    'LRASPPHead': ((0, 1, 3), 8),
}
# Backbones that contain one: its key.
INNER = {'BiSeNetV1': 'backbone_cfg', 'STDCContextPathNet': 'backbone_cfg'}


def refuse(model: ConfigDict) -> None:
    """Stop at a design that cannot take another backbone.

    Raises:
        RefusedError: with its name and the reason.
    """
    name = bare_type(model)
    if name in REFUSED_MODELS:
        raise RefusedError(f'{name}: {REFUSED_MODELS[name]}')
    for _, node in walk(model, 'model'):
        name = bare_type(node)
        if name in REFUSED:
            raise RefusedError(f'{name}: {REFUSED[name]}')


def drop_plain_neck(draft: Draft) -> None:
    """Take out what makes a pyramid of one stride: ConvNeXt has one.

    The heads then read the stages themselves.
    """
    if bare_type(draft.backbone) in PLAIN and _neck(draft) in PLAIN_NECKS:
        why = 'The stages are a pyramid by themselves.'
        draft.clear(f'{draft.site.owner}.neck', why)


class Special(NamedTuple):
    """A design: how it is known, and what is done after the rules."""

    applies: Callable[[Draft], bool]
    fit: Callable[[Draft], None]


def _neck(draft: Draft) -> str:
    key = draft.neck_key()
    return bare_type(draft.get(key).type) if key else ''


def _has_shared_head(draft: Draft) -> bool:
    roi_head = draft.owner.get('roi_head') or {}
    return roi_head.get('shared_head') is not None and not _neck(draft)


def _fit_c4(draft: Draft) -> None:
    """Take the fourth ResNet stage out of the RoI head.

    It halves the crops, 14 to 7, and has channels of its own. Without it the
    heads read the crops: their size and the masks' double.
    """
    key = f'{draft.site.owner}.roi_head'
    channels = draft.new[-1]
    draft.clear(
        f'{key}.shared_head', "It is ResNet's last stage, fit for no other."
    )
    roi_head = draft.get(key)
    size = roi_head.bbox_roi_extractor.roi_layer.output_size
    why = 'The head reads the crops, without the stage before it.'
    draft.set(f'{key}.bbox_head.in_channels', channels, why)
    draft.set(f'{key}.bbox_head.roi_feat_size', size, why)
    if roi_head.get('mask_head'):
        draft.set(f'{key}.mask_head.in_channels', channels, why)
        why = 'Crops twice as large give masks twice as large.'
        mask_size = f'{draft.site.owner}.train_cfg.rcnn.mask_size'
        draft.set(mask_size, 2 * size, why)


def _is_ssd(draft: Draft) -> bool:
    return _neck(draft) == 'SSDNeck'


def _fit_ssd(draft: Draft) -> None:
    """Repeat the backbone's channels where SSD lists all its levels."""
    owner, count = draft.site.owner, len(draft.new)
    why = 'The first levels are the stages.'
    for key in (
        f'{owner}.neck.out_channels',
        f'{owner}.bbox_head.in_channels',
    ):
        draft.set(key, [*draft.new, *draft.get(key)[count:]], why)


def _is_jpu(draft: Draft) -> bool:
    return _neck(draft) == 'JPU'


def _fit_jpu(draft: Draft) -> None:
    """Rewrite the heads that read what JPU passes through.

    Its outputs are the stages but for the last, then the joint one.
    """
    passed = len(draft.new) - 1
    for key, head in list(draft.heads()):
        index = head.get('in_index', -1)
        if 'in_channels' in head and index in range(passed):
            draft.set(
                f'{key}.in_channels',
                draft.new[index],
                'JPU passes this stage through.',
            )


def _is_bisenet(draft: Draft) -> bool:
    return bare_type(draft.outer) == 'BiSeNetV1'


def _fit_bisenet(draft: Draft) -> None:
    """Let the context path read the stages, and the spatial path fill up.

    The fusion of both takes the channels of stride 16, of which the context
    path brings those of stride 8.
    """
    key, (c8, c16, _) = draft.site.outer, draft.new[-3:]
    draft.set(
        f'{key}.context_channels',
        draft.new[-3:],
        'The context path reads the last three stages.',
    )
    spatial = draft.outer.get('spatial_channels', (64, 64, 64, 128))
    draft.set(
        f'{key}.spatial_channels',
        (*spatial[:-1], c16 - c8),
        'Both paths together have the channels of stride 16.',
    )
    _fit_inner_heads(draft, {1: c8, 2: c8})


def _is_stdc(draft: Draft) -> bool:
    return bare_type(draft.outer) == 'STDCContextPathNet'


def _fit_stdc(draft: Draft) -> None:
    """Let the context path and the fusion read the stages."""
    key, (c8, c16, c32) = draft.site.outer, draft.new
    why = 'The context path reads the last two stages, deepest first.'
    draft.set(f'{key}.last_in_channels', (c32, c16), why)
    draft.set(
        f'{key}.ffm_cfg.in_channels',
        c8 + draft.outer.get('out_channels', 128),
        'The fusion reads the stage of stride 8 and the context path.',
    )
    _fit_inner_heads(draft, {0: c8})


def _fit_inner_heads(draft: Draft, channels: Dict[int, int]) -> None:
    for key, head in list(draft.heads()):
        if 'in_channels' in head and head.get('in_index') in channels:
            draft.set(
                f'{key}.in_channels',
                channels[head.in_index],
                'The head reads a map with the channels of a stage.',
            )


def _has_bare_fcn(draft: Draft) -> bool:
    return any(
        bare_type(head) == 'FCNHead' and head.get('num_convs') == 0
        for _, head in draft.heads()
    )


def _fit_bare_fcn(draft: Draft) -> None:
    """Without a convolution the classifier reads the map itself."""
    for key, head in list(draft.heads()):
        if bare_type(head) == 'FCNHead' and head.get('num_convs') == 0:
            why = 'Without convolutions the classifier reads the map itself.'
            draft.set(f'{key}.channels', head.in_channels, why)


def _has_half_group_norm(draft: Draft) -> bool:
    if _neck(draft) != 'CSPNeXtPAFPN':
        return False
    norm = draft.get(draft.neck_key()).get('norm_cfg') or {}
    return bare_type(norm) == 'GN'


def _fit_half_group_norm(draft: Draft) -> None:
    """Lower the groups until they divide half of every stage's channels."""
    key = f'{draft.neck_key()}.norm_cfg.num_groups'
    groups = math.gcd(draft.get(key), *(c // 2 for c in draft.new))
    draft.set(key, groups, 'The neck normalises half of the channels.')


def _enlarges(draft: Draft) -> bool:
    return any(bare_type(head) == 'SETRUPHead' for _, head in draft.heads())


def _fit_enlarging(draft: Draft) -> None:
    """Let SETR's heads read maps of the old stride, and no finer ones.

    They enlarge by fixed factors: a map of stride 4 to four times the image.
    """
    strides = [min(4 << i, draft.output_stride) for i in draft.stages]
    first = next(i for i, n in enumerate(strides) if n >= draft.old.strides[0])
    for key, head in list(draft.heads()):
        if bare_type(head) == 'SETRUPHead' and head.in_index < first:
            why = f'The head enlarges a map of stride {strides[first]}.'
            draft.set(f'{key}.in_index', first, why)
            draft.set(f'{key}.in_channels', draft.new[first], why)


# Applied in this order, after the rules.
SPECIAL: Tuple[Special, ...] = (
    Special(_has_shared_head, _fit_c4),
    Special(_is_ssd, _fit_ssd),
    Special(_is_jpu, _fit_jpu),
    Special(_is_bisenet, _fit_bisenet),
    Special(_is_stdc, _fit_stdc),
    Special(_has_bare_fcn, _fit_bare_fcn),
    Special(_has_half_group_norm, _fit_half_group_norm),
    Special(_enlarges, _fit_enlarging),
)
