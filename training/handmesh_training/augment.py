"""From stored crops to network inputs: what a detector and a camera do to a picture.

Geometry (rotation, scale, shift, mirroring) moves image and labels together; then covers, a camera
(`develop`) and a photo's border change the image alone. OpenCV and look-up tables keep it below a
millisecond a crop, so that it does not starve the training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handmesh.geometry import upright_angle

from .develop import develop
from .opencv import cv2
from .samples import Crops

Image = NDArray[Any]  # always uint8, but OpenCV's type stubs do not know

PARTS = (0.4, 0.9)  # sides of what is cut out of other crops, as shares
# Of hands that a photo's border cuts: how much of their length, in its direction, at most; and the
# length in place of those that are not known, as a share of the crop.
CUT_MOST, UNKNOWN_LENGTH = 0.4, 2 / 3


@dataclass(frozen=True)
class Augmentation:
    """Every strength in one place. Stored crops have `stored_margin` times the joints' box as side.

    Attributes:
        input_size: side of the network's input, pixels.
        stored_margin: side of the stored crop over the larger side of the joints' tight box.
        margin: centre of the drawn margin (log-normal with margin_spread).
        margin_spread: standard deviation of its logarithm.
        wide: share of crops drawn much wider (up to wide_margin), as a search over a photo sees
            hands.
        upright: share of crops turned so that the hand points up, as the SDK does once it has seen
            the hand; upright_spread: standard deviation about that, radians.
        rotation: standard deviation of in-plane turns of the others, radians.
        anyhow: share of crops turned by any angle.
        shift: standard deviation of the centre's offset, as a share of the crop.
        left: share of crops shown mirrored, as left hands.
        misses: share of crops that miss the hand: beside it, or far too close.
        occluders: share of crops partly covered.
        grounds: share of the crops with a known outline whose hand is put before another ground:
            what a crop without a hand shows, if there is one among them.
        busy: of those, the share whose ground is a part of any other crop, hands and all.
        cut: share of crops with a photo's border drawn across the hand: beyond it they are black,
            as the SDK has them, and labelled all the same.
    """

    input_size: int = 128
    stored_margin: float = 1.9
    margin: float = 1.5
    margin_spread: float = 0.13
    wide: float = 0.08
    wide_margin: float = 4.0
    upright: float = 0.65
    upright_spread: float = 0.25
    rotation: float = 0.3
    anyhow: float = 0.12
    shift: float = 0.045
    left: float = 0.25
    misses: float = 0.05
    occluders: float = 0.2
    grounds: float = 0.6
    busy: float = 0.5
    cut: float = 0.12

    def __call__(self, rng: np.random.Generator, crops: Crops) -> Crops:
        """Draw one network input from each stored crop; a function of crops and generator alone.

        Labels are new arrays. Crops that miss the hand lose all labels, mirrored ones their depth.
        """
        return self.with_maps(rng, crops)[0]

    def with_maps(
        self, rng: np.random.Generator, crops: Crops
    ) -> tuple[Crops, NDArray[np.float64]]:
        """The same, and each crop's (2, 3) map from stored crop fractions to the input's; where
        ``is_right`` changed, the input was mirrored after it."""
        maps = np.empty((len(crops), 2, 3))
        out = Crops.empty(len(crops), self.input_size, crops.vertices.shape[1])
        out.put(np.arange(len(crops)), _labels_only(crops, self.input_size))
        side = max(256, self.input_size + 64)  # some room to cut grain from
        noise = rng.normal(0, 1, (side, side, 3)).astype(np.float32)
        empty = np.flatnonzero(~crops.has_hand)
        for i in range(len(crops)):
            matrix = maps[i] = self._draw_geometry(rng, out, i, bool(crops.has_hand[i]))
            image = crops.images[i]
            if out.outline_known[i].any() and rng.random() < self.grounds:
                ground = self._ground(rng, crops, i, empty)
                image = image if ground is None else before(image, crops.outline[i], ground)
            out.images[i] = self._warp(rng, image, matrix)
            _move_labels(out, i, matrix)
            if rng.random() < self.left:
                _mirror(out, i)
            if out.has_hand[i] and rng.random() < self.occluders:
                _occlude(rng, out.images[i], crops.images[int(rng.integers(len(crops)))])
            out.images[i] = develop(rng, out.images[i], noise)
            if rng.random() < self.cut:
                angle, share = rng.uniform(-np.pi, np.pi), rng.uniform(0, CUT_MOST)
                cut(out.images[i], out.joints[i] if out.has_joints[i] else None, angle, share)
        return out, maps

    def _ground(
        self, rng: np.random.Generator, crops: Crops, own: int, empty: NDArray[np.int64]
    ) -> Image | None:
        """Another ground (S, S, 3) for the crop ``own``; None where there is nothing to take."""
        if rng.random() < self.busy:
            if len(crops) < 2:
                return None
            other = (own + int(rng.integers(1, len(crops)))) % len(crops)
            share, corner = rng.uniform(*PARTS), rng.uniform(0, 1, 2)
            ground = part_of(crops.images[other], share, corner)
        elif len(empty):
            ground = crops.images[int(rng.choice(empty))]
        else:
            return None
        return ground[:, :: rng.choice((-1, 1))]

    def _draw_geometry(
        self, rng: np.random.Generator, out: Crops, i: int, has_hand: bool
    ) -> NDArray[np.float64]:
        """A (2, 3) map from stored crop fractions to input crop fractions."""
        turn = rng.normal(0, self.rotation)
        if rng.random() < self.anyhow:
            turn = rng.uniform(-np.pi, np.pi)
        margin = self.margin * np.exp(rng.normal(0, self.margin_spread))
        centre, side = np.full(2, 0.5), 1 / self.stored_margin
        if out.has_joints[i]:
            upright = upright_angle(out.joints[i])
            if upright is not None and rng.random() < self.upright:
                turn = rng.normal(0, self.upright_spread) - upright
            # The tight box in the turned frame, as the SDK takes it for its next look.
            c, s = np.cos(turn), np.sin(turn)
            turned = out.joints[i, :, :2] @ np.array([[c, s], [-s, c]])
            low, high = turned.min(axis=0), turned.max(axis=0)
            centre = np.array([[c, s], [-s, c]]) @ (0.5 * (low + high))
            side = float((high - low).max())
        shift = rng.normal(0, self.shift, 2)
        kind = rng.random()
        if kind < self.wide:
            margin = rng.uniform(self.margin, self.wide_margin)
            shift = rng.uniform(-0.5, 0.5, 2) * (1 - 1 / margin)
        elif has_hand and kind < self.wide + self.misses:
            for flags in (
                out.has_hand, out.has_joints, out.has_depth, out.has_mesh, out.outline_known
            ):  # fmt: skip
                flags[i] = False
            if rng.random() < 0.5:
                away = rng.uniform(0, 2 * np.pi)
                shift = rng.uniform(0.75, 1.0) * np.array([np.cos(away), np.sin(away)])
            else:
                margin = rng.uniform(0.2, 0.45)
        zoom = 1 / (side * margin)
        c, s = zoom * np.cos(turn), zoom * np.sin(turn)
        linear = np.array([[c, -s], [s, c]])
        return np.concatenate([linear, (0.5 + shift - linear @ centre)[:, None]], axis=1)

    def _warp(self, rng: np.random.Generator, image: Image, matrix: NDArray[np.float64]) -> Image:
        stored, wanted = image.shape[0], self.input_size
        zoom = float(np.hypot(matrix[0, 0], matrix[1, 0])) * wanted / stored
        if zoom < 0.6:  # avoid aliasing when much is squeezed into the input
            shrink = zoom * 1.2
            # Whole pixels, or the labels would be off by the rounding.
            small = max(1, round(stored * shrink))
            image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        # Fractions to pixel centres: x = fraction * size - 0.5 on both sides.
        scale = np.diag([1 / image.shape[1], 1 / image.shape[0]])
        linear = wanted * matrix[:, :2] @ scale
        offset = wanted * (matrix[:, :2] @ scale @ [0.5, 0.5] + matrix[:, 2]) - 0.5
        # A reflection must not show the hand twice: only where the stored crop nearly covers.
        border = (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101)
        choices = 3 if zoom * stored > 0.8 * wanted else 2
        return cv2.warpAffine(
            image,
            np.concatenate([linear, offset[:, None]], axis=1),
            (wanted, wanted),
            flags=cv2.INTER_LINEAR,
            borderMode=border[int(rng.integers(choices))],
        )


def _labels_only(crops: Crops, side: int) -> Crops:
    blank = np.zeros((len(crops), side, side, 3), dtype=np.uint8)
    return Crops(
        blank, crops.joints, crops.vertices, crops.crop_in_bones,
        crops.has_hand, crops.has_joints, crops.has_depth, crops.has_mesh, crops.is_right,
        crops.taught, crops.outline, crops.outline_known,
    )  # fmt: skip


def _move_labels(out: Crops, i: int, matrix: NDArray[np.float64]) -> None:
    for points in (out.joints[i], out.vertices[i], out.outline[i]):
        points[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    out.crop_in_bones[i] /= np.hypot(matrix[0, 0], matrix[1, 0])


def _mirror(out: Crops, i: int) -> None:
    """Show the crop's mirror image: the other hand. Its (u, v) stay known, its mesh is no label."""
    out.images[i] = out.images[i][:, ::-1]
    for points in (out.joints[i], out.outline[i]):
        points[:, 0] = 1 - points[:, 0]
    out.is_right[i] = not out.is_right[i]
    out.has_depth[i] = out.has_mesh[i] = False


def before(image: Image, outline: NDArray[np.float32], ground: Image) -> Image:
    """What an outline encloses, before another ground; the twin of `augment_torch.before`.

    Args:
        image, ground: (S, S, 3) uint8. outline: (P, 2) crop fractions, closed.
    """
    side = image.shape[0]
    # Finer than the picture: OpenCV counts pixels that the outline touches as enclosed.
    fine = np.zeros((4 * side, 4 * side), dtype=np.uint8)
    corners = np.round((outline * 4 * side - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(fine, [corners], 255, cv2.LINE_8, shift=4)
    inside = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA)
    # Soft, and all of it inside: pixels on the outline have some of the old ground.
    soft = cv2.GaussianBlur(inside, (0, 0), 1.0)
    alpha = np.clip(2 * soft.astype(np.int32) - 255, 0, 255)[..., None]
    return ((image * alpha + ground * (255 - alpha) + 127) // 255).astype(np.uint8)


def part_of(image: Image, share: float, corner: NDArray[np.float64]) -> Image:
    """A part of a picture, as large as the whole; the twin of `augment_torch.parts_of`.

    Args:
        image: (S, S, 3) uint8. share: its side, of the whole's. corner: (2,) from 0 to 1, where
            among all places it lies.
    """
    side = image.shape[0]
    # Pixel centres at integers: x of the whole is share * (x + 1 / 2) + left - 1 / 2 of the part.
    offset = (1 - share) * side * corner + 0.5 * share - 0.5
    matrix = np.array([[share, 0, offset[0]], [0, share, offset[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _occlude(rng: np.random.Generator, image: Image, other: Image) -> None:
    """Cover a part of the image, in place, with a flat shape or a piece of another picture."""
    side = image.shape[0]
    axes = (rng.uniform(0.06, 0.22, 2) * side).astype(int)
    centre = (rng.uniform(0.05, 0.95, 2) * side).astype(int)
    mask = np.zeros((side, side), dtype=np.uint8)
    if rng.random() < 0.5:
        cv2.ellipse(
            mask, centre.tolist(), axes.tolist(), rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA
        )
    else:
        corners = cv2.boxPoints((centre.tolist(), (axes * 2).tolist(), rng.uniform(0, 90)))
        cv2.fillConvexPoly(mask, corners.astype(np.int32), 255, cv2.LINE_AA)
    if rng.random() < 0.5:
        cover = np.empty_like(image)
        cover[:] = rng.integers(0, 256, 3)
    else:
        cover = np.roll(cv2.resize(other, (side, side)), int(rng.integers(side)), axis=1)
    alpha = mask[..., None].astype(np.uint16)
    image[:] = ((cover * alpha + image * (255 - alpha)) // 255).astype(np.uint8)


def cut(image: Image, joints: NDArray[np.float32] | None, angle: float, share: float) -> None:
    """Black out, in place, what lies beyond a photo's border that runs across the hand.

    Args:
        image: (S, S, 3) uint8. joints: (21, 3) crop fractions; None where they are not known.
        angle: of the direction in which the photo ends, radians. share: of the hand's length in
            that direction that lies beyond.
    """
    direction = np.array([np.cos(angle), np.sin(angle)])
    middle = float(direction.sum()) / 2
    low, high = middle - UNKNOWN_LENGTH / 2, middle + UNKNOWN_LENGTH / 2
    if joints is not None:
        along = joints[:, :2] @ direction  # (21,)
        low, high = float(along.min()), float(along.max())
    centres = (np.arange(image.shape[0]) + 0.5) / image.shape[0]
    place = centres[None] * direction[0] + centres[:, None] * direction[1]  # (S, S)
    image[place > high - share * (high - low)] = 0
