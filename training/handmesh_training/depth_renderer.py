"""The differentiable depth renderer R of the paper's Eq. (7): mesh to depth map, with gradients.

Which face a pixel sees is found by a z-buffer and carries no gradient. Inside the outline, depth
is interpolated from the seen face's corners, so its gradient is exact. At the outline, coverage is
a smooth function of the distance to the nearest edge of the outline, so that a depth image also
pulls the outline itself: where the mesh leaves true pixels uncovered, its rim is drawn outwards.

The soft map is not what a depth camera sees, though: every pixel at its outline stands between the
hand and what is behind it. Compared with a camera's map, such pixels outweigh the surface, and the
best fit is a hand that stands before the true one. So losses take `sharp`: values as a camera's,
and gradients of surface and outline.

Everything is plain torch: batched, any device, float32 or float64. Memory grows with faces times
the pixels of a face's bounding box, which is a few for the 32 x 32 maps the paper trains with.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handmesh.errors import InputError

from .surface import Surface

# Faces are drawn in classes of about one size, each with the candidate pixels it needs.
_WINDOWS = (2, 4, 8, 16)
# Pixels farther than this many standard widths from the outline are wholly in or out.
_BAND_WIDTHS = 4.0


class DepthMap(NamedTuple):
    """A rendered batch.

    Attributes:
        depth: (B, S, S), the mesh's depth where it covers the pixel, the background's elsewhere,
            blended by coverage at the outline; unit of the input's third coordinate.
        sharp: (B, S, S), the same as a depth camera has it: the seen face's depth at the pixel's
            centre, or the background's. Its gradient is exact where a face is seen; beside it, that
            of the coverage moves the outline in the image, but nothing in depth.
        coverage: (B, S, S) in 0..1; 1/2 on the outline.
        face: (B, S, S) int64, the face that is seen, -1 for none.
    """

    depth: Tensor
    sharp: Tensor
    coverage: Tensor
    face: Tensor


class DepthRenderer(nn.Module):
    """Renders meshes of one topology, given in crop fractions and depth, to small depth maps."""

    faces: Tensor
    edges: Tensor
    edge_faces: Tensor

    def __init__(
        self,
        surface: Surface,
        size: int = 32,
        softness: float = 0.5,
        background: float = 3.0,
    ) -> None:
        """
        Args:
            surface: the mesh's triangulation, the same winding everywhere.
            size: side S of the maps, pixels.
            softness: width of the outline's sigmoid, pixels.
            background: depth where there is no mesh.

        Raises:
            InputError: a size or softness that is not positive.
        """
        super().__init__()
        if size < 1 or softness <= 0:
            raise InputError(f"size {size} and softness {softness} must be positive")
        self.size, self.softness, self.background = size, softness, background
        self.register_buffer("faces", surface.faces.clone(), persistent=False)
        self.register_buffer("edges", surface.edges.clone(), persistent=False)
        self.register_buffer("edge_faces", surface.faces_of_edge.clone(), persistent=False)

    def forward(self, vertices: Tensor, root_depth: Tensor | None = None) -> DepthMap:
        """Depth maps of (B, V, 3) vertices (u, v, d): crop fractions, and relative depth.

        Args:
            vertices: pixel i of a map has its centre at the fraction (i + 0.5) / S.
            root_depth: (B,) absolute depth of d = 0 in units of d, for perspective-correct
                interpolation; None interpolates d linearly in the image, which over a face of a
                hand is the same to a few thousandths of a bone.

        Raises:
            InputError: vertices of another shape.
        """
        if vertices.ndim != 3 or vertices.shape[2] != 3:
            raise InputError(f"expected (B, V, 3) vertices, got {tuple(vertices.shape)}")
        corners = vertices * vertices.new_tensor([self.size, self.size, 1.0])  # pixels
        with torch.no_grad():
            face = self._visible(corners.detach())  # (B, S * S)
        inside = self._depth_at(corners, face, root_depth)  # (B, S * S)
        coverage, rim = self._coverage(corners, face)  # (B, S * S) each
        covered = face >= 0
        nearest = torch.where(covered, inside, rim)
        height = nearest - self.background
        depth = self.background + coverage * height
        hard = torch.where(covered, inside, torch.full_like(inside, self.background))
        # The second summand is 0, and carries the outline's gradient. Depth is left out of it: of a
        # pixel that the mesh wrongly leaves bare, it would pull the rim to where nobody saw it.
        sharp = hard + (coverage - coverage.detach()) * height.detach()
        shape = (len(vertices), self.size, self.size)
        return DepthMap(*(x.view(shape) for x in (depth, sharp, coverage, face)))

    def _centres(self, like: Tensor) -> Tensor:
        """(S * S, 2) pixel centres (x, y) in pixels, row by row."""
        line = torch.arange(self.size, device=like.device, dtype=like.dtype) + 0.5
        y, x = torch.meshgrid(line, line, indexing="ij")
        return torch.stack([x, y], dim=-1).flatten(0, 1)

    def _visible(self, corners: Tensor) -> Tensor:
        """(B, S * S) index of the nearest face over each pixel centre, -1 for none."""
        batch, size = len(corners), self.size
        triangles = corners[:, self.faces]  # (B, F, 3, 3)
        low = triangles[..., :2].amin(dim=2)  # (B, F, 2)
        high = triangles[..., :2].amax(dim=2)
        first = (low - 0.5).ceil().clamp(0, size)  # pixels whose centres lie in the box
        count = ((high - 0.5).floor().clamp(-1, size - 1) - first + 1).clamp(min=0)
        widest = count.amax(dim=-1)  # (B, F)
        nearest = corners.new_full((batch, size * size), torch.inf)
        found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        below = 0
        for window in (*_WINDOWS, size):
            row, face = ((widest > below) & (widest <= window)).nonzero(as_tuple=True)
            below = max(below, window)
            if len(row):
                found.append(self._candidates(triangles, first, row, face, min(window, size)))
        for sample, pixel, _, z in found:
            nearest.view(-1).scatter_reduce_(0, sample * size * size + pixel, z, "amin")
        seen = torch.full((batch, size * size), -1, dtype=torch.long, device=corners.device)
        for sample, pixel, face, z in found:
            place = sample * size * size + pixel
            front = z <= nearest.view(-1)[place]
            # Of faces at the very same depth the highest number wins, whatever the order.
            seen.view(-1).scatter_reduce_(0, place[front], face[front], "amax")
        return seen

    def _candidates(
        self, triangles: Tensor, first: Tensor, row: Tensor, face: Tensor, window: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Hits (sample, pixel, face, depth) of N faces on a window of pixels each."""
        step = torch.arange(window, device=triangles.device)
        dy, dx = (a.flatten() for a in torch.meshgrid(step, step, indexing="ij"))
        start = first[row, face].long()  # (N, 2)
        x, y = start[:, :1] + dx, start[:, 1:] + dy  # (N, window^2)
        points = torch.stack([x, y], dim=-1).to(triangles.dtype) + 0.5
        share = _barycentric(points, triangles[row, face][:, None])  # (N, window^2, 3)
        z = (share * triangles[row, face][:, None, :, 2]).sum(-1)
        hit = (share >= 0).all(-1) & (x < self.size) & (y < self.size)
        which = torch.arange(len(row), device=row.device)[:, None].expand_as(x)[hit]
        return row[which], (y * self.size + x)[hit], face[which], z[hit]

    def _depth_at(self, corners: Tensor, face: Tensor, root_depth: Tensor | None) -> Tensor:
        """(B, S * S) depth of the seen faces at the pixel centres; anything where there is none."""
        which = self.faces[face.clamp(min=0)]  # (B, P, 3)
        flat = which.flatten(1)[..., None].expand(-1, -1, 3)
        triangles = corners.gather(1, flat).unflatten(1, which.shape[1:])  # (B, P, 3, 3)
        # Pixels without a face stand at the centroid of face 0: finite, and masked out later.
        centre = self._centres(corners)[None].expand(len(corners), -1, -1)
        centre = torch.where((face >= 0)[..., None], centre, triangles[..., :2].mean(2).detach())
        share = _barycentric(centre, triangles)  # (B, P, 3)
        if root_depth is None:
            return (share * triangles[..., 2]).sum(-1)
        root = root_depth[:, None]
        return 1 / (share / (triangles[..., 2] + root[..., None])).sum(-1) - root

    def _coverage(self, corners: Tensor, face: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S * S) smooth coverage, and the depth of the nearest point of the outline."""
        size = self.size
        covered = face >= 0
        hard = covered.to(corners.dtype)
        with torch.no_grad():
            outline = self._outline(corners.detach(), covered)  # (B, E)
            reach = math.ceil(_BAND_WIDTHS * self.softness) + 1
            image = hard.view(-1, 1, size, size)
            grown = F.max_pool2d(image, 2 * reach + 1, 1, reach)
            shrunk = 1 - F.max_pool2d(1 - image, 2 * reach + 1, 1, reach)
            band = ((grown > 0) & (shrunk < 1)).view(len(corners), -1) & outline.any(1)[:, None]
            sample, pixel = band.nonzero(as_tuple=True)
            edge = self._nearest_edge(corners.detach(), outline)[sample, pixel]
        a = corners[sample, self.edges[edge, 0]]  # (N, 3)
        b = corners[sample, self.edges[edge, 1]]
        point = self._centres(corners)[pixel]
        foot = _foot(point, a[:, :2], b[:, :2])  # (N, 1) share of the way from a to b
        nearest = a + foot * (b - a)
        distance = (nearest[:, :2] - point).square().sum(-1).clamp(min=1e-12).sqrt()
        signed = torch.where(covered[sample, pixel], distance, -distance)
        place = (sample, pixel)
        coverage = hard.index_put(place, torch.sigmoid(signed / self.softness))
        rim = torch.zeros_like(hard).index_put(place, nearest[:, 2])
        return coverage, rim

    def _outline(self, corners: Tensor, covered: Tensor) -> Tensor:
        """(B, E) bool: edges with the mesh on one side in the image and nothing on the other."""
        a, b = corners[:, self.edges[:, 0], :2], corners[:, self.edges[:, 1], :2]  # (B, E, 2)
        area = _signed_area(corners[:, self.faces])  # (B, F)
        front = F.pad(area > 0, (0, 1), value=False)  # the missing face of a rim counts as back
        folded = front[:, self.edge_faces[:, 0]] != front[:, self.edge_faces[:, 1]]
        folded |= (self.edge_faces[:, 1] == len(self.faces))[None]
        along = b - a
        normal = torch.stack([-along[..., 1], along[..., 0]], dim=-1)
        normal = normal / normal.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        middle = 0.5 * (a + b)
        # One side of an outline's edge is bare: looked up a little over half a pixel away.
        bare = torch.zeros_like(folded)
        for sign in (-0.75, 0.75):
            cell = (middle + sign * normal).floor().long()
            within = ((cell >= 0) & (cell < self.size)).all(-1)
            place = (cell[..., 1] * self.size + cell[..., 0]).clamp(0, self.size**2 - 1)
            bare |= ~(covered.gather(1, place) & within)
        return folded & bare

    def _nearest_edge(self, corners: Tensor, outline: Tensor) -> Tensor:
        """(B, S * S) index of the outline's edge nearest to each pixel centre."""
        # Outline edges of each sample, packed to the front: a tenth of all.
        most = max(int(outline.sum(1).amax()), 1)
        order = outline.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
        valid = outline.gather(1, order)[:, None]  # (B, 1, most)
        rows = torch.arange(len(corners), device=corners.device)[:, None]
        a = corners[rows, self.edges[order, 0], :2]  # (B, most, 2)
        along = corners[rows, self.edges[order, 1], :2] - a
        # |p - a - t along|^2 with t clamped to the segment, out of products of p with a and along.
        point = self._centres(corners)[None]  # (1, S * S, 2)
        reach = point @ along.transpose(1, 2) - (a * along).sum(-1)[:, None]  # (B, S * S, most)
        length = along.square().sum(-1)[:, None]
        t = (reach / length.clamp(min=1e-12)).clamp_(0, 1)
        squares = a.square().sum(-1)[:, None] - 2 * point @ a.transpose(1, 2)  # less |p|^2
        squares.addcmul_(t, t * length - 2 * reach).masked_fill_(~valid, torch.inf)
        return order.gather(1, squares.argmin(dim=2))


def _signed_area(triangles: Tensor) -> Tensor:
    """Twice the area of (..., 3, 2 or more) triangles in the image, by their first two axes."""
    a, b, c = triangles[..., 0, :2], triangles[..., 1, :2], triangles[..., 2, :2]
    ab, ac = b - a, c - a
    return ab[..., 0] * ac[..., 1] - ab[..., 1] * ac[..., 0]


def _barycentric(points: Tensor, triangles: Tensor) -> Tensor:
    """(..., 3) barycentric coordinates of (..., 2) points; all -1 in a triangle without area."""
    a, b, c = (triangles[..., k, :2] for k in range(3))
    area = _signed_area(triangles)
    flat = area.abs() < 1e-12
    safe = torch.where(flat, torch.ones_like(area), area)

    def cross(p: Tensor, q: Tensor) -> Tensor:
        return p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]

    shares = [cross(c - b, points - b), cross(a - c, points - c), cross(b - a, points - a)]
    result = torch.stack(shares, dim=-1) / safe[..., None]
    return torch.where(flat[..., None], -torch.ones_like(result), result)


def _foot(points: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """(..., 1) where on the segment a to b the nearest point to (..., 2) points lies, 0..1."""
    along = b - a
    length = along.square().sum(-1, keepdim=True).clamp(min=1e-12)
    return (((points - a) * along).sum(-1, keepdim=True) / length).clamp(0, 1)
