"""Where a posed hand runs into itself, by tapered capsules fitted to the mesh.

Cheap and differentiable: they refuse random poses and let an optimiser bring thumb and fingers into
touch. The tests check them against the depth to which the skinned mesh itself runs into itself.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .hand import PIVOT_JOINTS, HandModel

# Capsules 0..14 are the bones of thumb, index, middle, ring, little, three each, in the order of
# the pivots 1..15; 15..18 are the metacarpals of index to little.
FINGER_CAPSULES = 15
CAPSULE_COUNT = 19
THUMB_METACARPAL, THUMB_PROXIMAL = 0, 1
# Where along a bone its girth is measured: away from the joints' folds and the tip's dome.
NEAR, FAR = 0.25, 0.75
HALF_SLAB = 0.22
PALM_GIVE_M = 0.0015  # the palm is soft, and hollows when fingers close
STRIP_M = 0.009  # the palm is measured this close to each metacarpal
DOME = 0.9  # fingertips are a little flatter than half spheres


def _pairs() -> list[tuple[int, int]]:
    """Capsules that must not run through each other: all but neighbours in the hand's skin."""
    found = []
    for a in range(FINGER_CAPSULES):
        for b in range(a + 1, FINGER_CAPSULES):
            same = a // 3 == b // 3
            bases = a % 3 == 0 and b % 3 == 0 and b // 3 - a // 3 == 1  # they share a web
            if not same and not bases:
                found.append((a, b))
    palm = range(FINGER_CAPSULES, CAPSULE_COUNT)
    # Fingers end on the palm; their first bones and the thumb's metacarpal grow out of it.
    found += [(a, b) for a in range(FINGER_CAPSULES) if a % 3 for b in palm]
    # Nor does the thumb collide with the palm's edge, whose skin folds between them.
    found.remove((THUMB_PROXIMAL, FINGER_CAPSULES))
    return found


PAIRS = _pairs()


class HandCapsules(nn.Module):
    """A tapered capsule for each bone, following shape and pose.

    Centres and radii come from the four outermost vertices (palm, back, thumb's and little
    finger's side) of two slabs of each bone's skin, so they are linear in the shape.
    """

    centres: Tensor
    centre_directions: Tensor
    radii: Tensor
    radius_directions: Tensor
    slack: Tensor
    first: Tensor
    second: Tensor
    owners: Tensor
    axes: Tensor

    def __init__(self, model: HandModel) -> None:
        super().__init__()
        fit = _Fit(model)
        centres, radii = fit.measure(model.vertices.double(), model.joints.double())
        slopes = fit.measure(model.directions.double(), model.joint_directions.double())
        self.register_buffer("centres", centres)
        self.register_buffer("radii", radii)
        self.register_buffer("centre_directions", slopes[0])  # (S, 19, 2, 3)
        self.register_buffer("radius_directions", slopes[1])  # (S, 19, 2)
        self.register_buffer("axes", torch.from_numpy(fit.axes))  # palmar, thumb's side
        self.register_buffer("first", torch.tensor([a for a, _ in PAIRS]))
        self.register_buffer("second", torch.tensor([b for _, b in PAIRS]))
        self.register_buffer("owners", torch.tensor([*range(1, 16), 0, 0, 0, 0]))
        # Skin that overlaps already in the flat hand (webs, the ball of the thumb) is no collision.
        self.register_buffer("slack", torch.zeros(len(PAIRS)))
        dtype, device = model.joints.dtype, model.joints.device
        self.to(device=device, dtype=dtype)
        with torch.no_grad():
            flat = torch.zeros(1, 17, 3, dtype=dtype, device=device)
            shape = torch.zeros(1, model.shape_count, dtype=dtype, device=device)
            bones = model.pose_bones(shape, model.rotations(flat))
            self.slack = self.overlaps(shape, *bones)[0].clamp(min=0)
            self.slack[self.second >= FINGER_CAPSULES] += PALM_GIVE_M

    def posed(
        self, shape: Tensor, rotation: Tensor, translation: Tensor, gives: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Ends (B, 19, 2, 3) and radii (B, 19, 2), metres, from `HandModel.pose_bones`.

        Args:
            gives: share of what is thicker than the template that is left out, as pressed flat.
        """
        rest = self.centres + torch.einsum("bs,skec->bkec", shape, self.centre_directions)
        thicker = torch.einsum("bs,ske->bke", shape, self.radius_directions)
        radii = self.radii + thicker - gives * thicker.clamp(min=0)
        turn = rotation[:, self.owners]  # (B, 19, 3, 3)
        ends = rest @ turn.transpose(-1, -2) + translation[:, self.owners, None]  # (B, 19, 2, 3)
        return ends, radii

    def overlaps(
        self, shape: Tensor, rotation: Tensor, translation: Tensor, gives: float = 0.0
    ) -> Tensor:
        """(B, P) metres by which each pair of `PAIRS` overlaps, beyond what skin allows.

        Args:
            gives: see `posed`.
        """
        ends, radii = self.posed(shape, rotation, translation, gives)
        a, b = self.first, self.second
        return -segment_gap(ends[:, a], radii[:, a], ends[:, b], radii[:, b]) - self.slack


def segment_gap(ends_a: Tensor, radii_a: Tensor, ends_b: Tensor, radii_b: Tensor) -> Tensor:
    """Gap (...) between tapered capsules, negative when they overlap.

    Args:
        ends_a, ends_b: (..., 2, 3) ends of the axes. radii_a, radii_b: (..., 2) at those ends.

    The radii are taken at the axes' closest points; closest points of two segments after Ericson,
    Real-Time Collision Detection, section 5.1.9.
    """
    start_a, start_b = ends_a[..., 0, :], ends_b[..., 0, :]
    along_a, along_b = ends_a[..., 1, :] - start_a, ends_b[..., 1, :] - start_b
    between = start_a - start_b
    aa, bb = (along_a * along_a).sum(-1), (along_b * along_b).sum(-1)
    ab = (along_a * along_b).sum(-1)
    c, f = (along_a * between).sum(-1), (along_b * between).sum(-1)
    parallel = (aa * bb - ab * ab).clamp(min=1e-12)
    s = ((ab * f - c * bb) / parallel).clamp(0, 1)
    t = ((ab * s + f) / bb).clamp(0, 1)
    s = ((ab * t - c) / aa).clamp(0, 1)
    offset = between + s[..., None] * along_a - t[..., None] * along_b
    distance = (offset * offset).sum(-1).clamp(min=1e-12).sqrt()
    radius_a = radii_a[..., 0] + s * (radii_a[..., 1] - radii_a[..., 0])
    radius_b = radii_b[..., 0] + t * (radii_b[..., 1] - radii_b[..., 0])
    return distance - radius_a - radius_b


class _Fit:
    """Which vertices measure each capsule, chosen on the template."""

    def __init__(self, model: HandModel) -> None:
        vertices = model.vertices.double().cpu().numpy()
        joints = model.joints.double().cpu().numpy()
        weights = model.asset.weights
        self.rows = np.zeros((CAPSULE_COUNT, 2, 4), dtype=np.int64)
        self.axes = np.zeros((CAPSULE_COUNT, 2, 3))
        self.joints = np.zeros((CAPSULE_COUNT, 2), dtype=np.int64)
        self.slabs = np.zeros((CAPSULE_COUNT, 2))
        self.ends = np.tile([0.0, 1.0], (CAPSULE_COUNT, 1))
        for k in range(CAPSULE_COUNT):
            palm = k >= FINGER_CAPSULES
            pivot = 0 if palm else k + 1
            start = 0 if palm else PIVOT_JOINTS[pivot]
            end = 5 + 4 * (k - FINGER_CAPSULES) if palm else start + 1
            bone = joints[end] - joints[start]
            length = float(np.linalg.norm(bone))
            along = bone / length
            inward = (
                np.array([0.0, 0.0, -1.0])
                if palm
                else np.cross(model.asset.flexion_axes[pivot], along)
            )
            inward -= along * (inward @ along)
            inward /= np.linalg.norm(inward)
            side = np.cross(along, inward)
            self.joints[k] = start, end
            self.axes[k] = inward, side
            self.slabs[k] = (0.5, 0.85) if palm or k == THUMB_METACARPAL else (NEAR, FAR)
            offset = vertices - joints[start]
            t = offset @ along / length
            skin = weights[:, pivot] > (0.25 if k == THUMB_METACARPAL else 0.45)
            if palm or k == THUMB_METACARPAL:  # across, their skin goes over into the palm's
                skin &= np.abs(offset @ side) < STRIP_M
                self.ends[k] = 0.35, 0.95
            for which, middle in enumerate(self.slabs[k]):
                near = np.flatnonzero(skin & (np.abs(t - middle) < HALF_SLAB))
                for n, axis in enumerate((inward, side)):
                    height = offset[near] @ axis
                    self.rows[k, which, 2 * n] = near[height.argmax()]
                    self.rows[k, which, 2 * n + 1] = near[height.argmin()]
            if not palm and k % 3 == 2:  # the dome of the tip touches the end of the capsule
                height = offset[weights[:, pivot] > 0.45] @ along
                radius = 0.5 * np.abs(np.diff(vertices[self.rows[k, 1, :2]] @ inward))[0]
                self.ends[k, 1] = (height.max() - DOME * radius) / length

    def measure(self, vertices: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Ends (..., 19, 2, 3) and radii (..., 19, 2); linear in vertices and joints together."""
        axes = torch.from_numpy(self.axes).to(vertices)  # (19, 2, 3)
        slabs = torch.from_numpy(self.slabs).to(vertices)
        base, tip = joints[..., self.joints[:, 0], :], joints[..., self.joints[:, 1], :]
        bone = (tip - base)[..., None, :]
        line = base[..., None, :] + slabs[..., None] * bone  # (..., 19, 2, 3)
        picked = vertices[..., self.rows, :] - line[..., None, :]  # (..., 19, 2, 4, 3)
        heights = torch.einsum("...kenmc,knc->...kenm", picked.unflatten(-2, (2, 2)), axes)
        offset = torch.einsum("...ken,knc->...kec", heights.mean(dim=-1), axes)
        half = 0.5 * (heights[..., 0] - heights[..., 1])  # (..., 19, 2, 2)
        radius = half.mean(dim=-1)
        wide = torch.arange(CAPSULE_COUNT, device=vertices.device) >= FINGER_CAPSULES
        wide = wide | (torch.arange(CAPSULE_COUNT, device=vertices.device) == THUMB_METACARPAL)
        radius = torch.where(wide[:, None], half[..., 0], radius)
        ends = torch.from_numpy(self.ends).to(vertices)
        share = (ends - slabs[:, :1]) / (slabs[:, 1:] - slabs[:, :1])  # (19, 2)
        first, last = offset[..., :1, :], offset[..., 1:, :]
        centres = base[..., None, :] + ends[..., None] * bone + first
        centres = centres + share[..., None] * (last - first)
        # Girth is not extrapolated far: towards the webs and the wrist skin belongs to others.
        share = share.clamp(-0.2, 1.2)
        share[wide] = share[wide].clamp(0, 1)
        radii = radius[..., :1] + share * (radius[..., 1:] - radius[..., :1])
        return centres, radii
