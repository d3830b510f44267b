"""From a posed surface back to a hand at rest: skinning, undone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from handmesh.errors import InputError

from ..hand import HandAsset, HandModel
from ..template.skeleton import motion_axes
from .closest import Array

# The joints follow from the rest vertices and the other way round; rounds until they agree.
ROUNDS, AGREED_M = 60, 1e-7
DISAGREED_M = 1e-4


def at_rest(asset: HandAsset, posed: Array, rotations: Array) -> HandAsset:
    """The hand that looks like ``posed`` where its bones are turned by ``rotations``.

    Vertices at rest, and with them the joints and their axes, are its own; topology, skinning
    weights, shape directions and joint regressor stay.

    Args:
        asset: whose topology it is. posed: (V, 3), wherever its wrist is.
        rotations: (17, 3, 3), as `HandModel` takes them.

    Raises:
        InputError: no rest pose gives this surface.
    """
    model = HandModel(asset).double()
    regressor = asset.joint_regressor.astype(np.float64)
    rest = asset.vertices_m.astype(np.float64)
    for _ in range(ROUNDS):
        # Each vertex is moved by an affine map that depends on bones and joints alone.
        joints = regressor @ rest
        origin = _forward(model, np.zeros_like(rest), joints, rotations)
        maps = np.stack(
            [
                _forward(model, np.broadcast_to(axis, rest.shape), joints, rotations) - origin
                for axis in np.eye(3)
            ],
            axis=2,
        )  # (V, 3, 3)
        place = posed - (posed - origin - np.einsum("vij,vj->vi", maps, rest)).mean(axis=0)
        try:
            found = np.linalg.solve(maps, (place - origin)[..., None])[..., 0]
        except np.linalg.LinAlgError:
            break
        found -= regressor[0] @ found  # the wrist is the origin
        change = np.abs(found - rest).max()
        rest = found
        if change < AGREED_M:
            break
    off = _forward(model, rest, regressor @ rest, rotations) - posed
    off = np.linalg.norm(off - off.mean(axis=0), axis=1)
    if not off.max() < DISAGREED_M:
        raise InputError(
            "skinning cannot be undone: no hand at rest has this surface when it bends its joints "
            "as the model's bind pose does; give one whose fingers are all but straight"
        )
    flexion, abduction, twist = motion_axes(regressor @ rest)
    return replace(
        asset,
        vertices_m=rest.astype(np.float32),
        flexion_axes=flexion.astype(np.float32),
        abduction_axes=abduction.astype(np.float32),
        twist_axes=twist.astype(np.float32),
    )


def _forward(model: HandModel, rest: Array, joints: Array, rotations: Array) -> Array:
    """(V, 3) posed vertices of a hand with these rest vertices (V, 3) and joints (21, 3)."""
    model.vertices = torch.from_numpy(np.ascontiguousarray(rest))
    model.joints = torch.from_numpy(joints)
    shape = torch.zeros(1, model.shape_count, dtype=torch.float64)
    with torch.no_grad():
        return np.asarray(model(shape, torch.from_numpy(rotations)[None]).vertices[0].numpy())
