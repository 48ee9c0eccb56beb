"""Run an exported segmentor by onnxruntime, numpy and Pillow alone.

python example.py model.onnx image.jpg labels.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def taps(old, new):  # the two neighbours of each new pixel, and their weights
    at = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
    low = np.floor(at).astype(int)
    pairs = ((low, low + 1 - at), (low + 1, at - low))
    return [(np.clip(i, 0, old - 1), w.astype(np.float32)) for i, w in pairs]


def resize_image(x, h, w):  # uint8, as OpenCV: weights have 11 bits
    if x.shape[:2] == (2 * h, 2 * w):
        return (x.reshape(h, 2, w, 2, 3).sum((1, 3)) + 2) // 4
    across, down = (
        [(i, np.rint(p * 2048).astype(int)) for i, p in taps(old, new)]
        for old, new in ((x.shape[1], w), (x.shape[0], h))
    )
    x = sum(x[:, i] * p[:, None] for i, p in across)
    return sum((x[i] >> 4) * p[:, None, None] >> 16 for i, p in down) + 2 >> 2


session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map['mmconvnext'])
upright = ImageOps.exif_transpose(Image.open(sys.argv[2]))
image = np.asarray(upright.convert('RGB'))
height, width = h, w = image.shape[:2]
rule = about['resize']  # this example: whole images, scale with keep_ratio
if rule:
    long, short = max(rule['scale']), min(rule['scale'])
    factor = min(long / max(h, w), short / min(h, w))
    h, w = int(h * factor + 0.5), int(w * factor + 0.5)
    image = resize_image(image, h, w)
bgr = image[..., ::-1].transpose(2, 0, 1)[None].astype(np.uint8)
x = session.run(['logits'], {'image': bgr})[0][0]
if (h, w) != (height, width):
    x = sum(x[:, :, i] * p for i, p in taps(w, width))
    x = sum(x[:, i] * p[:, None] for i, p in taps(h, height))
Image.fromarray(x.argmax(0).astype(np.uint8)).save(sys.argv[3])
