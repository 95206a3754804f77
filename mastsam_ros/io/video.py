"""H.264 in MP4, as every browser plays it."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from mastsam_ros.types import MissingPackageError


class VideoWriter:
    """Pictures as a video; the same ones give the same bytes.

    target: a file's path, or a buffer. crf: x264's quality, 0 (lossless) to 51. Raises MissingPackageError without
    PyAV.
    """

    def __init__(self, target: Path | BytesIO, fps: float, crf: int) -> None:
        try:
            import av
        except ImportError as error:
            raise MissingPackageError("writing a video needs PyAV: pip install av") from error
        self._frame_type = av.VideoFrame
        if isinstance(target, Path):
            # The index comes first, so that browsers play it while it comes; FFmpeg opens the file anew for that.
            self._container = av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"})
        else:
            self._container = av.open(target, "w", format="mp4")
        self._stream: Any = self._container.add_stream("h264", rate=Fraction(fps).limit_denominator(1000))
        self._stream.pix_fmt = "yuv420p"
        # x264's macroblock tree looks at memory beyond the picture: with it no two files are the same.
        self._stream.options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0"}
        self.count = 0
        """Pictures written."""

    def write(self, picture: npt.NDArray[np.uint8]) -> None:
        """Encodes one picture (H, W, 3) uint8 RGB; one of another size than the first is scaled to it."""
        # H.264 with 4:2:0 colour has even sizes only.
        height, width = (length // 2 * 2 for length in picture.shape[:2])
        if self.count == 0:
            self._stream.width, self._stream.height = width, height
        size = (self._stream.width, self._stream.height)
        if (width, height) != size:
            picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        picture = np.ascontiguousarray(picture[: size[1], : size[0]])
        self._container.mux(self._stream.encode(self._frame_type.from_ndarray(picture, format="rgb24")))
        self.count += 1

    def close(self) -> None:
        """Finishes the file."""
        if self.count:
            self._container.mux(self._stream.encode())
        self._container.close()
