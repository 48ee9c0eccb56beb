"""What FSDP wraps: whole blocks, since only their forward pass is called."""

from __future__ import annotations

from torch import nn

from .convnext import ConvNeXtBlock


def wrap_blocks(
    module: nn.Module, recurse: bool, nonwrapped_numel: int
) -> bool:
    """Choose each block for FullyShardedDataParallel, and no other part.

    A wrapped module has whole parameters only while its own forward pass
    runs. A block hands the parameters of its layers to the ops, and a
    backbone calls the blocks of a stage one by one: neither a layer nor a
    stage may be wrapped, as a policy by size would.

    Args:
        module: the candidate.
        recurse: whether FSDP asks to look inside of it.
        nonwrapped_numel: its parameters; not used.
    """
    return recurse or isinstance(module, ConvNeXtBlock)
