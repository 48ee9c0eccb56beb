"""Predictions on a video file or a camera, as a video."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Optional

import cv2
import numpy as np

from ..files import whole_file
from .pictures import Drawn, side_by_side

ENDINGS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')
STREAM = re.compile(r'\d+$|(rtsp|rtmp|https?|udp)://')
RATE = 25.0  # frames a second, where a camera does not say


class Video(NamedTuple):
    """A video that was written: its file and its number of frames."""

    path: Path
    frames: int


def is_video(source: str) -> bool:
    """Whether a source is a video's file, a camera's number or a stream."""
    return bool(STREAM.match(source) or Path(source).suffix.lower() in ENDINGS)


def open_video(source: str) -> Any:
    """Open a video or a camera.

    Raises:
        FileNotFoundError: for a file that is not there.
        ValueError: for one that OpenCV cannot read.
    """
    stream = bool(STREAM.match(source))
    if not stream and not Path(source).is_file():
        raise FileNotFoundError(f'video not found: {source}')
    reader = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not reader.isOpened():
        kind = 'camera or stream' if stream else 'video'
        raise ValueError(f'{source}: not a {kind} that OpenCV can open')
    return reader


def frames_of(reader: Any, limit: Optional[int]) -> Iterator[np.ndarray]:
    """Yield frames, RGB ``(H, W, 3)``, until the end, ``limit`` or Ctrl-C."""
    count = 0
    try:
        while limit is None or count < limit:
            good, frame = reader.read()
            if not good:
                return
            yield np.ascontiguousarray(frame[..., ::-1])
            count += 1
    except KeyboardInterrupt:
        return
    finally:
        reader.release()


def predict_video(
    predictor: Any, source: str, out: Path, limit: Optional[int] = None
) -> Video:
    """Draw predictions on all frames of a video.

    Args:
        predictor: a :class:`.Predictor`.
        source: file, number of a camera, or address of a stream.
        out: folder; the video is ``NAME.mp4`` in it.
        limit: frames to read; None reads to the end, or until Ctrl-C.

    Raises:
        FileNotFoundError, ValueError: as :func:`open_video`, and for a video
            without a frame.
        OSError: where it cannot be written.
    """
    from rich.progress import track

    reader = open_video(source)
    rate = reader.get(cv2.CAP_PROP_FPS)
    rate = rate if 1 <= rate <= 240 else RATE
    total = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) or limit
    path = Path(out) / f'{_name(source)}.mp4'
    frames = frames_of(reader, limit)
    count, writer = 0, None
    with whole_file(path) as part:
        for frame in track(frames, 'predicting', total=total):
            drawn = predictor.drawn(frame, predictor.predict_array(frame))
            picture = _picture(drawn)
            if writer is None:
                writer = _writer(part, rate, picture)
            writer.write(np.ascontiguousarray(picture[..., ::-1]))
            count += 1
        if writer is None:
            raise ValueError(f'{source}: not one frame could be read')
        writer.release()
    return Video(path, count)


def _picture(drawn: Drawn) -> np.ndarray:
    """Return the prediction; classes are beside the frame, not on it."""
    if drawn.sample is not None and 'pred_scores' in drawn.sample:
        return side_by_side(list(drawn.panels.values()))
    return drawn.panels['prediction']


def _name(source: str) -> str:
    return 'camera' if STREAM.match(source) else Path(source).stem


def _writer(path: Path, rate: float, picture: np.ndarray) -> Any:
    code = cv2.VideoWriter_fourcc(*'mp4v')
    height, width = picture.shape[:2]
    writer = cv2.VideoWriter(str(path), code, rate, (width, height))
    if not writer.isOpened():
        raise OSError(f'OpenCV cannot write a video to {path.parent}')
    return writer
