"""Predict with a trained model, draw it, score it against labels.

    from mmconvnext import mmcv_ops
    from mmconvnext.inference import Predictor

    mmcv_ops.install()  # operators, where mmcv comes without
    predictor = Predictor('config.py', 'checkpoint.pth')
    predictor.draw('image.jpg').panels['prediction']  # RGB, (H, W, 3)

Importing ``mmconvnext`` does not import this folder.
"""

from .folder import Prediction, predict_folder
from .pictures import Drawn, Painter
from .predictor import Predictor, load_model
from .scores import Score, scorer

__all__ = [
    'Drawn',
    'Painter',
    'Prediction',
    'Predictor',
    'Score',
    'load_model',
    'predict_folder',
    'scorer',
]
