"""How each library names and shapes a ConvNeXt: tables, and renaming by them.

To add a format, add a row to ``FORMATS``; the tests run over its rows. The
names follow the libraries named in each row; no code is theirs.
"""

from __future__ import annotations

import functools
import re
from typing import (
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from torch import Tensor

Shape = Tuple[int, ...]
Names = Mapping[str, str]


class Reshape(NamedTuple):
    """How a format stores a tensor: ``theirs`` maps our shape to its own."""

    leaf: str
    theirs: Callable[[Shape], Shape]
    read: Callable[[Tensor, Shape], Tensor] = Tensor.reshape


def _read_minkowski(kernel: Tensor, shape: Shape) -> Tensor:
    """Put ``(k * k, in, out)`` into ``(out, in, k, k)``.

    MinkowskiEngine counts the height fastest, hence the transpose.
    """
    out, inner, k, _ = shape
    dense = kernel.reshape(k, k, inner, out)
    return dense.permute(3, 2, 1, 0).contiguous()


GRN_ROW = Reshape(r'grn\.\w+', lambda s: (1, *s))
GRN_MAP = Reshape(r'grn\.\w+', lambda s: (1, 1, 1, *s))
CONV_MLP = Reshape(r'pwconv\d\.weight', lambda s: (*s, 1, 1))
SCALE_MAP = Reshape(r'\d\.gamma', lambda s: (*s, 1, 1))
BIAS_ROW = Reshape(r'bias', lambda s: (1, *s))
SPARSE_CONV = Reshape(
    r'downsample_layers\.[1-3]\.1\.weight',
    lambda s: (s[2] * s[3], s[1], s[0]),
    _read_minkowski,
)
SPARSE_DEPTHWISE = Reshape(
    r'dwconv\.weight',
    lambda s: (s[2] * s[3], s[0]),
    lambda t, s: _read_minkowski(t[:, None], s),
)

# Slots of a name: stage, stage after the first, block, part, parameter. The
# second table derives what torchvision and transformers count differently.
SLOTS = {
    'i': '[0-3]', 'd': '[1-3]', 'j': r'\d+', 'k': '[01]',
    'p': 'weight|bias', 'odd': '[1357]', 'even': '[246]', 'n': '[1-4]',
}  # fmt: skip
DERIVED = {
    'odd': ('i', lambda odd: odd // 2, lambda i: 2 * i + 1),
    'even': ('d', lambda even: even // 2, lambda d: 2 * d),
    'n': ('i', lambda n: n - 1, lambda i: i + 1),
}
# Our name -> theirs. ``norm`` without a number is a classifier's last norm.
OFFICIAL: Names = {
    name: name
    for name in (
        'downsample_layers.0.{k}.{p}',
        'downsample_layers.{d}.{k}.{p}',
        'stages.{i}.{j}.dwconv.{p}',
        'stages.{i}.{j}.norm.{p}',
        'stages.{i}.{j}.pwconv1.{p}',
        'stages.{i}.{j}.grn.gamma',
        'stages.{i}.{j}.grn.beta',
        'stages.{i}.{j}.pwconv2.{p}',
        'stages.{i}.{j}.gamma',
        'norm{i}.{p}',
        'norm.{p}',
    )
}
MINKOWSKI: Names = {
    'downsample_layers.0.{k}.{p}': 'downsample_layers.0.{k}.{p}',
    'downsample_layers.{d}.0.{p}': 'downsample_layers.{d}.0.ln.{p}',
    'downsample_layers.{d}.1.weight': 'downsample_layers.{d}.1.kernel',
    'downsample_layers.{d}.1.bias': 'downsample_layers.{d}.1.bias',
    'stages.{i}.{j}.dwconv.weight': 'stages.{i}.{j}.dwconv.kernel',
    'stages.{i}.{j}.dwconv.bias': 'stages.{i}.{j}.dwconv.bias',
    'stages.{i}.{j}.norm.{p}': 'stages.{i}.{j}.norm.ln.{p}',
    'stages.{i}.{j}.pwconv1.{p}': 'stages.{i}.{j}.pwconv1.linear.{p}',
    'stages.{i}.{j}.grn.gamma': 'stages.{i}.{j}.grn.gamma',
    'stages.{i}.{j}.grn.beta': 'stages.{i}.{j}.grn.beta',
    'stages.{i}.{j}.pwconv2.{p}': 'stages.{i}.{j}.pwconv2.linear.{p}',
}
TIMM: Names = {
    'downsample_layers.0.{k}.{p}': 'stem.{k}.{p}',
    'downsample_layers.{d}.{k}.{p}': 'stages.{d}.downsample.{k}.{p}',
    'stages.{i}.{j}.dwconv.{p}': 'stages.{i}.blocks.{j}.conv_dw.{p}',
    'stages.{i}.{j}.norm.{p}': 'stages.{i}.blocks.{j}.norm.{p}',
    'stages.{i}.{j}.pwconv1.{p}': 'stages.{i}.blocks.{j}.mlp.fc1.{p}',
    'stages.{i}.{j}.grn.gamma': 'stages.{i}.blocks.{j}.mlp.grn.weight',
    'stages.{i}.{j}.grn.beta': 'stages.{i}.blocks.{j}.mlp.grn.bias',
    'stages.{i}.{j}.pwconv2.{p}': 'stages.{i}.blocks.{j}.mlp.fc2.{p}',
    'stages.{i}.{j}.gamma': 'stages.{i}.blocks.{j}.gamma',
    'norm.{p}': 'head.norm.{p}',
}
TIMM_FEATURES: Names = {
    ours: theirs.replace('stem.', 'stem_').replace('stages.', 'stages_')
    for ours, theirs in TIMM.items()
    if ours != 'norm.{p}'
}
TRANSFORMERS: Names = {
    'downsample_layers.0.0.{p}': 'embeddings.patch_embeddings.{p}',
    'downsample_layers.0.1.{p}': 'embeddings.layernorm.{p}',
    'downsample_layers.{d}.{k}.{p}': (
        'encoder.stages.{d}.downsampling_layer.{k}.{p}'
    ),
    'stages.{i}.{j}.dwconv.{p}': 'encoder.stages.{i}.layers.{j}.dwconv.{p}',
    'stages.{i}.{j}.norm.{p}': 'encoder.stages.{i}.layers.{j}.layernorm.{p}',
    'stages.{i}.{j}.pwconv1.{p}': 'encoder.stages.{i}.layers.{j}.pwconv1.{p}',
    'stages.{i}.{j}.grn.gamma': 'encoder.stages.{i}.layers.{j}.grn.weight',
    'stages.{i}.{j}.grn.beta': 'encoder.stages.{i}.layers.{j}.grn.bias',
    'stages.{i}.{j}.pwconv2.{p}': 'encoder.stages.{i}.layers.{j}.pwconv2.{p}',
    'stages.{i}.{j}.gamma': (
        'encoder.stages.{i}.layers.{j}.layer_scale_parameter'
    ),
    'norm{i}.{p}': 'hidden_states_norms.stage{n}.{p}',
    'norm.{p}': 'layernorm.{p}',
}
DINOV3: Names = {
    'downsample_layers.0.{k}.{p}': 'stages.0.downsample_layers.{k}.{p}',
    'downsample_layers.{d}.{k}.{p}': 'stages.{d}.downsample_layers.{k}.{p}',
    'stages.{i}.{j}.dwconv.{p}': 'stages.{i}.layers.{j}.depthwise_conv.{p}',
    'stages.{i}.{j}.norm.{p}': 'stages.{i}.layers.{j}.layer_norm.{p}',
    'stages.{i}.{j}.pwconv1.{p}': 'stages.{i}.layers.{j}.pointwise_conv1.{p}',
    'stages.{i}.{j}.pwconv2.{p}': 'stages.{i}.layers.{j}.pointwise_conv2.{p}',
    'stages.{i}.{j}.gamma': 'stages.{i}.layers.{j}.gamma',
    'norm.{p}': 'layer_norm.{p}',
}
TORCHVISION: Names = {
    'downsample_layers.0.{k}.{p}': 'features.0.{k}.{p}',
    'downsample_layers.{d}.{k}.{p}': 'features.{even}.{k}.{p}',
    'stages.{i}.{j}.dwconv.{p}': 'features.{odd}.{j}.block.0.{p}',
    'stages.{i}.{j}.norm.{p}': 'features.{odd}.{j}.block.2.{p}',
    'stages.{i}.{j}.pwconv1.{p}': 'features.{odd}.{j}.block.3.{p}',
    'stages.{i}.{j}.pwconv2.{p}': 'features.{odd}.{j}.block.5.{p}',
    'stages.{i}.{j}.gamma': 'features.{odd}.{j}.layer_scale',
    'norm.{p}': 'classifier.0.{p}',
}
MMPRETRAIN: Names = {
    ours: ours.replace('dwconv', 'depthwise_conv').replace(
        'pwconv', 'pointwise_conv'
    )
    for ours in OFFICIAL
    if ours != 'norm.{p}'
}


class Format(NamedTuple):
    """One published way to name and shape the same tensors.

    Args:
        anchor: the key that ends in this marks a backbone; the part before
            it is the prefix.
        proof: a key that must exist under the same prefix.
        names: our name to theirs, with index slots.
        also: further names of theirs, to ours.
        reads: tensors that may be stored in another shape.
        drops: keys under the prefix that do not belong to a backbone.
        writes: the shapes an export takes.
        conv_mlp: archs whose linear layers an export writes as 1x1
            convolutions.
        wrap: the dict and the prefix around an exported file.
        licence: of all published weights in this format.
        trunk: it never has a last norm, whatever it was trained for.
        note: what an export of a dense backbone with output norms says.
        norm_beside: the last norm is next to the prefix, not under it, if
            this key is there as well.
    """

    anchor: str
    proof: str
    names: Names
    also: Names = {}
    reads: Tuple[Reshape, ...] = ()
    drops: Tuple[Tuple[str, str], ...] = ()
    writes: Optional[Tuple[Reshape, ...]] = None
    conv_mlp: Tuple[str, ...] = ()
    wrap: Tuple[str, str] = ('', '')
    licence: str = ''
    trunk: bool = False
    note: str = ''
    norm_beside: str = ''


CLASSIFIER = 'classifier'
NATIVE = Format(
    'downsample_layers.0.0.weight',
    'stages.0.0.dwconv.weight',
    OFFICIAL,
    reads=(GRN_ROW, GRN_MAP),
    drops=(
        (r'head\..*', CLASSIFIER),
        (r'fc\..*', CLASSIFIER),
        (r'norms\.3\..*', 'second copy of the last norm (DINOv3)'),
        (r'(norms|projectors)\..*', 'distillation head (EUPE)'),
        (r'(mask_token|(proj|decoder|pred)\..*)', 'decoder of FCMAE'),
    ),
    norm_beside='head.weight',  # of our ImageClassifier
)
FORMATS: Dict[str, Format] = {
    # facebookresearch/ConvNeXt, ConvNeXt-V2, dinov3, EUPE; keyu-tian/SparK;
    # ours, which is spelled alike.
    'official': NATIVE._replace(
        writes=(GRN_MAP,),
        wrap=('model', ''),
        note='norm0 to norm3 are the output norms of dense models; the '
        "authors' classifiers load the file with strict=False",
    ),
    'minkowski': Format(
        'downsample_layers.0.0.weight',
        'stages.0.0.dwconv.kernel',
        MINKOWSKI,
        reads=(SPARSE_CONV, SPARSE_DEPTHWISE, BIAS_ROW, GRN_ROW, GRN_MAP),
    ),
    'timm': Format(
        'stem.0.weight',
        'stages.0.blocks.0.conv_dw.weight',
        TIMM,
        also={'norm_pre.{p}': 'norm.{p}'},
        reads=(CONV_MLP,),
        drops=((r'head\.(fc|pre_logits\.fc)\..*', CLASSIFIER),),
        writes=(),
        conv_mlp=('atto', 'femto', 'pico', 'nano'),
    ),
    'timm_features': Format(
        'stem_0.weight',
        'stages_0.blocks.0.conv_dw.weight',
        TIMM_FEATURES,
        reads=(CONV_MLP,),
        trunk=True,
    ),
    'transformers': Format(
        'embeddings.patch_embeddings.weight',
        'encoder.stages.0.layers.0.dwconv.weight',
        TRANSFORMERS,
        also={
            f'encoder.stages.{{i}}.layers.{{j}}.grn.{name}': (
                f'stages.{{i}}.{{j}}.grn.{name}'
            )
            for name in ('gamma', 'beta')
        },
        reads=(GRN_MAP,),
        writes=(GRN_MAP,),
    ),
    'transformers_dinov3': Format(
        'stages.0.downsample_layers.0.weight',
        'stages.0.layers.0.depthwise_conv.weight',
        DINOV3,
        norm_beside='layer_norm.weight',
        licence='DINOv3 licence (ai.meta.com/resources/models-and-libraries/'
        'dinov3-license)',
    ),
    'torchvision': Format(
        'features.0.0.weight',
        'features.1.0.layer_scale',
        TORCHVISION,
        reads=(SCALE_MAP,),
        drops=((r'classifier\.2\..*', CLASSIFIER),),
    ),
    'mmpretrain': Format(
        'downsample_layers.0.0.weight',
        'stages.0.0.depthwise_conv.weight',
        MMPRETRAIN,
        reads=(CONV_MLP, GRN_ROW, GRN_MAP),
        writes=(),
        wrap=('state_dict', 'backbone.'),
    ),
}
EXPORTS: Dict[str, Format] = {
    **{k: v for k, v in FORMATS.items() if v.writes is not None},
    # main_finetune.py of ConvNeXt-V2 adds two dimensions to any GRN.
    'official_finetune': FORMATS['official']._replace(writes=(GRN_ROW,)),
    'native': NATIVE._replace(
        names={k: v for k, v in OFFICIAL.items() if k != 'norm.{p}'},
        writes=(),
        wrap=('state_dict', ''),
    ),
}
# Relatives that no backbone of ours computes: all of ``has``, none of
# ``without``. They would fail without these rows too, less clearly.
TIMM_BLOCK = r'stages[._]0\.blocks\.0\.conv_dw\.weight'
REFUSED = (
    (
        'an isotropic ConvNeXt',
        (r'stem\.weight', r'blocks\.0\.dwconv\.weight'),
        (),
    ),
    ('EdgeNeXt', (TIMM_BLOCK, r'stages[._]1\.blocks\.\d+\.xca\.\w+'), ()),
    (
        'a timm ConvNeXt with an overlap stem (*_ols)',
        (TIMM_BLOCK, r'stem[._][23]\.weight'),
        (),
    ),
    (
        'a timm ConvNeXt with RMS or simple norms (no norm bias)',
        (TIMM_BLOCK, r'stages[._]0\.blocks\.0\.norm\.weight'),
        (r'stages[._]\d\.blocks\.\d+\.norm\.bias',),
    ),
)
NON_COMMERCIAL_V2 = (
    'published ConvNeXt V2 weights are CC BY-NC 4.0 (non-commercial)'
)
LICENCES = (
    (r'(^|\.)projectors\.|eupe', 'EUPE: FAIR non-commercial research'),
    (r'(^|\.)norms\.3\.|dinov3', FORMATS['transformers_dinov3'].licence),
)


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r'\{(\w+)\}', template)
    for n, part in enumerate(parts):
        slot = f'(?P<{part}>{SLOTS[part]})' if n % 2 else re.escape(part)
        parts[n] = slot
    return re.compile(''.join(parts))


def rename(key: str, pairs: Sequence[Tuple[str, str]]) -> Optional[str]:
    for old, new in pairs:
        match = _pattern(old).fullmatch(key)
        if match:
            slots = match.groupdict()
            for name, (base, down, up) in DERIVED.items():
                if name in slots:
                    slots[base] = down(int(slots[name]))
                elif base in slots:
                    slots[name] = up(int(slots[base]))
            return new.format(**slots)
    return None


def to_ours(row: Format) -> List[Tuple[str, str]]:
    return [(new, old) for old, new in row.names.items()] + [*row.also.items()]


def from_ours(row: Format, names: Mapping[str, Any]) -> List[Tuple[str, str]]:
    """Our names to theirs; the last norm and ``norm3`` share one place."""
    pairs = list(row.names.items())
    if 'norm{i}.{p}' not in row.names and 'norm.weight' not in names:
        pairs.append(('norm3.{p}', row.names['norm.{p}']))
    return pairs
