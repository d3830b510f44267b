"""The twin of `augment` for whole batches on any device: same settings, same labels.

Pictures go through one trilinear look-up instead of one OpenCV call each, and every choice is drawn
for the whole batch by a generator on the device, so that nothing is read back from it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from handmesh.geometry import SHORTEST_HAND

from .augment import CUT_MOST, PARTS, UNKNOWN_LENGTH, Augmentation
from .develop_torch import blur_map, develop, normal, uniform

Batch = dict[str, Tensor]

_REPLICATE, _REFLECT = 1, 2  # borders; 0 is black


class Geometry(NamedTuple):
    """How stored crops become input crops.

    Attributes:
        matrix: (B, 2, 3) float64, from stored to input crop fractions.
        missed: (B,) bool, the input crop is to miss the hand.
        mirrored: (B,) bool, it is shown mirrored after the map.
    """

    matrix: Tensor
    missed: Tensor
    mirrored: Tensor


def augment(settings: Augmentation, generator: torch.Generator, crops: Batch) -> Batch:
    """Draw one network input from each stored crop.

    Args:
        settings: strengths, shared with the NumPy version.
        generator: the only source of randomness; on the crops' device.
        crops: tensors named and shaped like the fields of `samples.Crops`, on one device.

    Returns:
        The same fields, new tensors; images (B, input_size, input_size, 3) uint8.
    """
    geometry = draw_geometry(settings, generator, crops)
    out = move_labels(crops, geometry)
    stored = crops["images"].permute(0, 3, 1, 2).float()  # (B, 3, S, S)
    stored = on_other_grounds(settings, generator, crops, stored, geometry.missed)
    scale = torch.linalg.det(geometry.matrix[:, :, :2]).abs().sqrt()
    # A reflection must not show the hand twice: only where the stored crop nearly covers.
    choices = torch.where(scale > 0.8, 3, 2)
    border = (uniform(generator, len(stored), 0, 1) * choices).long()
    images = warp(stored, geometry.matrix, settings.input_size, border)
    images = torch.where(geometry.mirrored[:, None, None, None], images.flip(3), images)
    covered = out["has_hand"] & (uniform(generator, len(stored), 0, 1) < settings.occluders)
    images = torch.where(covered[:, None, None, None], occlude(generator, images, stored), images)
    images = develop(generator, images)
    angle = uniform(generator, len(stored), -math.pi, math.pi)
    share = uniform(generator, len(stored), 0, CUT_MOST)
    is_cut = uniform(generator, len(stored), 0, 1) < settings.cut
    beyond = beyond_border(out, images.shape[-1], angle, share) & is_cut[:, None, None]
    images = torch.where(beyond[:, None], 0.0, images)
    out["images"] = images.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return out


def draw_geometry(settings: Augmentation, generator: torch.Generator, crops: Batch) -> Geometry:
    """Turn, margin, shift and mirroring of each crop, as `Augmentation` describes them."""
    joints = crops["joints"][..., :2].double()  # (B, 21, 2)
    count, has_joints = len(joints), crops["has_joints"]

    def chance(share: float) -> Tensor:
        return uniform(generator, count, 0, 1) < share

    def ranging(low: float, high: float, *more: int) -> Tensor:
        return uniform(generator, count, low, high, *more).double()

    def spread(scale: float, *more: int) -> Tensor:
        return normal(generator, count, scale, *more).double()

    turn = spread(settings.rotation)
    turn = torch.where(chance(settings.anyhow), ranging(-math.pi, math.pi), turn)
    upright, known = upright_angles(joints)
    straight = has_joints & known & chance(settings.upright)
    turn = torch.where(straight, spread(settings.upright_spread) - upright, turn)
    margin = settings.margin * spread(settings.margin_spread).exp()

    # The tight box in the turned frame, as the SDK takes it for its next look.
    c, s = turn.cos(), turn.sin()
    back = torch.stack([torch.stack([c, s], -1), torch.stack([-s, c], -1)], -2)  # (B, 2, 2)
    turned = joints @ back
    low, high = turned.amin(dim=1), turned.amax(dim=1)  # (B, 2)
    centre = (back @ (0.5 * (low + high))[..., None])[..., 0]
    centre = torch.where(has_joints[:, None], centre, 0.5)
    side = torch.where(has_joints, (high - low).amax(dim=1), 1 / settings.stored_margin)

    shift = spread(settings.shift, 2)
    kind = uniform(generator, count, 0, 1)
    wide = kind < settings.wide
    margin = torch.where(wide, ranging(settings.margin, settings.wide_margin), margin)
    room = (1 - 1 / margin)[:, None]
    shift = torch.where(wide[:, None], ranging(-0.5, 0.5, 2) * room, shift)
    missed = crops["has_hand"] & ~wide & (kind < settings.wide + settings.misses)
    beside = chance(0.5)
    away = ranging(0, 2 * math.pi)
    aside = ranging(0.75, 1.0)[:, None] * torch.stack([away.cos(), away.sin()], -1)
    shift = torch.where((missed & beside)[:, None], aside, shift)
    margin = torch.where(missed & ~beside, ranging(0.2, 0.45), margin)

    linear = back.transpose(1, 2) / (side * margin)[:, None, None]  # (B, 2, 2)
    offset = 0.5 + shift - (linear @ centre[..., None])[..., 0]
    matrix = torch.cat([linear, offset[..., None]], dim=-1)
    return Geometry(matrix, missed, chance(settings.left))


def upright_angles(joints: Tensor) -> tuple[Tensor, Tensor]:
    """`handmesh.geometry.upright_angle` of (B, 21, 2) joints: angles (B,), and which are known."""
    along = joints[:, [5, 9, 13, 17]].mean(dim=1) - joints[:, 0]  # (B, 2)
    extent = (joints.amax(dim=1) - joints.amin(dim=1)).amax(dim=1)
    known = along.norm(dim=1) > SHORTEST_HAND * extent
    return torch.atan2(along[:, 0], -along[:, 1]), known


def move_labels(crops: Batch, geometry: Geometry) -> Batch:
    """Every field of the crops but the images, as the input crops have them.

    Crops that miss the hand lose all labels. A mirrored crop shows the other hand: its (u, v) stay
    known, as is its outline, its depth and mesh are no labels any more.
    """
    matrix, missed, mirrored = geometry
    out = {name: values for name, values in crops.items() if name != "images"}
    for name in ("joints", "vertices", "outline"):
        points = crops[name].double()
        uv = points[..., :2] @ matrix[:, :, :2].transpose(1, 2) + matrix[:, None, :, 2]
        out[name] = torch.cat([uv, points[..., 2:]], dim=-1).float()
    zoom = (matrix[:, 0, 0] ** 2 + matrix[:, 1, 0] ** 2).sqrt()
    out["crop_in_bones"] = (crops["crop_in_bones"] / zoom).float()
    for name in ("has_hand", "has_joints"):
        out[name] = crops[name] & ~missed
    out["outline_known"] = crops["outline_known"] & ~missed[:, None]
    for name in ("has_depth", "has_mesh"):
        out[name] = crops[name] & ~missed & ~mirrored
    out["is_right"] = crops["is_right"] ^ mirrored
    for name in ("joints", "outline"):
        u = out[name][..., :1]
        u = torch.where(mirrored[:, None, None], 1 - u, u)
        out[name] = torch.cat([u, out[name][..., 1:]], dim=-1)
    return out


def on_other_grounds(
    settings: Augmentation,
    generator: torch.Generator,
    crops: Batch,
    stored: Tensor,
    missed: Tensor,
) -> Tensor:
    """Of the stored pictures (B, 3, S, S) with a known outline some before another ground: that of
    a crop without a hand, if there is one, or a part of any other. Of those that are to miss their
    hand (B,) none: there might be another one."""
    empty, count = ~crops["has_hand"], len(stored)
    changed = crops["outline_known"].any(dim=1) & ~missed
    changed &= uniform(generator, count, 0, 1) < settings.grounds
    busy = uniform(generator, count, 0, 1) < settings.busy
    # Nothing is read back: where no crop is empty any is drawn, and none is used.
    likely = torch.where(empty.any(), empty.float(), 1.0)
    free = torch.multinomial(likely, count, replacement=True, generator=generator)
    step = 1 + (uniform(generator, count, 0, 1) * (count - 1)).long()
    others = (torch.arange(count, device=stored.device) + step) % count
    share = torch.where(busy, uniform(generator, count, *PARTS), 1.0)
    corner = uniform(generator, count, 0, 1, 2)
    grounds = parts_of(stored[torch.where(busy, others, free)], share, corner)
    flipped = uniform(generator, count, 0, 1) < 0.5
    grounds = torch.where(flipped[:, None, None, None], grounds.flip(3), grounds)
    exchanged = before(stored, crops["outline"], grounds)
    changed &= torch.where(busy, count > 1, empty.any())
    return torch.where(changed[:, None, None, None], exchanged, stored)


def beyond_border(out: Batch, side: int, angle: Tensor, share: Tensor) -> Tensor:
    """(B, S, S) bool: what lies beyond a border across each hand; the twin of `augment.cut`.

    Args:
        out: of the crops, joints and whether they are known. angle, share: (B,).
    """
    direction = torch.stack([angle.cos(), angle.sin()], dim=-1)  # (B, 2)
    along = (out["joints"][..., :2] @ direction[..., None])[..., 0]  # (B, 21)
    middle, known = direction.sum(dim=1) / 2, out["has_joints"]
    low = torch.where(known, along.amin(dim=1), middle - UNKNOWN_LENGTH / 2)
    high = torch.where(known, along.amax(dim=1), middle + UNKNOWN_LENGTH / 2)
    centres = (torch.arange(side, device=angle.device) + 0.5) / side
    place = centres[None, None] * direction[:, 0, None, None]
    place = place + centres[None, :, None] * direction[:, 1, None, None]  # (B, S, S)
    return place > (high - share * (high - low))[:, None, None]


def parts_of(images: Tensor, share: Tensor, corner: Tensor) -> Tensor:
    """A part of each picture (B, 3, S, S), as large as the whole; the twin of `augment.part_of`.

    Args:
        share: (B,) its side, of the whole's. corner: (B, 2) from 0 to 1, where among all places.
    """
    side = images.shape[-1]
    middle = (torch.arange(side, device=images.device, dtype=torch.float32) + 0.5) / side
    share, corner = share[:, None], (1 - share)[:, None] * corner
    u, v = (corner[:, k, None] + share * middle for k in (0, 1))  # (B, S)
    source = torch.stack(torch.broadcast_tensors(u[:, None], v[:, :, None]), dim=-1)
    replicate = torch.full((len(images),), _REPLICATE, device=images.device)
    return _look_up(images, source, replicate)


def before(images: Tensor, outline: Tensor, grounds: Tensor) -> Tensor:
    """What outlines (B, P, 2) enclose in pictures (B, 3, S, S), before other grounds."""
    side = images.shape[-1]
    inside = enclosed(outline, side).float()  # (B, S, S)
    blur = blur_map(torch.ones(len(images), device=images.device), side)
    soft = blur @ inside @ blur.transpose(1, 2)
    return torch.lerp(grounds, images, (2 * soft - 1).clamp(0, 1)[:, None])


def enclosed(outline: Tensor, side: int) -> Tensor:
    """(B, S, S) whether the centre of each pixel lies inside a closed outline (B, P, 2) of crop
    fractions: left of it, the outline crosses its row an odd number of times."""
    start, end = outline, outline.roll(-1, dims=1)
    row = (torch.arange(side, device=outline.device, dtype=outline.dtype) + 0.5) / side
    x, y = (start[..., k, None] for k in (0, 1))  # (B, P, 1)
    dx, dy = (end[..., k, None] - start[..., k, None] for k in (0, 1))
    crosses = (y <= row) != (y + dy <= row)  # (B, P, S)
    place = x + dx * (row - y) / torch.where(crosses, dy, 1.0)
    first = (place * side - 0.5).ceil().clamp(0, side).long()  # first pixel right of it
    count = torch.zeros(len(outline), side, side + 1, device=outline.device)
    count.scatter_add_(2, first.transpose(1, 2), crosses.transpose(1, 2).float())
    return count.cumsum(dim=2)[..., :side] % 2 == 1


def warp(images: Tensor, matrix: Tensor, side: int, border: Tensor) -> Tensor:
    """Pictures seen through affine maps, filtered where they shrink.

    Args:
        images: (B, 3, S, S) float32. matrix: (B, 2, 3) from their fractions to the result's.
        side: of the result. border: (B,) 0 black, 1 the last pixel, 2 mirrored about it.

    Returns:
        (B, 3, side, side) float32.
    """
    device = images.device
    middle = (torch.arange(side, device=device, dtype=torch.float64) + 0.5) / side
    v, u = torch.meshgrid(middle, middle, indexing="ij")
    places = torch.stack([u, v], dim=-1).flatten(0, 1)  # (side^2, 2)
    linear = torch.linalg.inv(matrix[:, :, :2])
    source = (places - matrix[:, None, :, 2]) @ linear.transpose(1, 2)
    source = source.unflatten(1, (side, side)).float()  # (B, side, side, 2) stored fractions
    stored = images.shape[-1]
    # Stored pixels a result's pixel: as many are averaged, between two halved copies.
    texels = (stored / side) * torch.linalg.det(linear).abs().sqrt().float()
    level = texels.clamp(min=1).log2()[:, None, None, None]  # (B, 1, 1, 1)
    result = torch.zeros(1, device=device)
    copy, halvings = images, 3
    for k in range(halvings + 1):
        nearest = level.clamp(max=halvings)
        weight = (1 - (nearest - k).abs()).clamp(min=0)
        result = result + weight * _look_up(copy, source, border)
        if k < halvings:
            small = max(1, (copy.shape[-1] + 1) // 2)
            copy = F.interpolate(copy, size=(small, small), mode="area")
    return result


def _look_up(images: Tensor, source: Tensor, border: Tensor) -> Tensor:
    """Bilinear samples at (B, h, w, 2) fractions, each picture with its own border."""
    last = images.shape[-1] - 1
    place = source * (last + 1) - 0.5  # pixels, centres at whole numbers
    folded = last - ((place % (2 * last) if last else place * 0) - last).abs()
    kind = border[:, None, None, None]
    place = torch.where(kind == _REPLICATE, place.clamp(0, last), place)
    place = torch.where(kind == _REFLECT, folded, place)
    grid = (place + 0.5) * (2 / (last + 1)) - 1
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def occlude(generator: torch.Generator, images: Tensor, others: Tensor) -> Tensor:
    """Cover a part of each picture with a flat shape or a piece of another one.

    Args:
        generator: chooses. images: (B, 3, S, S), 0..255. others: (B, 3, any, any) to cover with.
    """
    count, side = len(images), images.shape[-1]
    axes = (uniform(generator, count, 0.06, 0.22, 2) * side).floor().clamp(min=1)
    centre = (uniform(generator, count, 0.05, 0.95, 2) * side).floor()
    turn = uniform(generator, count, 0, math.pi)[:, None, None]
    pixel = torch.arange(side, device=images.device, dtype=torch.float32)
    x = pixel - centre[:, None, None, 0]  # (B, 1, S)
    y = pixel[:, None] - centre[:, None, None, 1]  # (B, S, 1)
    along = (x * turn.cos() + y * turn.sin()).abs()  # (B, S, S)
    across = (y * turn.cos() - x * turn.sin()).abs()
    a, b = axes[:, None, None, 0], axes[:, None, None, 1]
    # Distance inside the border in pixels; of the ellipse to first order.
    radius = ((along / a) ** 2 + (across / b) ** 2).sqrt().clamp(min=1e-6)
    slope = ((along / a**2) ** 2 + (across / b**2) ** 2).sqrt() / radius
    ellipse = (1 - radius) / slope.clamp(min=1e-6)
    box = torch.minimum(a - along, b - across)
    is_box = (uniform(generator, count, 0, 1) < 0.5)[:, None, None]
    alpha = (torch.where(is_box, box, ellipse) + 0.5).clamp(0, 1)[:, None]  # (B, 1, S, S)

    flat = uniform(generator, count, 0, 256, 3, 1, 1).floor()
    chosen = torch.randint(count, (count,), generator=generator, device=images.device)
    piece = F.interpolate(others[chosen], size=(side, side), mode="bilinear")  # (B, 3, S, S)
    shift = torch.randint(side, (count, 1), generator=generator, device=images.device)
    columns = (torch.arange(side, device=images.device) - shift) % side  # (B, S)
    piece = piece.gather(3, columns[:, None, None].expand_as(piece))
    is_flat = (uniform(generator, count, 0, 1) < 0.5)[:, None, None, None]
    return torch.lerp(images, torch.where(is_flat, flat, piece), alpha)
