"""The synthetic set of Ge et al. (CVPR 2019): 500 gestures of a left hand, 25 cameras, 30 lights.

Layout: ``images/l01/cam01/*_.0001.png`` to ``l30/cam25/*_.0500.png``, RGBA with the hand's mask as
alpha; in ``3D_labels/`` (or the folder itself) ``camPosition.txt``, for each gesture a line for
each camera, ``cam01 focal tx ty tz rx ry rz`` (pixels, centimetres, degrees), and
``handGestures.txt``, for each gesture 21 lines ``name x y z`` in centimetres, in our joint order;
in ``hand_3D_mesh/`` a ``.obj`` in centimetres for each gesture, ``*0001.obj``.

A point of the world is (X - t) @ R in the camera, R = Rz Ry Rx diag(1, -1, -1). The picture is cut
so that the camera looks through its middle.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from handmesh.errors import ImageError, InputError
from handmesh.imaging import decode

from .dataset import Dataset, require_file
from .joints import Array, from_corner, intrinsic_matrix, project
from .reading import read_pixels
from .sample import Sample

CM = 1e-2
CAMERAS = 25
HELD_OUT = (6, 12, 20, 21)
# A mesh whose middle is farther than this from its joints' is in other units or of another gesture.
MESH_NEARBY_M = 0.1


class GeSynthetic(Dataset):
    """All pictures of the training or the validation cameras; see `Dataset`.

    Args:
        folder: where the set lies. split: ``train`` or ``val``.
        backgrounds: photos to put behind the hands, each picture always before the same one.
    """

    splits = ("train", "val")
    evaluation_split = "val"

    def __init__(self, folder: Path | str, split: str, backgrounds: tuple[Path, ...] = ()) -> None:
        super().__init__(folder, split)
        inner = self.folder / "3D_labels"
        self._labels = inner if inner.is_dir() else self.folder
        for name, what in (("camPosition", "cameras"), ("handGestures", "joints")):
            require_file(self._labels / f"{name}.txt", f"the {what} of Ge et al.'s set")
        if not len(self):
            raise InputError(
                f"{self.folder / 'images'} holds no picture of the {split} cameras: "
                "expected l01/cam01/*_.0001.png, ..."
            )
        self._backgrounds = backgrounds

    def _pictures(self) -> list[Path]:
        """In the order of their names. Hundreds of thousands: listed anew by each process."""
        held_out = {f"cam{number:02d}" for number in HELD_OUT}
        return [
            path
            for path in sorted((self.folder / "images").glob("l[0-9][0-9]/cam[0-9][0-9]/*.png"))
            if (path.parent.name in held_out) == (self.split == "val")
        ]

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return any((folder / inner / "camPosition.txt").is_file() for inner in ("", "3D_labels"))

    def __len__(self) -> int:
        return len(self._keep("pictures", self._pictures))

    def group_of(self, index: int) -> int:
        """Of one gesture, from all sides and in all lights."""
        return self._numbers(self._keep("pictures", self._pictures)[index])[0]

    def _read(self, index: int) -> Sample:
        path = self._keep("pictures", self._pictures)[index]
        gesture, camera = self._numbers(path)
        cameras = self._keep("cameras", lambda: read_cameras(self._labels / "camPosition.txt"))
        gestures = self._keep("gestures", lambda: read_gestures(self._labels / "handGestures.txt"))
        if gesture >= min(len(cameras), len(gestures)) or camera >= CAMERAS:
            raise InputError(
                f"{path} is of gesture {gesture + 1} and camera {camera + 1}; the labels have "
                f"{len(gestures)} gestures, {len(cameras)} of them with {CAMERAS} cameras"
            )
        rgba = read_pixels(path, 4, "a picture of Ge et al.'s set with the mask as alpha")
        image, mask = np.ascontiguousarray(rgba[..., :3]), rgba[..., 3].copy()
        if self._backgrounds:
            behind = decode(self._backgrounds[index % len(self._backgrounds)])
            image = composite(image, mask, behind)
        focal, shift_cm, angles = np.split(cameras[gesture, camera], [1, 4])
        turn = camera_rotation(angles)
        height, width = mask.shape
        intrinsics = intrinsic_matrix(focal[0], focal[0], width / 2, height / 2)
        intrinsics = from_corner(intrinsics)
        joints_m = (gestures[gesture] - shift_cm) @ turn * CM
        vertices_m = self._mesh(gesture)
        if vertices_m is not None:
            vertices_m = (vertices_m - shift_cm * CM) @ turn
            away = np.linalg.norm(vertices_m.mean(axis=0) - joints_m.mean(axis=0))
            if away > MESH_NEARBY_M:
                raise InputError(
                    f"the mesh of gesture {gesture + 1} lies {away:.2f} m from its joints; "
                    "expected centimetres in the frame of handGestures.txt"
                )
        return Sample(
            key="/".join(path.with_suffix("").parts[-3:]),
            image=image,
            is_right=False,
            joints_px=project(joints_m, intrinsics),
            joint_known=np.ones(21, dtype=bool),
            intrinsics=intrinsics,
            joints_m=joints_m,
            vertices_m=None if vertices_m is None else vertices_m.astype(np.float32),
            mask=mask,
        )

    @staticmethod
    def _numbers(path: Path) -> tuple[int, int]:
        """Gesture and camera of a picture, counted from zero."""
        try:
            return int(path.stem.rpartition(".")[2]) - 1, int(path.parent.name[3:]) - 1
        except ValueError as error:
            raise InputError(f"{path}: expected a name that ends in the gesture, _.0001.png") from (
                error
            )

    def _mesh(self, gesture: int) -> Array | None:
        """(V, 3) metres in the world's frame, if the set is there with its meshes."""
        folder = self.folder / "hand_3D_mesh"
        files = self._keep("meshes", lambda: sorted(folder.glob("*.obj")))
        if not files:
            return None
        path = next((p for p in files if p.stem.endswith(f"{gesture + 1:04d}")), None)
        if path is None:
            raise InputError(f"{folder} holds no mesh *{gesture + 1:04d}.obj")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        rows = [line.split()[1:4] for line in lines if line.startswith("v ")]
        try:
            return np.array(rows, dtype=np.float64).reshape(-1, 3) * CM
        except ValueError as error:
            raise InputError(f"{path} is not a complete .obj file: {error}") from error


def camera_rotation(angles_deg: Array) -> Array:
    """(3, 3) R of (X - t) @ R, from rotations about x, y and z in degrees."""
    about_x, about_y, about_z = (cv2.Rodrigues(axis)[0] for axis in np.diag(np.deg2rad(angles_deg)))
    return np.asarray(about_z @ about_y @ about_x @ np.diag([1.0, -1.0, -1.0]))


def read_cameras(path: Path) -> Array:
    """(gestures, 25, 7): focal length in pixels, position in centimetres, angles in degrees.

    Raises:
        InputError: a line of another form, or gestures without all cameras.
    """
    return _read_table(path, CAMERAS, 7)


def read_gestures(path: Path) -> Array:
    """(gestures, 21, 3) joints in centimetres, world frame. Raises as `read_cameras`."""
    return _read_table(path, 21, 3)


def _read_table(path: Path, rows: int, columns: int) -> Array:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    fields = [line.split() for line in lines if line.strip()]
    try:
        table = np.array([field[1:] for field in fields], dtype=np.float64)
        if not len(table):
            raise ValueError("no lines")
        return table.reshape(-1, rows, columns)
    except ValueError as error:
        raise InputError(
            f"{path}: expected {rows} lines for each gesture, of a name and {columns} numbers "
            f"({error}); fetch it again"
        ) from error


def composite(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], behind: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """A hand before a photo, of which as much is taken as fills the picture.

    Args:
        image: (H, W, 3) uint8, colours not multiplied by the mask (as PNG has it).
        mask: (H, W) uint8. behind: (H', W', 3) uint8 of any size.

    Raises:
        ImageError: image and mask differ in size.
    """
    height, width = image.shape[:2]
    if mask.shape != (height, width):
        raise ImageError(f"an image of {image.shape[:2]} has a mask of {mask.shape}")
    scale = max(height / behind.shape[0], width / behind.shape[1])
    size = (max(width, round(behind.shape[1] * scale)), max(height, round(behind.shape[0] * scale)))
    filled = cv2.resize(behind, size, interpolation=cv2.INTER_AREA)
    x, y = (size[0] - width) // 2, (size[1] - height) // 2
    share = mask[..., None].astype(np.float32) / 255
    mixed = image * share + filled[y : y + height, x : x + width] * (1 - share)
    return np.asarray(np.round(mixed), dtype=np.uint8)


LAYOUT = GeSynthetic
