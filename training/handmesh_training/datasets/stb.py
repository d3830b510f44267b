"""STB, the Stereo hand Tracking Benchmark (Zhang et al., ICIP 2017): one left hand, two cameras.

Layout: sequences ``B1Counting``, ``B1Random``, ..., ``B6Random``, in the folder itself or in
``images/``, with 640x480 pictures ``BB_left_N.png``, ``BB_right_N.png`` (a stereo camera),
``SK_color_N.png`` and ``SK_depth_N.png`` (a depth camera), N from 0. Labels ``B1Counting_BB.mat``
and ``_SK.mat``, in the folder itself or in ``labels/``, hold ``handPara``: 3 x 21 x N millimetres,
in the frame of the left camera of the stereo pair and in that of the depth camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from handmesh.errors import ImageError, InputError
from handmesh.imaging import decode

from .dataset import Dataset
from .joints import Array, intrinsic_matrix, project
from .reading import mat_shape, read_mat, read_pixels
from .sample import Sample

MM = 1e-3
PICTURE = (480, 640)
SEQUENCES = {
    "test": ("B1Counting", "B1Random"),
    "train": tuple(f"B{k}{kind}" for k in range(2, 7) for kind in ("Counting", "Random")),
}
# Theirs: palm centre, then little, ring, middle, index and thumb, each from its base to its tip.
PALM, RING_MCP = 0, 5
FROM_THEIRS = np.array([PALM, *(base + k for base in (17, 13, 9, 5, 1) for k in range(4))])

STEREO = intrinsic_matrix(822.79041, 822.79041, 318.47345, 250.31296)
COLOUR = intrinsic_matrix(607.92271, 607.88192, 314.78337, 236.42484)
DEPTH = intrinsic_matrix(475.62768, 474.77709, 336.41179, 238.77962)
BASELINE_M = 0.120054
# Points of the depth camera's frame to the colour camera's: X_colour = (X_depth - shift) @ turn.
DEPTH_TURN: Array = np.asarray(cv2.Rodrigues(np.array([0.00531, -0.01196, 0.00301]))[0])
DEPTH_SHIFT_M = np.array([-24.0381, -0.4563, -1.2326]) * MM


@dataclass(frozen=True)
class View:
    """One of the cameras: what its pictures are called, which labels it has, and where it stands.

    Points of the labels' frame are (X - shift_m) @ turn in this camera's.
    """

    picture: str
    labels: str
    intrinsics: Array
    shift_m: Array
    turn: Array


VIEWS = {
    "sk": View("SK_color", "SK", COLOUR, DEPTH_SHIFT_M, DEPTH_TURN),
    "bb_left": View("BB_left", "BB", STEREO, np.zeros(3), np.eye(3)),
    "bb_right": View("BB_right", "BB", STEREO, np.array([BASELINE_M, 0.0, 0.0]), np.eye(3)),
}


class Recording(NamedTuple):
    """One recording: its name, its label file, and how many pictures it has."""

    name: str
    labels: Path
    pictures: int


class Stb(Dataset):
    """One camera's pictures of the training or the test sequences; see `Dataset`.

    Samples of the ``sk`` splits carry the depth map, moved into the colour camera. The wrist, which
    is not labelled, lies as far beyond the palm's centre as the ring finger's knuckle before it.
    """

    splits = tuple(f"{part}_{view}" for part in ("train", "test") for view in VIEWS)
    evaluation_split = "test_sk"

    def __init__(self, folder: Path | str, split: str) -> None:
        super().__init__(folder, split)
        part, _, view = split.partition("_")
        self._view = VIEWS[view]
        self._pictures = self._inner("images")
        self._sequences = [self._open(name) for name in SEQUENCES[part]]
        self._starts = np.cumsum([0, *(sequence.pictures for sequence in self._sequences)])

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return any((folder / inner / "B1Counting_SK.mat").is_file() for inner in ("", "labels"))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _inner(self, name: str) -> Path:
        return self.folder / name if (self.folder / name).is_dir() else self.folder

    def _open(self, name: str) -> Recording:
        pictures = self._pictures / name
        if not pictures.is_dir():
            raise InputError(f"{pictures} is missing: expected the pictures of sequence {name}")
        path = self._inner("labels") / f"{name}_{self._view.labels}.mat"
        shape = mat_shape(path, "handPara", "labels of STB")
        if len(shape) != 3 or shape[:2] != (3, 21):
            raise InputError(f"{path}: expected handPara of shape (3, 21, N), got {shape}")
        return Recording(name, path, shape[2])

    def _read(self, index: int) -> Sample:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        sequence, frame = self._sequences[number], index - int(self._starts[number])
        view = self._view
        labels = self._keep(
            sequence.name, lambda: read_mat(sequence.labels, "handPara", "labels of STB")
        )
        joints_m = (ours_from_theirs(labels[:, :, frame].T * MM) - view.shift_m) @ view.turn
        place = self._pictures / sequence.name
        path = place / f"{view.picture}_{frame}.png"
        image = decode(path)
        if image.shape[:2] != PICTURE:
            raise ImageError(
                f"{path}: expected 640x480 pixels, for which the camera is calibrated, "
                f"got {image.shape[1]}x{image.shape[0]}"
            )
        depth_m = None
        if view.labels == "SK":
            depth_m = depth_in_colour(read_depth(place / f"SK_depth_{frame}.png"))
        return Sample(
            key=f"{sequence.name}/{view.picture}_{frame}",
            image=image,
            is_right=False,
            joints_px=project(joints_m, view.intrinsics),
            joint_known=np.ones(21, dtype=bool),
            intrinsics=view.intrinsics.copy(),
            joints_m=joints_m,
            depth_m=depth_m,
        )


def ours_from_theirs(points: Array) -> Array:
    """(21, 3) in their order to ours, the palm's centre replaced by the wrist."""
    ours = points[FROM_THEIRS]
    ours[0] = points[RING_MCP] + 2 * (points[PALM] - points[RING_MCP])
    return ours


def read_depth(path: Path) -> NDArray[np.float32]:
    """(480, 640) float32 metres as the depth camera saw them, 0 where it saw nothing.

    Raises:
        ImageError: missing, truncated, or not such a picture.
    """
    coded = read_pixels(path, 3, "a depth map of STB")
    if coded.shape[:2] != PICTURE:
        raise ImageError(f"{path}: expected 640x480 pixels, got {coded.shape[1]}x{coded.shape[0]}")
    millimetres = coded[..., 0] + 256.0 * coded[..., 1]
    return (millimetres * MM).astype(np.float32)


def depth_in_colour(depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """A depth map of the depth camera as the colour camera would see it; both (480, 640) metres.

    Each pixel is moved as a point and covers the 2 x 2 pixels around where it lands (the colour
    camera's pixels are finer); the nearest surface wins, what nothing lands on is 0.
    """
    rows, columns = np.nonzero(depth_m)
    z = depth_m[rows, columns].astype(np.float64)
    rays = np.stack([columns, rows, np.ones_like(rows)], axis=1) @ np.linalg.inv(DEPTH).T
    points = (rays * z[:, None] - DEPTH_SHIFT_M) @ DEPTH_TURN  # (N, 3)
    points = points[points[:, 2] > 0]
    corner = np.floor(project(points, COLOUR)).astype(np.int64)  # (N, 2)
    height, width = depth_m.shape
    seen = np.full(height * width, np.inf)
    for step in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = (corner + step).T
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        np.minimum.at(seen, y[inside] * width + x[inside], points[inside, 2])
    seen[np.isinf(seen)] = 0
    return seen.reshape(height, width).astype(np.float32)


LAYOUT = Stb
