"""A video in, a video out."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mmconvnext.inference import video
from mmconvnext.inference.pictures import Drawn


def write(path: Path, frames: int, rate: float = 12.0) -> Path:
    code = cv2.VideoWriter_fourcc(*'mp4v')
    writer = cv2.VideoWriter(str(path), code, rate, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 20 * i, np.uint8))
    writer.release()
    return path


class Marking:
    """Predicts the brightness of a frame, and marks its left half."""

    def predict_array(self, image: np.ndarray) -> float:
        assert image.shape == (48, 64, 3) and image.dtype == np.uint8
        return float(image.mean())

    def drawn(self, image: np.ndarray, sample: float) -> Drawn:
        picture = image.copy()
        picture[:, :32] = (255, 0, 0)
        return Drawn({'input': image, 'prediction': picture})


@pytest.mark.parametrize('limit, frames', [(None, 6), (4, 4), (99, 6)])
def test_every_frame_is_drawn(limit, frames: int, tmp_path: Path) -> None:
    source = write(tmp_path / 'in.mp4', 6)
    done = video.predict_video(Marking(), str(source), tmp_path / 'o', limit)
    assert done == (tmp_path / 'o/in.mp4', frames)
    reader = cv2.VideoCapture(str(done.path))
    assert reader.get(cv2.CAP_PROP_FPS) == pytest.approx(12.0)
    for i in range(frames):
        good, frame = reader.read()
        assert good
        assert frame[:, 48:].mean() == pytest.approx(20 * i, abs=8)
        assert frame[24, 10, 2] > 200 and frame[24, 10, 0] < 60
    assert not reader.read()[0]
    assert [p.name for p in (tmp_path / 'o').iterdir()] == ['in.mp4']


def test_interrupting_a_camera_keeps_the_video(tmp_path: Path) -> None:
    class Camera:
        released = False

        def read(self):
            self.count = getattr(self, 'count', 0) + 1
            if self.count > 2:
                raise KeyboardInterrupt
            return True, np.zeros((48, 64, 3), np.uint8)

        def release(self) -> None:
            self.released = True

    camera = Camera()
    assert len(list(video.frames_of(camera, None))) == 2
    assert camera.released


@pytest.mark.parametrize(
    'source, known',
    [
        ('a.mp4', True),
        ('A.MOV', True),
        ('0', True),
        ('rtsp://camera/1', True),
        ('folder', False),
        ('0.jpg', False),
    ],
)
def test_what_is_a_video(source: str, known: bool) -> None:
    assert video.is_video(source) == known


def test_wrong_videos_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='gone.mp4'):
        video.open_video(str(tmp_path / 'gone.mp4'))
    bad = tmp_path / 'bad.mp4'
    bad.write_bytes(b'no video')
    with pytest.raises(ValueError, match='bad.mp4: not a video'):
        video.open_video(str(bad))
    assert not [p for p in tmp_path.iterdir() if p != bad]
