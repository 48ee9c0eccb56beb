"""Batch norm over maps of one pixel, which one image alone cannot train."""

from __future__ import annotations

from typing import List

from torch import nn

BATCH_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
)


def lone_norms(model: nn.Module) -> List[str]:
    """List the parts that pool a map to one pixel and batch-normalise it.

    The pyramid pooling of PSPNet and UPerNet and the image pooling of
    DeepLab do. Each channel has then one value for each image, and with one
    image no variance: PyTorch raises an error in the first step.
    """
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Sequential)
        and len(module)
        and isinstance(module[0], nn.AdaptiveAvgPool2d)
        and module[0].output_size in (1, (1, 1), [1, 1])
        and any(isinstance(part, BATCH_NORMS) for part in module.modules())
    ]


def check_batch(model: nn.Module, batch_size: int, processes: int) -> None:
    """Refuse to train such parts with one image.

    Args:
        batch_size: images of a step in each process.
        processes: which SyncBN joins, and BN does not.

    Raises:
        ValueError: names the first such part and the ways out.
    """
    names = lone_norms(model)
    synced = any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
    if not names or batch_size * (processes if synced else 1) > 1:
        return
    raise ValueError(
        f'train_dataloader.batch_size={batch_size}: {names[0]} normalises '
        f'one pixel of each image over the batch, which needs two images. '
        f'Use train_dataloader.batch_size=2 or more (with half the '
        f'optim_wrapper.accumulative_counts), several processes with SyncBN, '
        f"or norm_cfg=dict(type='GN', num_groups=32) in the heads"
    )
