"""Everything about a picture but the hand's pose: light, skin, background, camera response."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from handmesh.errors import InputError
from handmesh_training.rendering import harmonics
from handmesh_training.rendering.colours import cloth
from handmesh_training.rendering.environments import BackgroundSet, EnvironmentSet
from handmesh_training.rendering.hands import Hands
from handmesh_training.rendering.scene import SHARES, Scene, sample_scene
from handmesh_training.rendering.skins import SkinSet, skin_tones
from handmesh_training.rendering.textures import LUMINANCE

Array = npt.NDArray[np.float32]

NO_SLEEVE = 10.0  # metres up the arm


@dataclass(frozen=True)
class Appearance:
    """Look of B pictures. Directions are in the camera frame, light is linear RGB.

    Attributes:
        skin: (B,) int32 index of the skin texture.
        skin_gain: (B, 3) albedo = gain * texture ** contrast, in linear light.
        skin_contrast: (B,) see skin_gain.
        irradiance: (B, 9, 3) spherical harmonics of irradiance / pi.
        key_direction: (B, 3) unit vector from the hand to the key light.
        key_light: (B, 3) irradiance / pi of a surface facing the key light.
        gloss: (B, 3) strength of the specular reflection (1 = skin by the book), its GGX
            roughness, and how far light creeps past the terminator (1 = skin).
        relief: (B,) depth of creases and pores: metres per relative darkening of the texture.
        occlusion: (B, 2) strength of the ambient occlusion in [0, 1], and its radius in metres.
        sleeve: (B, 6) metres up the arm where it starts, thickness in metres, albedo (3),
            strength of its pattern; a start beyond the mesh is no sleeve.
        solids: (B, SOLIDS, SOLID_FLOATS) things beside the hand, rows of `solids.solid`; rows
            of zeros are nothing.
        ground: (B, GROUND_FLOATS) surface behind the hand, a row of `grounds.ground`; a row of
            zeros is nothing.
        ground_texture: (B,) int32 index of the background that lies on it, -1 = its pattern.
        background: (B,) int32 index of the background.
        background_map: (B, 3, 3) from (u, v, 1), crop fractions, to a viewing ray in the world
            (panoramas) or to homogeneous picture fractions (photos).
        background_blur: (B,) mip level, 0 = sharp.
        background_gain: (B, 3) linear light of a texel of value 255.
        exposure: (B, 3) gain of each channel, white balance included.
        tone: (B, 2) gamma on top of sRGB's, and the light from which the response bends.
    """

    skin: npt.NDArray[np.int32]
    skin_gain: Array
    skin_contrast: Array
    irradiance: Array
    key_direction: Array
    key_light: Array
    gloss: Array
    relief: Array
    occlusion: Array
    sleeve: Array
    solids: Array
    ground: Array
    ground_texture: npt.NDArray[np.int32]
    background: npt.NDArray[np.int32]
    background_map: Array
    background_blur: Array
    background_gain: Array
    exposure: Array
    tone: Array

    def __len__(self) -> int:
        return len(self.skin)

    def __getitem__(self, index: slice | npt.NDArray[np.integer]) -> Appearance:
        return Appearance(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def sample_appearance(
    rng: np.random.Generator,
    count: int,
    skins: SkinSet,
    environments: EnvironmentSet,
    backgrounds: BackgroundSet | None = None,
    *,
    hands: Hands | None = None,
    photo_share: float = 0.35,
    things: Collection[str] = frozenset(SHARES),
) -> Appearance:
    """Draws the look of `count` pictures.

    Args:
        rng: the only source of randomness.
        count: number of pictures B.
        skins, environments, backgrounds: what the renderer was made with.
        hands: where the B hands are; without, nothing is placed around them.
        photo_share: share of pictures on a photo instead of the panorama that lights them.
        things: which of `scene.SHARES` are placed around hands.

    Returns:
        Appearance of B pictures; background indices count panoramas first, then photos.

    Raises:
        InputError: count below one, or another number of hands.
    """
    if count < 1:
        raise InputError(f"count: expected at least 1, got {count}")
    if hands is not None and len(hands) != count:
        raise InputError(f"hands: expected {count}, got {len(hands)}")
    place = rng.integers(0, len(environments), count)
    rotation = _camera_rotations(rng, count)
    irradiance = harmonics.rotate(environments.irradiance[place], rotation)
    direction = np.einsum("bji,bj->bi", rotation, environments.key_direction[place])
    key = environments.key_light[place] * np.exp(rng.normal(0, 0.4, (count, 1)))
    direction, key = _extra_lamp(rng, direction, key, irradiance)
    key = _tamed(key, irradiance)

    skin, gain, contrast, tone = _skin(rng, count, skins)
    sleeve = _sleeves(rng, count)
    pictures = [environments.panoramas] + ([backgrounds] if backgrounds is not None else [])
    scene = sample_scene(rng, count, hands, tone, sleeve[:, 0], pictures, things)
    direction = _before(direction, scene.ground)
    albedo = tone @ LUMINANCE
    panorama = rng.random(count) >= (photo_share if backgrounds is not None else 0.0)
    background, matrix, white, brightness = _background(
        rng, place, rotation, panorama, environments.panoramas, backgrounds
    )
    # The camera meters what it sees: some hand, some background.
    toward = np.array([[0.0, 0.0, -1.0]])
    sky = np.maximum(np.einsum("k,bkc->bc", harmonics.basis(toward)[0], irradiance), 0.01)
    facing = np.clip(-direction[:, 2], 0.15, 1.0)[:, None]
    hand = (0.25 + 0.5 * albedo)[:, None] / 2 * (sky + 0.6 * key * facing) @ LUMINANCE[:, None]
    # A photo's own light is unknown: it is taken to be exposed like the hand before it.
    seen = _seen(scene, brightness, irradiance, key, direction)
    relative = np.where(
        panorama | (scene.ground[:, 0] > 0), seen, hand[:, 0] * np.exp(rng.normal(0, 0.5, count))
    )
    lift = np.where(panorama, 1.0, relative / np.maximum(brightness, 1e-3))
    metered = np.exp(0.65 * np.log(hand[:, 0]) + 0.35 * np.log(relative))
    exposure = 0.17 / metered * np.exp(rng.normal(0, 0.32, count))
    balance = np.exp(rng.normal(0, 1, (count, 2)) * [0.10, 0.04])  # warm to cold, green to pink
    gains = np.stack([balance[:, 0], balance[:, 1], 1 / balance[:, 0]], axis=-1)
    # Half of what colours the light is balanced away by the camera.
    cast = (sky + key * facing) / ((sky + key * facing) @ LUMINANCE[:, None])
    gains = gains * cast ** -rng.uniform(0.2, 0.9, (count, 1))
    blur = np.where(rng.random(count) < 0.5, 0.0, rng.uniform(0.0, 3.5, count))
    return Appearance(
        skin=skin.astype(np.int32),
        skin_gain=gain.astype(np.float32),
        skin_contrast=contrast.astype(np.float32),
        irradiance=irradiance.astype(np.float32),
        key_direction=direction.astype(np.float32),
        key_light=key.astype(np.float32),
        gloss=np.stack(
            [
                np.exp(rng.normal(-0.45, 0.55, count)),
                rng.uniform(0.4, 0.75, count),
                rng.uniform(0.3, 1.3, count),
            ],
            axis=-1,
        ).astype(np.float32),
        relief=np.exp(rng.normal(np.log(0.0018), 0.5, count)).astype(np.float32),
        occlusion=np.stack(
            [rng.uniform(0.5, 1.0, count), rng.uniform(0.012, 0.03, count)], axis=-1
        ).astype(np.float32),
        sleeve=sleeve.astype(np.float32),
        solids=scene.solids.astype(np.float32),
        ground=scene.ground.astype(np.float32),
        ground_texture=scene.ground_texture,
        background=background.astype(np.int32),
        background_map=matrix.astype(np.float32),
        background_blur=blur.astype(np.float32),
        background_gain=(white * lift)[:, None].repeat(3, axis=1).astype(np.float32),
        exposure=(exposure[:, None] * gains).astype(np.float32),
        tone=np.stack(
            [np.exp(rng.normal(0, 0.12, count)), rng.uniform(0.5, 0.85, count)], axis=-1
        ).astype(np.float32),
    )


def _camera_rotations(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """(B, 3, 3) camera to world: any heading, level to looking up or down, a little roll."""
    yaw = rng.uniform(-np.pi, np.pi, count)
    pitch = rng.normal(0.12, 0.35, count)
    roll = rng.normal(0, 0.15, count)
    zero, one = np.zeros(count), np.ones(count)

    def matrix(rows: list[list[npt.NDArray[np.float64]]]) -> npt.NDArray[np.float64]:
        return np.moveaxis(np.array(rows), -1, 0)  # (B, 3, 3)

    c, s = np.cos(yaw), np.sin(yaw)
    turn = matrix([[c, zero, s], [zero, one, zero], [-s, zero, c]])
    c, s = np.cos(pitch), np.sin(pitch)
    tilt = matrix([[one, zero, zero], [zero, c, s], [zero, -s, c]])
    c, s = np.cos(roll), np.sin(roll)
    lean = matrix([[c, -s, zero], [s, c, zero], [zero, zero, one]])
    return turn @ tilt @ lean


def _extra_lamp(
    rng: np.random.Generator,
    direction: npt.NDArray[np.float64],
    key: npt.NDArray[np.float64],
    irradiance: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Replaces the key light of some pictures by a lamp, window or flash anywhere in front."""
    count = len(direction)
    lamp = rng.normal(size=(count, 3)) + np.array([0.0, -0.7, -0.7])
    lamp /= np.linalg.norm(lamp, axis=1, keepdims=True)
    mean = np.maximum(irradiance[:, 0] * 0.282095, 0.02)
    power = mean @ LUMINANCE[:, None] * np.exp(rng.normal(0.2, 0.6, (count, 1)))
    tint = np.exp(rng.normal(0, 0.12, (count, 1)) * [[1.0, 0.1, -1.2]])
    chosen = (rng.random(count) < 0.35)[:, None]
    return np.where(chosen, lamp, direction), np.where(chosen, power * tint, key)


def _tamed(
    key: npt.NDArray[np.float64], irradiance: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Key lights of at most eight times the light from all around: the sun on a clear day."""
    mean = np.maximum(irradiance[:, 0] * 0.282095, 1e-3) @ LUMINANCE  # (B,)
    return key * np.minimum(1.0, 8.0 * mean / np.maximum(key @ LUMINANCE, 1e-6))[:, None]


def _before(
    direction: npt.NDArray[np.float64], ground: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Key lights behind a surface, or grazing it, moved to its front."""
    normal = ground[:, 1:4]
    height = np.einsum("bi,bi->b", direction, normal)
    lifted = (
        direction + np.where(height < 0.2, np.abs(height) - height + 0.25, 0.0)[:, None] * normal
    )
    lifted /= np.linalg.norm(lifted, axis=1, keepdims=True)
    return np.where(ground[:, :1] > 0, lifted, direction)


def _seen(
    scene: Scene,
    brightness: npt.NDArray[np.floating],
    irradiance: npt.NDArray[np.float64],
    key: npt.NDArray[np.float64],
    direction: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """(B,) luminance of what is behind the hand: the ground where there is one."""
    normal = scene.ground[:, 1:4]
    sky = np.maximum(np.einsum("bk,bkc->bc", harmonics.basis(normal), irradiance), 0.01)
    facing = np.maximum(np.einsum("bi,bi->b", direction, normal), 0.0)[:, None]
    albedo = 0.5 * (scene.ground[:, 13:16] + scene.ground[:, 16:19])
    albedo = np.where((scene.ground_texture >= 0)[:, None], scene.ground[:, 16:19], albedo)
    lit = (albedo * (sky + key * facing)) @ LUMINANCE
    return np.where(scene.ground[:, 0] > 0, np.maximum(lit, 1e-3), brightness)


def _skin(
    rng: np.random.Generator, count: int, skins: SkinSet
) -> tuple[
    npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]
]:
    """Texture, gain (B, 3), contrast (B,) and mean albedo (B, 3) of tones over the Monk scale."""
    tones = np.log(skin_tones().astype(np.float64))
    place = rng.uniform(0, len(tones) - 1.001, count)
    low, part = place.astype(int), (place % 1)[:, None]
    target = tones[low] * (1 - part) + tones[low + 1] * part  # (B, 3)
    target += rng.normal(0, 0.12, (count, 1))  # darker or lighter
    target += rng.normal(0.5, 0.6, (count, 1)) * [[0.08, -0.05, -0.07]]  # blood
    target += rng.normal(0, 0.08, (count, 1)) * [[0.0, 0.1, -1.0]]  # yellow
    target = np.minimum(target, np.log(0.8))
    # Textures of about that tone bring the right contrast of palm and back.
    luminance = np.log(skins.reference.astype(np.float64) @ LUMINANCE)
    gap = np.log(np.exp(target) @ LUMINANCE)[:, None] - luminance[None]  # (B, T)
    odds = np.exp(-0.5 * (gap / 0.6) ** 2) + 1e-4
    odds = np.cumsum(odds, axis=1) / odds.sum(1, keepdims=True)
    chosen = np.minimum((rng.random((count, 1)) > odds).sum(1), len(skins) - 1)
    # Lightening a dark texture would leave its palm glaring.
    lightened = np.maximum(np.take_along_axis(gap, chosen[:, None], axis=1)[:, 0], 0)
    contrast = rng.uniform(0.6, 1.2, count) * np.clip(np.exp(-0.6 * lightened), 0.35, 1.0)
    gain = np.exp(target - contrast[:, None] * np.log(skins.reference[chosen]))
    return chosen, gain, contrast, np.exp(target)


def _sleeves(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """(B, 6) sleeves; four arms in ten are bare."""
    start = np.where(rng.random(count) < 0.4, NO_SLEEVE, rng.uniform(0.005, 0.16, count))
    pattern = np.where(rng.random(count) < 0.6, 0.0, rng.uniform(0.1, 0.7, count))
    return np.column_stack([start, rng.uniform(0.002, 0.012, count), cloth(rng, count), pattern])


def _background(
    rng: np.random.Generator,
    place: npt.NDArray[np.int64],
    rotation: npt.NDArray[np.float64],
    panorama: npt.NDArray[np.bool_],
    panoramas: BackgroundSet,
    photos: BackgroundSet | None,
) -> tuple[
    npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float32], npt.NDArray[np.float32]
]:
    """Index, map (B, 3, 3), white and brightness of each picture's background."""
    count = len(place)
    # A panorama is seen through a lens of 25 to 90 degrees: rays of crop fractions.
    span = 2 * np.tan(np.radians(rng.uniform(25, 90, count)) / 2)
    lens = np.zeros((count, 3, 3))
    lens[:, 0, 0] = lens[:, 1, 1] = span
    lens[:, 0, 2] = lens[:, 1, 2] = -0.5 * span
    lens[:, 2, 2] = 1.0
    matrix = rotation @ lens
    index = place.copy()
    white, brightness = panoramas.white[place], panoramas.brightness[place]
    if photos is None:
        return index, matrix, white, brightness
    chosen = rng.integers(0, len(photos), count)
    height, width = (photos.textures.extent[chosen, 0, k].astype(np.float64) for k in (0, 1))
    # A photo: a turned, perhaps mirrored square of it that stays inside.
    short = np.minimum(height, width)
    angle = rng.normal(0, 0.12, count)
    reach = np.abs(np.cos(angle)) + np.abs(np.sin(angle))
    side = short / reach * rng.uniform(0.35, 1.0, count)
    half = side * reach / 2
    cx = half + rng.random(count) * (width - 2 * half)
    cy = half + rng.random(count) * (height - 2 * half)
    flip = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    c, s = np.cos(angle) * side, np.sin(angle) * side
    crop = np.zeros((count, 3, 3))
    crop[:, 0, 0], crop[:, 0, 1] = c * flip / width, -s / width
    crop[:, 1, 0], crop[:, 1, 1] = s * flip / height, c / height
    crop[:, 0, 2] = cx / width - 0.5 * (crop[:, 0, 0] + crop[:, 0, 1])
    crop[:, 1, 2] = cy / height - 0.5 * (crop[:, 1, 0] + crop[:, 1, 1])
    crop[:, 2, 2] = 1.0
    return (
        np.where(panorama, index, len(panoramas) + chosen),
        np.where(panorama[:, None, None], matrix, crop),
        np.where(panorama, white, photos.white[chosen]),
        np.where(panorama, brightness, photos.brightness[chosen]),
    )
