"""Skin textures and how mesh coordinates fall on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from handmesh.errors import ImageError, InputError
from handmesh_training.opencv import cv2
from handmesh_training.rendering.arrays import checked
from handmesh_training.rendering.folders import SKIN_CROP, skin_files
from handmesh_training.rendering.mesh import RenderMesh, largest_island
from handmesh_training.rendering.paint import BakedSurface, lines, paint, polish
from handmesh_training.rendering.resizing import enlarge, fill, shrink
from handmesh_training.rendering.textures import TextureStack, srgb_to_linear
from handmesh_training.seeds import Purpose, generator

# The ten swatches of the Monk Skin Tone scale (Ellis Monk, 2019; released by Google, CC BY 4.0).
MONK_SCALE = (
    *(0xF6EDE4, 0xF3E7DB, 0xF7EAD0, 0xEADABA, 0xD7BD96),
    *(0xA07E56, 0x825C43, 0x604134, 0x3A312A, 0x292420),
)
# The same range of lightness as skin shows it in photos: redder than the swatches.
SKIN_SCALE = (
    *(0xF0CCB8, 0xE8BEA6, 0xDEAC90, 0xCD9678, 0xB47D5F),
    *(0x966248, 0x784C37, 0x5C3A2B, 0x442C22, 0x32221C),
)
# For both who read it: at a command line, and in Python.
_MADE_UP = "leave --skins away, or take SkinSet.procedural() in Python, for made-up ones"


def skin_tones() -> npt.NDArray[np.float32]:
    """(10, 3) float32 linear albedo, light to dark: a blend of photographed skin and swatches."""

    def light(codes: tuple[int, ...]) -> npt.NDArray[np.float32]:
        return srgb_to_linear(
            [[(c >> 16) / 255, (c >> 8 & 255) / 255, (c & 255) / 255] for c in codes]
        )

    return (0.85 * light(SKIN_SCALE) ** 0.75 * light(MONK_SCALE) ** 0.25).astype(np.float32)


@dataclass(frozen=True)
class SkinSet:
    """Skin textures over one region of the atlas.

    Attributes:
        textures: the stack; all of one size.
        reference: (T, 3) float32 geometric mean albedo of each over the hand, linear RGB.
        region: left, top, right, bottom of the textures in the atlas, as fractions with v
            down (top < bottom).
    """

    textures: TextureStack
    reference: npt.NDArray[np.float32]
    region: tuple[float, float, float, float]

    def __len__(self) -> int:
        return len(self.textures)

    @classmethod
    def from_folder(
        cls,
        folder: Path | str,
        mesh: RenderMesh,
        crop: Path | str | None = None,
        vertices_m: npt.NDArray[np.floating] | None = None,
        joints_m: npt.NDArray[np.floating] | None = None,
        *,
        seed: int = 0,
    ) -> SkinSet:
        """Hand crops of body-atlas textures, as MakeHuman and Anny use.

        Args:
            folder: PNG files of one size, sRGB.
            mesh: tells which texels are hand; the others are filled from these, so that
                filtering never reaches another part of the body.
            crop: JSON with ``atlas_size`` [w, h] and ``crop_xyxy`` in pixels, v down;
                ``folder/crop.json`` by default.
            vertices_m, joints_m: see `procedural`; with them, creases and veins, which such
                textures hardly show, are drawn over each, and one in eight comes a second time
                with polish on its nails.
            seed: of what is drawn.

        Raises:
            InputError: no textures, a bad crop file, or no face on the crop.
            ImageError: a file that is not an image, or of another size than the crop.
        """
        folder = Path(folder)
        crop = folder / SKIN_CROP if crop is None else Path(crop)
        try:
            described = json.loads(crop.read_text())
            width, height = (float(n) for n in described["atlas_size"])
            x0, y0, x1, y1 = (float(n) for n in described["crop_xyxy"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{crop}: expected JSON with atlas_size [w, h] and crop_xyxy [x0, y0, x1, y1] "
                f"({error}); write one, or {_MADE_UP}"
            ) from error
        region = (x0 / width, y0 / height, x1 / width, y1 / height)
        files = skin_files(folder)
        if not files:
            raise InputError(f"{folder} holds no .png skin texture; {_MADE_UP}")
        size = (round(x1 - x0), round(y1 - y0))
        images = []
        for file in files:
            pixels = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if pixels is None or (pixels.shape[1], pixels.shape[0]) != size:
                found = "no image" if pixels is None else f"{pixels.shape[1]} x {pixels.shape[0]}"
                raise ImageError(f"{file}: expected a skin of {size[0]} x {size[1]} px: {found}")
            images.append(srgb_to_linear(pixels[..., ::-1] / np.float32(255)))
        if vertices_m is not None and joints_m is not None:
            rest = checked("vertices_m", vertices_m, np.float64, (mesh.vertex_count, 3))
            joints = checked("joints_m", joints_m, np.float64, (21, 3))
            images = _drawn_over(generator(seed, Purpose.SKINS), images, mesh, rest, joints, region)
        return cls.from_images(images, mesh, region)

    @classmethod
    def procedural(
        cls,
        seed: int,
        count: int,
        mesh: RenderMesh,
        vertices_m: npt.NDArray[np.floating] | None = None,
        joints_m: npt.NDArray[np.floating] | None = None,
        *,
        size: int = 384,
    ) -> SkinSet:
        """Made-up skins for those who have no textures, over the tones of the Monk scale.

        Args:
            seed: same seed, same textures.
            count: how many.
            mesh: its coordinates tell where in the atlas the skin must lie.
            vertices_m: (V, 3) rest vertices, fingers up (-y), palm towards -z; with the
                joints they tell palm from back and where creases, knuckles and nails are.
                Without them the skin is mottled, no more.
            joints_m: (21, 3) rest joints.
            size: side of the textures in px.

        Raises:
            InputError: a count or size out of range, or bad arrays.
        """
        if count < 1 or not 8 <= size <= 4096:
            raise InputError(f"expected count >= 1 and size 8 to 4096, got {count} and {size}")
        region = hand_region(mesh)
        rng = generator(seed, Purpose.SKINS)
        if vertices_m is None or joints_m is None:
            y, x = np.mgrid[:size, :size] * (0.2 / size)
            flat = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
            facing = np.broadcast_to([0.0, 0.0, 1.0], flat.shape)
            surface = BakedSurface(np.ones((size, size), dtype=np.bool_), flat, facing)
            joints = np.full((21, 3), 1e3) + np.arange(21)[:, None] ** [1, 2, 0]  # nowhere near
        else:
            rest = checked("vertices_m", vertices_m, np.float64, (mesh.vertex_count, 3))
            joints = checked("joints_m", joints_m, np.float64, (21, 3))
            surface = BakedSurface.bake(mesh, rest, atlas_fractions(mesh.uv, region), (size, size))
        tones = skin_tones()
        images = []
        for index in range(count):
            place = (index + 0.5) / count * (len(tones) - 1)
            tone = tones[int(place)] + (place % 1) * (tones[int(place) + 1] - tones[int(place)])
            images.append(paint(rng, surface, joints, tone))
        return cls.from_images(images, mesh, region)

    @classmethod
    def from_images(
        cls,
        images: list[npt.NDArray[np.float32]],
        mesh: RenderMesh,
        region: tuple[float, float, float, float],
    ) -> SkinSet:
        """Textures over a region of the atlas; what is not hand on them is filled from what is.

        Args:
            images: each (H, W, 3) float32 linear albedo, all of one size.
            mesh: tells which texels are hand.
            region: see the attribute.

        Raises:
            InputError: no face of the mesh lies there.
        """
        height, width = images[0].shape[:2]
        uv = atlas_fractions(mesh.uv, region)
        inside = np.all((uv >= 0) & (uv <= 1), axis=(1, 2))
        points = np.floor(uv[inside] * [width, height]).astype(np.int32)  # (faces, 3, 2)
        known = fill(points, width, height)
        if not known.any():
            raise InputError("no face of the mesh lies on the skin textures; wrong crop or mesh?")
        reference = np.stack(
            [np.exp(np.log(np.maximum(image[known], 1e-3)).mean(0)) for image in images]
        ).astype(np.float32)

        def spread() -> Iterator[npt.NDArray[np.float32]]:
            for image in images:
                yield _fill_outside(image, known)

        return cls(TextureStack.build(spread()), reference, region)

    def map_uv(self, mesh: RenderMesh) -> npt.NDArray[np.float32]:
        """Texture fractions (v down) of a mesh's corners, (F, 3, 2) float32.

        Faces off the textures (a forearm has another place in a body atlas) take, at each
        vertex, the coordinates of the nearest vertex on them: the colours of the wrist go on
        along the arm.
        """
        uv = atlas_fractions(mesh.uv, self.region)
        inside = np.all((uv >= 0) & (uv <= 1), axis=(1, 2))  # (F,)
        if inside.all():
            return uv
        # A breadth-first walk from the textured part, one ring at a time.
        owner = np.full((mesh.vertex_count, 2), np.nan, dtype=np.float32)
        owner[mesh.faces[inside].reshape(-1)] = uv[inside].reshape(-1, 2)
        edges = mesh.faces[:, [[0, 1], [1, 2], [2, 0], [1, 0], [2, 1], [0, 2]]].reshape(-1, 2)
        total = mesh.vertex_count
        while np.isnan(owner[:, 0]).any():
            reach = edges[np.isnan(owner[edges[:, 1], 0]) & ~np.isnan(owner[edges[:, 0], 0])]
            if len(reach) == 0:
                raise InputError("a part of the mesh is neither on the skin nor joined to it")
            summed = np.zeros((total, 3), dtype=np.float64)
            np.add.at(summed, reach[:, 1], np.c_[owner[reach[:, 0]], np.ones(len(reach))])
            new = summed[:, 2] > 0
            owner[new] = (summed[new, :2] / summed[new, 2:]).astype(np.float32)
        uv[~inside] = owner[mesh.faces[~inside]]  # (faces, 3, 2)
        return uv


def hand_region(mesh: RenderMesh) -> tuple[float, float, float, float]:
    """The `SkinSet.region` that the hand takes up in the atlas, an arm elsewhere left aside."""
    uv = mesh.uv[largest_island(mesh.uv)]
    low, high = uv.reshape(-1, 2).min(0), uv.reshape(-1, 2).max(0)
    return float(low[0]), float(1 - high[1]), float(high[0]), float(1 - low[1])


def atlas_fractions(
    uv: npt.NDArray[np.float32], region: tuple[float, float, float, float]
) -> npt.NDArray[np.float32]:
    """Texture fractions (..., 2), v down, of atlas coordinates (..., 2), v up."""
    left, top, right, bottom = region
    return np.stack(
        [(uv[..., 0] - left) / (right - left), (1 - uv[..., 1] - top) / (bottom - top)], axis=-1
    ).astype(np.float32)


def _drawn_over(
    rng: np.random.Generator,
    images: list[npt.NDArray[np.float32]],
    mesh: RenderMesh,
    rest: npt.NDArray[np.float64],
    joints: npt.NDArray[np.float64],
    region: tuple[float, float, float, float],
) -> list[npt.NDArray[np.float32]]:
    """Textures with lines, and a few once more with polished nails."""
    height, width = images[0].shape[:2]
    surface = BakedSurface.bake(mesh, rest, atlas_fractions(mesh.uv, region), (height, width))
    drawn = []
    for number, image in enumerate(images):
        skin = image.copy()
        strength = rng.uniform(0.3, 1.0)
        skin[surface.known] *= np.exp(strength * lines(rng, surface, joints))
        drawn.append(skin)
        if number % 8 == 4:
            nail, colour = polish(rng, surface, joints)
            painted = skin.copy()
            painted[surface.known] += nail[:, None] * (colour - skin[surface.known])
            drawn.append(painted)
    return drawn


def _fill_outside(
    image: npt.NDArray[np.float32], known: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Extends the known texels over the rest, by averages of ever coarser levels."""
    weight = known.astype(np.float32)
    value = image * weight[..., None]
    result = image.copy()
    missing = ~known
    for level in range(1, 10):
        size = (max(1, image.shape[1] >> level), max(1, image.shape[0] >> level))
        full = (image.shape[1], image.shape[0])
        up = enlarge(shrink(value, *size), *full)
        up_share = enlarge(shrink(weight, *size), *full)
        ready = missing & (up_share > 0.02)
        result[ready] = up[ready] / up_share[ready, None]
        missing &= ~ready
        if not missing.any():
            break
    return result
