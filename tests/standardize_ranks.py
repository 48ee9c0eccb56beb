"""What each of two processes runs that standardise a classifier together."""

import torch

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
    state, parts = torch.load(f'{folder}/start.pth', weights_only=False)
    model = classifier()
    model.load_state_dict(state)
    standardize(model, parts[rank])
    torch.save(model.norm.state_dict(), f'{folder}/{rank}.pth')
