"""One of two processes that standardise a classifier together.

Beside the helpers, as a spawned process finds what it runs by its module's
name: ``tests`` itself is a package of mmsegmentation 1.2.2 where that is
installed, so modules of the folders below cannot be found.
"""

import torch
import torch.distributed as dist

from mmconvnext import ImageClassifier
from mmconvnext.training.standardize import standardize


def classifier() -> ImageClassifier:
    """Build a classifier whose last norm is not the identity."""
    backbone = dict(type='mmconvnext.ConvNeXtV2', arch='atto')
    model = ImageClassifier(
        backbone, 3, data_preprocessor=dict(type='ImgDataPreprocessor')
    )
    with torch.no_grad():  # as a loaded classifier has it
        model.norm.weight.uniform_(0.5, 1.5)
        model.norm.bias.normal_()
    return model


def measure_part(rank: int, folder: str) -> None:
    """Standardise by this rank's part of ``start.pth``; save the norm."""
    store = f'file://{folder}/store'
    dist.init_process_group('gloo', store, rank=rank, world_size=2)
    state, parts = torch.load(f'{folder}/start.pth', weights_only=False)
    model = classifier()
    model.load_state_dict(state)
    standardize(model, parts[rank])
    torch.save(model.norm.state_dict(), f'{folder}/{rank}.pth')
    dist.destroy_process_group()
