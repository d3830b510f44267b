"""Meshes in, pictures out."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from handmesh.errors import InputError
from handmesh_training.rendering import native
from handmesh_training.rendering.appearance import Appearance
from handmesh_training.rendering.arrays import checked
from handmesh_training.rendering.environments import BackgroundSet, EnvironmentSet
from handmesh_training.rendering.grounds import GROUND_FLOATS
from handmesh_training.rendering.mesh import RenderMesh
from handmesh_training.rendering.skins import SkinSet
from handmesh_training.rendering.solids import SOLID_FLOATS, SOLIDS

NO_PART = 255


@dataclass(frozen=True)
class Rendered:
    """Pictures of B hands.

    Attributes:
        image: (B, S, S, 3) uint8 RGB.
        mask: (B, S, S) uint8 share of the pixel that the hand covers, 0..255.
        depth: (B, S, S) float32 metres of the nearest surface in the pixel, 0 = none; or None.
        parts: (B, S, S) uint8 part label of that surface, 255 = none; or None.
        normals: (B, S, S, 3) float32 its unit normal, outward, camera frame (+x right, +y down,
            +z away), 0 = none; or None.

    All but the image are of the hand alone: what hides it leaves a hole in them.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32] | None
    parts: npt.NDArray[np.uint8] | None
    normals: npt.NDArray[np.float32] | None = None


class Renderer:
    """Draws one mesh in any pose and look.

    Visibility is sampled on a grid of 2 x 2 a pixel, for the hand and the things around it alike;
    light is averaged over the samples before the camera's response bends it.

    The same input gives the same bytes on one machine, whatever the number of threads.

    Args:
        mesh: what is drawn.
        skins: skin textures.
        environments: their panoramas are the first backgrounds.
        backgrounds: photos, the backgrounds after these.
        size: side S of the pictures in px.
        threads: pictures are shared out among so many threads.
        shadow_size: side of the key light's shadow map in texels.

    Raises:
        InputError: a size or thread count out of range, or skins that do not fit the mesh.
        BackendUnavailable: no C++ compiler is installed.
        BackendError: the compiled code cannot be built or loaded.
    """

    def __init__(
        self,
        mesh: RenderMesh,
        skins: SkinSet,
        environments: EnvironmentSet,
        backgrounds: BackgroundSet | None = None,
        *,
        size: int = 128,
        threads: int = 1,
        shadow_size: int = 96,
    ) -> None:
        for name, value, low, high in (
            ("size", size, 8, 2048),
            ("threads", threads, 1, 256),
            ("shadow_size", shadow_size, 8, 1024),
        ):
            if not low <= value <= high:
                raise InputError(f"{name}: expected {low} to {high}, got {value}")
        self.mesh = mesh
        self.skins = skins
        self.size = size
        self.threads = threads
        self.shadow_size = shadow_size
        sets = [environments.panoramas] + ([backgrounds] if backgrounds is not None else [])
        self._backgrounds = BackgroundSet.joined(sets)
        self._is_panorama = self._backgrounds.is_panorama.astype(np.uint8)
        self._uv = skins.map_uv(mesh)
        bare = np.full(mesh.vertex_count, -1.0, dtype=np.float32)
        self._arm = bare if mesh.arm is None else mesh.arm
        self._fan_start, self._fan = mesh.fans()
        self._library = native.load()

    def render(
        self,
        vertices: npt.NDArray[np.floating],
        camera: npt.NDArray[np.floating],
        appearance: Appearance,
        *,
        depth: bool = False,
        parts: bool = False,
        normals: bool = False,
    ) -> Rendered:
        """Draws B hands.

        Args:
            vertices: (B, V, 3) metres, camera frame (+x right, +y down, +z away).
            camera: (B, 4) fx, fy, cx, cy in px of the picture; pixel centres at integers.
            appearance: look of each picture, as ``sample_appearance`` draws it.
            depth: also return depth.
            parts: also return part labels.
            normals: also return normals.

        Raises:
            InputError: an array of a wrong shape or dtype, not finite, or out of range.
        """
        shape = (None, self.mesh.vertex_count, 3)
        points = checked("vertices", vertices, np.float32, shape, low=-100.0, high=100.0)
        count = len(points)
        lens = checked("camera", camera, np.float32, (count, 4), low=-1e5, high=1e5)
        if count and lens[:, :2].min() <= 0:
            raise InputError("camera: focal lengths must be positive")
        look = self._checked_appearance(appearance, count)
        side = self.size
        result = Rendered(
            image=np.empty((count, side, side, 3), dtype=np.uint8),
            mask=np.empty((count, side, side), dtype=np.uint8),
            depth=np.empty((count, side, side), dtype=np.float32) if depth else None,
            parts=np.empty((count, side, side), dtype=np.uint8) if parts else None,
            normals=np.empty((count, side, side, 3), dtype=np.float32) if normals else None,
        )
        if count == 0:
            return result
        mesh = native.Mesh(
            faces=self.mesh.faces.ctypes.data,
            uv=self._uv.ctypes.data,
            parts=self.mesh.parts.ctypes.data,
            arm=self._arm.ctypes.data,
            fan_start=self._fan_start.ctypes.data,
            fan=self._fan.ctypes.data,
            vertex_count=self.mesh.vertex_count,
            face_count=len(self.mesh.faces),
        )
        batch = native.Batch(
            vertices=points.ctypes.data,
            camera=lens.ctypes.data,
            is_panorama=self._is_panorama.ctypes.data,
            count=count,
            size=side,
            shadow_size=self.shadow_size,
            **{name: array.ctypes.data for name, array in look.items()},
        )
        output = native.Output(
            image=result.image.ctypes.data,
            mask=result.mask.ctypes.data,
            depth=None if result.depth is None else result.depth.ctypes.data,
            parts=None if result.parts is None else result.parts.ctypes.data,
            normals=None if result.normals is None else result.normals.ctypes.data,
        )
        self._library.hm_render(
            ctypes.byref(mesh),
            ctypes.byref(self.skins.textures.native()),
            ctypes.byref(self._backgrounds.textures.native()),
            ctypes.byref(batch),
            ctypes.byref(output),
            ctypes.c_int32(min(self.threads, count)),
        )
        return result

    def _checked_appearance(
        self, appearance: Appearance, count: int
    ) -> dict[str, npt.NDArray[Any]]:
        last = float(self._backgrounds.textures.offset.shape[1] - 1)
        skins, places = len(self.skins) - 1, len(self._backgrounds) - 1
        rules: dict[str, tuple[Any, tuple[int, ...], float | None, float | None]] = {
            "skin": (np.int32, (), 0, skins),
            "skin_gain": (np.float32, (3,), 0.0, 1e6),
            "skin_contrast": (np.float32, (), 0.0, 10.0),
            "irradiance": (np.float32, (9, 3), -1e4, 1e4),
            "key_direction": (np.float32, (3,), -1.001, 1.001),
            "key_light": (np.float32, (3,), 0.0, 1e4),
            "gloss": (np.float32, (3,), 0.0, 100.0),
            "relief": (np.float32, (), 0.0, 1.0),
            "occlusion": (np.float32, (2,), 0.0, 1.0),
            "sleeve": (np.float32, (6,), 0.0, 100.0),
            "solids": (np.float32, (SOLIDS, SOLID_FLOATS), -1e6, 1e6),
            "ground": (np.float32, (GROUND_FLOATS,), -1e6, 1e6),
            "ground_texture": (np.int32, (), -1, places),
            "background": (np.int32, (), 0, places),
            "background_map": (np.float32, (3, 3), -1e4, 1e4),
            "background_blur": (np.float32, (), 0.0, last),
            "background_gain": (np.float32, (3,), 0.0, 1e4),
            "exposure": (np.float32, (3,), 0.0, 1e4),
            "tone": (np.float32, (2,), 0.0, 10.0),
        }
        return {
            name: checked(
                f"appearance.{name}",
                getattr(appearance, name),
                dtype,
                (count, *shape),
                low=low,
                high=high,
            )
            for name, (dtype, shape, low, high) in rules.items()
        }
