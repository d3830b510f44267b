"""Bring thumb and fingers into touch and out of each other, by a small optimisation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handmesh.errors import InputError

from ..collisions import HandCapsules, segment_gap
from ..hand import FOREARM, PIVOT_COUNT, HandModel
from ..limits import ABDUCTION, FINGER_BASES, FLEXION, TWIST, angle_limits
from .authored import FAN_DEG, FINGERS, THUMBS, TOGETHER_DEG, Spec

Array = NDArray[np.float64]

STEPS = 250
RATE = 0.03  # radians
# How willingly each angle leaves its authored value, standard deviations in degrees.
THUMB_SIGMA = {TWIST: 14.0, ABDUCTION: 20.0, FLEXION: 20.0}
TOUCHING_SIGMA, OTHER_SIGMA = 13.0, 6.0
SPREAD_SIGMA = 4.0
# Skin gives way: touching capsules overlap by so much.
PRESS_MM = 0.7
SIDES = {"p": (1.0, 0.0), "d": (-1.0, 0.0), "r": (0.0, 1.0), "u": (0.0, -1.0)}


def start_angles(specs: list[Spec]) -> Array:
    """(G, 17, 3) radians, as the table has them."""
    angles = np.zeros((len(specs), PIVOT_COUNT, 3))
    for g, spec in enumerate(specs):
        twist, abduction, base, mcp, tip = THUMBS[spec.thumb]
        angles[g, 1] = twist, abduction, base
        angles[g, 2, FLEXION], angles[g, 3, FLEXION] = mcp, tip
        fan = FAN_DEG if spec.spread > 0 else TOGETHER_DEG
        for finger, letter in enumerate(spec.fingers):
            pivot = FINGER_BASES[finger]
            angles[g, pivot : pivot + 3, FLEXION] = FINGERS[letter]
            # Bent fingers cannot spread: their collateral ligaments are tight.
            free = np.clip(1 - FINGERS[letter][0] / 90, 0.0, 1.0)
            spread = abs(spec.spread) * fan[finger] * free
            angles[g, pivot, ABDUCTION] = spread + spec.lean[finger]
    limits = angle_limits()
    return np.clip(np.deg2rad(angles), limits[..., 0], limits[..., 1])


def parse_place(text: str) -> tuple[int, str]:
    """Capsule and side of a place such as ``T2p``.

    Raises:
        InputError: something else.
    """
    if len(text) != 3 or text[0] not in "TIMRL" or text[1] not in "012" or text[2] not in SIDES:
        raise InputError(f"expected a place such as T2p (finger, bone, side), got {text!r}")
    return 3 * "TIMRL".index(text[0]) + int(text[1]), text[2]


class Touches:
    """All touches of G gestures as flat arrays of N."""

    def __init__(self, specs: list[Spec]) -> None:
        rows, capsules, sides = [], [], []
        for g, spec in enumerate(specs):
            for touch in spec.touches:
                ends = [parse_place(place) for place in touch.split("=")]
                if len(ends) != 2:
                    raise InputError(f"expected a touch such as T2p=I2p, got {touch!r}")
                rows.append(g)
                capsules.append([end[0] for end in ends])
                sides.append([SIDES[end[1]] for end in ends])
        self.rows = torch.tensor(rows, dtype=torch.long)
        self.capsules = torch.tensor(capsules, dtype=torch.long).reshape(-1, 2)
        self.sides = torch.tensor(sides, dtype=torch.float64).reshape(-1, 2, 2)

    def gaps(self, ends: Tensor, radii: Tensor) -> Tensor:
        """(N,) metres between the touching bones' skins."""
        a, b = self.capsules.T
        return segment_gap(
            ends[self.rows, a], radii[self.rows, a], ends[self.rows, b], radii[self.rows, b]
        )

    def normals(self, capsules: HandCapsules, rotation: Tensor) -> Tensor:
        """(N, 2, 3) outward directions of the two places."""
        axes = torch.einsum("nem,nemc->nec", self.sides.to(rotation), capsules.axes[self.capsules])
        turn = rotation[self.rows[:, None], capsules.owners[self.capsules]]  # (N, 2, 3, 3)
        return (turn @ axes[..., None])[..., 0]

    def places(self, ends: Tensor, radii: Tensor, normals: Tensor) -> Tensor:
        """(N, 2, 3) the places: on the skin, half way along the bone."""
        rows = self.rows[:, None]
        middle = ends[rows, self.capsules].mean(dim=2)  # (N, 2, 3)
        return middle + radii[rows, self.capsules].mean(dim=2)[..., None] * normals


def solve(model: HandModel, specs: list[Spec], steps: int = STEPS) -> Array:
    """Angles (G, 17, 3) near the authored ones, touches closed, overlaps parted, limits kept.

    Args:
        model: in float64. specs: the gestures; each is solved on the template's shape.
    """
    return _settle(model, start_angles(specs), _sigmas(specs), Touches(specs), steps)


def part(model: HandModel, angles: Array, deeper_mm: float, steps: int) -> Array:
    """Angles (G, 17, 3) of gestures solved on one hand, parted on another where they overlap.

    What touched on the first may be a little apart here; names stay true.

    Args:
        model: the other hand, in float64. angles: of each gesture.
        deeper_mm: gestures that overlap no deeper are left as they are. steps: of the optimiser.
    """
    shape = torch.zeros(len(angles), model.shape_count, dtype=torch.float64)
    with torch.no_grad():
        bones = model.pose_bones(shape, model.rotations(torch.from_numpy(angles)))
        overlap = 1e3 * HandCapsules(model).overlaps(shape, *bones).max(dim=1).values
    rows = np.flatnonzero(overlap.numpy() > deeper_mm)
    parted = angles.copy()
    if len(rows):
        sigma = np.deg2rad(_free_degrees(len(rows)))
        parted[rows] = _settle(model, angles[rows], sigma, Touches([]), steps)
    return parted


def _settle(
    model: HandModel, start_angles: Array, sigmas: Array, touches: Touches, steps: int
) -> Array:
    capsules = HandCapsules(model)
    limits = torch.from_numpy(angle_limits())
    start, sigma = torch.from_numpy(start_angles), torch.from_numpy(sigmas)
    shape = torch.zeros(len(start), model.shape_count, dtype=torch.float64)
    free = (limits[..., 1] > limits[..., 0]) & (sigma > 0)
    angles = start.clone().requires_grad_()
    adam = torch.optim.Adam([angles], lr=RATE)
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = RATE * 0.5 * (1 + np.cos(np.pi * step / steps)) + 1e-4
        rotation, translation = model.pose_bones(shape, model.rotations(angles))
        ends, radii = capsules.posed(shape, rotation, translation)
        overlap = 1e3 * capsules.overlaps(shape, rotation, translation)  # (G, P) mm
        loss = (torch.relu(overlap - PRESS_MM) ** 2).sum()
        loss = loss + 0.5 * torch.where(free, ((angles - start) / sigma) ** 2, 0.0).sum()
        if len(touches.rows):
            gap = 1e3 * touches.gaps(ends, radii) + 0.5 * PRESS_MM
            normals = touches.normals(capsules, rotation)
            places = 1e3 * touches.places(ends, radii, normals)
            apart = (places[:, 0] - places[:, 1]).square().sum(dim=-1)
            facing = 1 + (normals[:, 0] * normals[:, 1]).sum(dim=-1)
            loss = loss + (1.0 * gap**2 + 0.03 * apart + 1.5 * facing).sum()
        adam.zero_grad()
        loss.backward()
        assert angles.grad is not None
        angles.grad[~free] = 0
        adam.step()
        with torch.no_grad():
            angles.copy_(angles.clamp(limits[..., 0], limits[..., 1]))
    return angles.detach().numpy()


def _free_degrees(count: int) -> Array:
    """(count, 17, 3) standard deviations in degrees, all fingers as willing as those that touch."""
    sigma = np.zeros((count, PIVOT_COUNT, 3))
    for kind, value in THUMB_SIGMA.items():
        sigma[:, 1:4, kind] = value
    sigma[:, 2, TWIST] = 0
    sigma[:, FINGER_BASES[0] : FOREARM, FLEXION] = TOUCHING_SIGMA
    sigma[:, FINGER_BASES, ABDUCTION] = 2 * SPREAD_SIGMA
    return sigma


def _sigmas(specs: list[Spec]) -> Array:
    """(G, 17, 3) radians; zero where an angle is not to move."""
    sigma = _free_degrees(len(specs))
    for g, spec in enumerate(specs):
        places = {place for touch in spec.touches for place in touch.split("=")}
        for finger, letter in enumerate("IMRL"):
            pivot = FINGER_BASES[finger]
            moved = any(place.startswith(letter) and place[1:] != "1d" for place in places)
            sigma[g, pivot : pivot + 3, FLEXION] = TOUCHING_SIGMA if moved else OTHER_SIGMA
            sigma[g, pivot, ABDUCTION] = SPREAD_SIGMA * (2 if moved else 1)
    return np.deg2rad(sigma)
