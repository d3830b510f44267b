"""Meshes in, pictures out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from handmesh.errors import InputError
from handmesh_training.rendering import native
from handmesh_training.rendering.appearance import Appearance
from handmesh_training.rendering.devices import open_device
from handmesh_training.rendering.environments import BackgroundSet, EnvironmentSet
from handmesh_training.rendering.grounds import GROUND_FLOATS
from handmesh_training.rendering.mesh import RenderMesh
from handmesh_training.rendering.skins import SkinSet
from handmesh_training.rendering.solids import SOLID_FLOATS, SOLIDS
from handmesh_training.rendering.textures import LEVELS, TextureStack

NO_PART = 255


@dataclass(frozen=True)
class Rendered:
    """Pictures of B hands: NumPy arrays, or tensors on the renderer's GPU.

    Attributes:
        image: (B, S, S, 3) uint8 RGB.
        mask: (B, S, S) uint8 share of the pixel in which the bare hand is seen, 0..255.
        depth: (B, S, S) float32 metres of its nearest surface in the pixel, 0 = none; or None.
        parts: (B, S, S) uint8 part label of the mesh's nearest surface, 255 = none; or None.
        normals: (B, S, S, 3) float32 unit normal of that surface, outward, camera frame (+x right,
            +y down, +z away), 0 = none; or None.

    All but the image are of the mesh alone: what hides it leaves a hole in them. Mask and depth are
    of the faces that `RenderMesh.hand` names, where no sleeve lies on them; parts and normals of
    the whole mesh, arms, sleeves and a partner included.
    """

    image: Any
    mask: Any
    depth: Any
    parts: Any
    normals: Any = None


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
        device: "cpu"; or "cuda" or "cuda:N", where meshes, textures and pictures stay on the GPU:
            ``render`` takes tensors there (or NumPy arrays, which it copies) and returns tensors.

    Raises:
        InputError: a size or thread count out of range, another device, or skins that do not fit
            the mesh.
        BackendUnavailable: no C++ compiler is installed; for CUDA: no GPU or no nvcc.
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
        device: str = "cpu",
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
        self._device = open_device(device, threads)
        self._kept: list[dict[str, Any]] = []  # arrays that the structs point to
        self._is_panorama = self._device.put(
            np.concatenate([each.is_panorama for each in sets]).astype(np.uint8)
        )
        self._places = len(self._is_panorama)
        bare = np.full(mesh.vertex_count, -1.0, dtype=np.float32)
        every = np.ones(len(mesh.faces), dtype=np.uint8)
        fan_start, fan = mesh.fans()
        arrays: dict[str, Any] = {
            "faces": mesh.faces,
            "uv": skins.map_uv(mesh),
            "parts": mesh.parts,
            "arm": bare if mesh.arm is None else mesh.arm,
            "fan_start": fan_start,
            "fan": fan,
            "hand": every if mesh.hand is None else mesh.hand.astype(np.uint8),
        }
        arrays = {name: self._device.put(array) for name, array in arrays.items()}
        self._kept.append(arrays)
        self._structs = (
            native.Mesh(
                vertex_count=mesh.vertex_count,
                face_count=len(mesh.faces),
                own_vertices=mesh.vertex_count if mesh.own_vertices is None else mesh.own_vertices,
                **{name: self._device.address(array) for name, array in arrays.items()},
            ),
            self._uploaded([skins.textures]),
            self._uploaded([each.textures for each in sets]),
        )

    def render(
        self,
        vertices: npt.NDArray[np.floating] | Tensor,
        camera: npt.NDArray[np.floating] | Tensor,
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

            On CUDA each array may be a tensor instead. Of tensors, shape and kind are checked, but
            values outside the range are clamped, without a word: a look at them would have to wait
            for the GPU.
            depth: also return depth.
            parts: also return part labels.
            normals: also return normals.

        Raises:
            InputError: an array of a wrong shape or dtype, not finite, or out of range.
        """
        place, side = self._device, self.size
        shape = (None, self.mesh.vertex_count, 3)
        points = place.checked("vertices", vertices, np.float32, shape, -100.0, 100.0)
        count = len(points)
        lens = place.checked("camera", camera, np.float32, (count, 4), -1e5, 1e5)
        if isinstance(camera, np.ndarray) and count and camera[:, :2].min() <= 0:
            raise InputError("camera: focal lengths must be positive")
        look = self._checked_appearance(appearance, count)
        square = (count, side, side)
        result = Rendered(
            image=place.empty((*square, 3), np.uint8),
            mask=place.empty(square, np.uint8),
            depth=place.empty(square, np.float32) if depth else None,
            parts=place.empty(square, np.uint8) if parts else None,
            normals=place.empty((*square, 3), np.float32) if normals else None,
        )
        if count == 0:
            return result
        batch = native.Batch(
            vertices=place.address(points),
            camera=place.address(lens),
            is_panorama=place.address(self._is_panorama),
            count=count,
            size=side,
            shadow_size=self.shadow_size,
            **{name: place.address(array) for name, array in look.items()},
        )
        wanted = {f.name: getattr(result, f.name) for f in fields(result)}
        output = native.Output(
            **{name: None if room is None else place.address(room) for name, room in wanted.items()}
        )
        place.render(*self._structs, batch, output)
        return result

    def _uploaded(self, stacks: Sequence[TextureStack]) -> native.Textures:
        """The C struct of several stacks, one after the other, without copying their texels.

        What it points to is kept as long as the renderer.
        """
        texels = [self._device.put(stack.texels) for stack in stacks]
        starts = [self._device.address(there) for there in texels]
        arrays: dict[str, Any] = {
            "texels": np.repeat(np.array(starts, np.int64), [len(stack) for stack in stacks]),
            "offset": np.concatenate([stack.offset for stack in stacks]),
            "extent": np.concatenate([stack.extent for stack in stacks]),
        }
        arrays = {name: self._device.put(array) for name, array in arrays.items()}
        self._kept.append({**arrays, "stacks": texels})
        return native.Textures(
            count=sum(len(stack) for stack in stacks),
            levels=LEVELS,
            **{name: self._device.address(array) for name, array in arrays.items()},
        )

    def _checked_appearance(self, appearance: Appearance, count: int) -> dict[str, Any]:
        last = float(LEVELS - 1)
        skins, places = len(self.skins) - 1, self._places - 1
        rules: dict[str, tuple[Any, tuple[int, ...], float, float]] = {
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
            name: self._device.checked(
                f"appearance.{name}", getattr(appearance, name), dtype, (count, *shape), low, high
            )
            for name, (dtype, shape, low, high) in rules.items()
        }
