"""Pictures of hands: surface, skeleton, mesh lines or depth over the photo, and the side view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .camera import counted, shown
from .errors import InputError
from .geometry import upright_angle, vertex_normals
from .imaging import ImageLike, decode
from .styles import STYLES, Style
from .types import BONES, FINGERS, Hand, finite

__all__ = ["FINGER_COLORS", "depth_map", "overlay", "side_view"]

# RGB by finger, told apart by colour-blind people too (after Okabe and Ito).
FINGER_COLORS: dict[str, tuple[int, int, int]] = {
    "thumb": (230, 159, 0),
    "index": (86, 180, 233),
    "middle": (0, 158, 115),
    "ring": (240, 228, 66),
    "little": (204, 121, 167),
}
_WRIST_COLOR = (255, 255, 255)
_COLOR_OF_JOINT = {0: _WRIST_COLOR} | {
    joint: FINGER_COLORS[finger] for finger, joints in FINGERS.items() for joint in joints
}
# Cool, so that it stands out against skin.
_SURFACE_COLOR = np.array([168, 184, 232], dtype=np.float64)
_BACKGROUND = (32, 34, 38)
# Towards the light, in camera space: over the viewer's left shoulder.
_LIGHT = np.array([-0.4, -0.6, -0.7]) / np.linalg.norm([-0.4, -0.6, -0.7])
# OpenCV draws at sub-pixel places given as integers with this many binary digits.
_SHIFT = 4
# An edge counts as seen if what the camera sees there is not nearer than it by more.
_SEEN_WITHIN_M = 0.003
# The surface is drawn at twice the size and then reduced, unless it covers more pixels than this.
_SUPERSAMPLED = 2**21


def overlay(
    image: ImageLike,
    hands: Sequence[Hand],
    style: Style = "full",
    opacity: float = 0.75,
    max_side: int | None = None,
) -> NDArray[np.uint8]:
    """Hands over their photo.

    Args:
        image: the photo, as `handmesh.imaging.decode` takes it.
        hands: what was found in it.
        style: as in `Hand.draw`: "full", "mesh", "skeleton", "wireframe", "depth" or "side".
        opacity: of shaded meshes and depth colours, 0 (none) to 1.
        max_side: reduce the picture to this many pixels on its longer side.

    Returns:
        (H, W, 3) uint8 RGB, with "side" wider by H for each hand; the photo itself is not changed.

    Raises:
        ImageError: the photo cannot be used.
        InputError: no hands but something else, another style, an opacity that is not in 0..1, a
            side that is not a whole number from 1, or a photo of another size than the one the
            hands were found in.
    """
    if style not in STYLES:
        raise InputError(f"style must be one of {', '.join(STYLES)}, not {style!r}")
    if not 0 <= finite(opacity, "opacity", InputError) <= 1:
        raise InputError(f"opacity lies between 0 and 1, not {opacity}")
    if max_side is not None:
        max_side = counted(max_side, "max_side")
    picture = decode(image)
    hands = _checked(hands)
    for hand in hands:
        _check_size(picture, hand)
    scale = 1.0 if max_side is None else min(1.0, max_side / max(picture.shape[:2]))
    if scale < 1:
        size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    else:
        picture = picture.copy()
    # Far hands first, so that near ones cover them.
    ordered = sorted(hands, key=lambda hand: -float(hand.joints_m[:, 2].mean()))
    places = [_reduced(hand.vertices_px, scale) for hand in ordered]
    if style == "depth":
        _draw_depth(picture, ordered, places, opacity)
    for hand, vertices_px in zip(ordered, places, strict=True):
        if style in ("full", "mesh", "side") and opacity > 0:
            _draw_surface(picture, vertices_px, hand.vertices_m, hand.faces, opacity)
        if style == "wireframe":
            _draw_wireframe(picture, vertices_px, hand)
        if style in ("full", "skeleton", "side"):
            _draw_skeleton(picture, _reduced(hand.joints_px, scale), hand.joints_m[:, 2])
    if style == "side":
        picture = np.hstack([picture, *(side_view(hand, len(picture)) for hand in hands)])
    return picture


def depth_map(hands: Sequence[Hand], width: int, height: int) -> NDArray[np.float32]:
    """How far away the surfaces of hands are, pixel by pixel.

    Args:
        hands: what was found in a photo. width, height: of that photo, in pixels.

    Returns:
        (H, W) float32, metres along the camera's axis; NaN where no hand is.

    Raises:
        InputError: no hands but something else, or a size that is not a whole number from 1.
    """
    hands = _checked(hands)
    width, height = counted(width, "width"), counted(height, "height")
    nearest = np.full((height, width), np.inf)
    for hand in hands:
        vertices_px = hand.vertices_px.astype(np.float64)
        _fill_depth(nearest, vertices_px, hand.vertices_m[:, 2].astype(np.float64), hand.faces)
    return np.where(np.isfinite(nearest), nearest, np.nan).astype(np.float32)


def side_view(hand: Hand, size: int = 512, degrees: float = 90.0) -> NDArray[np.uint8]:
    """The hand stood upright and turned about its own length, without perspective, on a plain
    ground.

    At 90 degrees the camera of the photo is to the left, and what was far from it is to the right:
    here errors of depth show. A hand that points at the camera has no length in the picture; it is
    turned about the photo's vertical axis.

    Args:
        hand: the hand.
        size: side of the square picture in pixels.
        degrees: angle of the turn.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        InputError: no hand, a size that is not a whole number from 1, or an angle that is not
            finite.
    """
    (hand,) = _checked([hand])
    size = counted(size, "size")
    # A hand that lies on its side would else be seen along its fingers, as a lump.
    stand = _about_z(-(upright_angle(hand.joints_m) or 0.0))
    turn = _about_y(np.radians(finite(degrees, "degrees", InputError)))
    vertices = hand.vertices_m.astype(np.float64) @ stand.T  # (V, 3)
    joints = hand.joints_m.astype(np.float64) @ stand.T  # (21, 3)
    shape = vertices if len(vertices) else joints
    low, high = shape.min(axis=0), shape.max(axis=0)
    middle = (low + high) / 2
    extent = max(float(np.linalg.norm((high - low)[[0, 2]])), float((high - low)[1]))
    scale = 0.85 * size / extent if extent > 0 else 1.0  # a hand that is one point is drawn as one
    vertices = (vertices - middle) @ turn.T
    joints = (joints - middle) @ turn.T
    picture = np.full((size, size, 3), _BACKGROUND, dtype=np.uint8)
    centre = (size - 1) / 2
    _draw_surface(picture, vertices[:, :2] * scale + centre, vertices, hand.faces, 1.0)
    _draw_skeleton(picture, joints[:, :2] * scale + centre, joints[:, 2])
    return picture


def _about_y(angle: float) -> NDArray[np.float64]:
    """The matrix that turns +z, away from the camera, towards +x, right."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def _about_z(angle: float) -> NDArray[np.float64]:
    """The matrix that turns +x, right, towards +y, down."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def _checked(hands: Sequence[Hand]) -> list[Hand]:
    if not isinstance(hands, Sequence):
        raise InputError(f"expected a list of hands, as predict gives, not {shown(hands)}")
    for hand in hands:
        if not isinstance(hand, Hand):
            raise InputError(f"expected hands, as predict gives, not {shown(hand)}")
    return list(hands)


def _check_size(picture: NDArray[np.uint8], hand: Hand) -> None:
    """Pixels of one photo mean nothing in another."""
    height, width = picture.shape[:2]
    if (width, height) != (hand.camera.width, hand.camera.height):
        raise InputError(
            f"the hand was found in a photo of {hand.camera.width} x {hand.camera.height} pixels, "
            f"and this one has {width} x {height}: draw over the former, and scale the result"
        )


def _reduced(points_px: NDArray[Any], scale: float) -> NDArray[np.float64]:
    """Points in a picture reduced by ``scale``: outer corners stay, centres of pixels do not."""
    return np.asarray((points_px.astype(np.float64) + 0.5) * scale - 0.5)


def _fill_depth(
    nearest: NDArray[np.float64],
    vertices_px: NDArray[np.float64],
    depth: NDArray[np.float64],
    faces: NDArray[np.int32],
) -> None:
    """Lower a depth buffer (H, W) to a mesh's depth where that is nearer."""
    height, width = nearest.shape
    corners = vertices_px[faces]  # (F, 3, 2)
    low = np.maximum(np.ceil(corners.min(axis=1)).astype(int), 0)  # (F, 2)
    high = np.minimum(np.floor(corners.max(axis=1)).astype(int) + 1, (width, height))
    (ax, ay), (bx, by), (cx, cy) = (corners[:, k].T for k in range(3))
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)  # (F,)
    for face in np.flatnonzero((high > low).all(axis=1) & (area != 0)):
        (x0, y0), (x1, y1) = low[face], high[face]
        x, y = np.arange(x0, x1), np.arange(y0, y1)[:, None]
        b = ((x - ax[face]) * (cy - ay)[face] - (y - ay[face]) * (cx - ax)[face]) / area[face]
        c = ((bx - ax)[face] * (y - ay[face]) - (by - ay)[face] * (x - ax[face])) / area[face]
        inside = (b >= 0) & (c >= 0) & (b + c <= 1)
        # 1 / z is linear in the picture, z is not.
        first, second, third = 1 / depth[faces[face]]
        z = 1 / (first + b * (second - first) + c * (third - first))
        region = nearest[y0:y1, x0:x1]
        region[inside] = np.minimum(region[inside], z[inside])


def _draw_depth(
    picture: NDArray[np.uint8],
    hands: Sequence[Hand],
    places: Sequence[NDArray[np.float64]],
    opacity: float,
) -> None:
    """Blend in the colours of depth, over the range of all hands: near parts bright."""
    nearest = np.full(picture.shape[:2], np.inf)
    for hand, vertices_px in zip(hands, places, strict=True):
        _fill_depth(nearest, vertices_px, hand.vertices_m[:, 2].astype(np.float64), hand.faces)
    there = np.isfinite(nearest)
    if not there.any():
        return
    near, far = nearest[there].min(), nearest[there].max()
    brightness = 255 * (far - nearest[there]) / max(far - near, 1e-9)  # (N,)
    colors = cv2.applyColorMap(np.round(brightness).astype(np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)
    mixed = picture[there] * (1 - opacity) + colors[:, 0, ::-1] * opacity
    picture[there] = np.round(mixed).astype(np.uint8)


def _draw_wireframe(
    picture: NDArray[np.uint8], vertices_px: NDArray[np.float64], hand: Hand
) -> None:
    """The mesh's edges that the camera sees."""
    nearest = np.full(picture.shape[:2], np.inf)
    depth = hand.vertices_m[:, 2].astype(np.float64)
    _fill_depth(nearest, vertices_px, depth, hand.faces)
    pairs = np.sort(hand.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    edges = np.unique(pairs, axis=0)  # (E, 2)
    middle = np.round(vertices_px[edges].mean(axis=1)).astype(int)  # (E, 2)
    inside = ((middle >= 0) & (middle < picture.shape[1::-1])).all(axis=1)
    edges, middle = edges[inside], middle[inside]
    # Just outside the silhouette the buffer is infinite: those edges are seen, too.
    seen = depth[edges].mean(axis=1) <= nearest[middle[:, 1], middle[:, 0]] + _SEEN_WITHIN_M
    points = np.round(vertices_px[edges[seen]] * 2**_SHIFT).astype(np.int32)  # (E, 2, 2)
    color = tuple(int(c) for c in _SURFACE_COLOR)
    cv2.polylines(picture, list(points), False, color, 1, cv2.LINE_AA, _SHIFT)


def _draw_surface(
    picture: NDArray[np.uint8],
    vertices_px: NDArray[np.float64],
    vertices_m: NDArray[Any],
    faces: NDArray[np.int32],
    opacity: float,
) -> None:
    """Blend the shaded mesh into the picture, far triangles first (painter's algorithm)."""
    if not len(faces):
        return
    height, width = picture.shape[:2]
    low = np.clip(np.floor(vertices_px.min(axis=0)).astype(int) - 1, 0, (width, height))
    high = np.clip(np.ceil(vertices_px.max(axis=0)).astype(int) + 2, 0, (width, height))
    if (high <= low).any():
        return
    region = picture[low[1] : high[1], low[0] : high[0]]
    factor = 2 if region.shape[0] * region.shape[1] <= _SUPERSAMPLED else 1
    layer = np.repeat(np.repeat(region, factor, axis=0), factor, axis=1)
    cover = np.zeros(layer.shape[:2], dtype=np.uint8)

    normals = vertex_normals(vertices_m, faces)  # (V, 3)
    corners_m = np.asarray(vertices_m, dtype=np.float64)[faces]  # (F, 3, 3)
    light = np.clip(normals[faces].mean(axis=1) @ _LIGHT, -0.2, 1)  # (F,)
    colors = np.clip(_SURFACE_COLOR * (0.45 + 0.6 * light[:, None]), 0, 255)  # (F, 3)
    points = (vertices_px - low + 0.5) * factor - 0.5
    triangles = np.round(points * 2**_SHIFT).astype(np.int32)[faces]  # (F, 3, 2)
    for face in np.argsort(-corners_m[:, :, 2].mean(axis=1)):
        cv2.fillConvexPoly(layer, triangles[face], colors[face].tolist(), cv2.LINE_8, _SHIFT)
        cv2.fillConvexPoly(cover, triangles[face], 255, cv2.LINE_8, _SHIFT)

    size = (region.shape[1], region.shape[0])
    small = cv2.resize(layer, size, interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(cover, size, interpolation=cv2.INTER_AREA)[..., None] / 255.0  # (h, w, 1)
    # `small` holds the photo where nothing covers it, so its edges are blended already.
    blend = opacity * np.ceil(alpha)
    region[:] = np.round(region * (1 - blend) + small * blend).astype(np.uint8)


def _draw_skeleton(
    picture: NDArray[np.uint8], joints_px: NDArray[np.float64], depth: NDArray[Any]
) -> None:
    """Bones and joints in the colour of their finger, far ones first, with a dark edge.

    A bone comes before the joints at its ends, so that every joint shows.
    """
    extent = float((joints_px.max(axis=0) - joints_px.min(axis=0)).max())
    thickness = max(1, round(extent / 90))
    points = np.round(joints_px * 2**_SHIFT).astype(int)
    radius = round(thickness * 1.4 * 2**_SHIFT)
    parts: list[tuple[float, int, int]] = [  # (depth, from, to); a joint ends where it begins
        *((float(depth[[a, b]].max()) + 1e-6, a, b) for a, b in BONES),
        *((float(depth[joint]), joint, joint) for joint in range(len(points))),
    ]
    edge = max(1, thickness // 2)
    for _, a, b in sorted(parts, reverse=True):
        start, end = (tuple(int(c) for c in points[j]) for j in (a, b))
        if a == b:
            cv2.circle(
                picture, start, radius + (edge << _SHIFT), (0, 0, 0), -1, cv2.LINE_AA, _SHIFT
            )
            cv2.circle(picture, start, radius, _COLOR_OF_JOINT[a], -1, cv2.LINE_AA, _SHIFT)
        else:
            cv2.line(picture, start, end, (0, 0, 0), thickness + 2 * edge, cv2.LINE_AA, _SHIFT)
            cv2.line(picture, start, end, _COLOR_OF_JOINT[b], thickness, cv2.LINE_AA, _SHIFT)
