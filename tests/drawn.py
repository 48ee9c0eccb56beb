"""Artificial pictures and scores for the tests of drawing."""

import math

import numpy as np

from mmconvnext.inference.scores import Score


def picture(height: int = 40, width: int = 60, value: int = 90) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def score(**classes: float) -> Score:
    rows = {name: {'IoU': value} for name, value in classes.items()}
    known = [value for value in classes.values() if not math.isnan(value)]
    mean = sum(known) / len(known) if known else math.nan
    return Score({'IoU': mean}, rows)
