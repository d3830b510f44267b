"""Tiny data sets in the layouts, units, frames and joint orders of the real ones, made by hand.

The makers have numbers and orders of their own: they must not share what the loaders get wrong.
``known_hand`` and ``write_picture`` are the fixtures of those names.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from handmesh import JOINT_NAMES

Array = NDArray[np.float64]
Hand = dict[str, Array]

STB_FINGERS = ("little", "ring", "middle", "index")
STB_FRAMES = 2
# As published.
DEPTH_FOCAL, DEPTH_CENTRE = np.array([475.62768, 474.77709]), np.array([336.41179, 238.77962])


def _to_stb(hand: dict[str, Array]) -> Array:
    """(21, 3) millimetres: palm, four fingers from the little one, thumb."""
    palm = (hand["wrist"] + hand["ring_mcp"]) / 2
    rows = [palm]
    rows += [hand[f"{f}_{j}"] for f in STB_FINGERS for j in ("mcp", "pip", "dip", "tip")]
    rows += [hand[f"thumb_{j}"] for j in ("cmc", "mcp", "ip", "tip")]
    return np.array(rows) * 1000


def _coded_depth(depth_mm: Array) -> NDArray[np.uint8]:
    whole = np.round(depth_mm).astype(int)
    return np.stack([whole % 256, whole // 256, whole * 0], axis=-1).astype(np.uint8)


def make_stb(folder: Path, known_hand: Any, write_picture: Any) -> Path:
    """Two frames of each sequence; the depth map shows a square about each joint."""
    grey = np.full((480, 640, 3), 90, dtype=np.uint8)
    for b in range(1, 7):
        for kind in ("Counting", "Random"):
            name = f"B{b}{kind}"
            labels = []
            for frame in range(STB_FRAMES):
                labels.append(_to_stb(known_hand(False, 100 * b + frame)))
                depth = np.zeros((480, 640))
                for x, y, z in labels[-1]:
                    u, v = np.round(DEPTH_FOCAL * (x / z, y / z) + DEPTH_CENTRE).astype(int)
                    patch = depth[v - 3 : v + 4, u - 3 : u + 4]
                    patch[:] = np.where(patch > 0, np.minimum(patch, z), z)
                place = folder / "images" / name
                write_picture(place / f"SK_depth_{frame}.png", _coded_depth(depth))
                for camera in ("SK_color", "BB_left", "BB_right"):
                    picture = grey.copy()
                    picture[0, 0, 0] = 10 * b + frame
                    write_picture(place / f"{camera}_{frame}.png", picture)
            (folder / "labels").mkdir(exist_ok=True)
            para = np.stack(labels).transpose(2, 1, 0)  # (3, 21, frames)
            for camera in ("SK", "BB"):
                file = folder / "labels" / f"{name}_{camera}.mat"
                scipy.io.savemat(file, {"handPara": para}, do_compression=camera == "BB")
    return folder


RHD_CAMERA = np.array([[290.0, 0, 160], [0, 290.0, 160], [0, 0, 1]])
RHD_LABELS = "evaluation/anno_evaluation.pickle"


def _to_rhd(hand: dict[str, Array]) -> Array:
    """(21, 3): the wrist, then each finger from its tip."""
    rows = [hand["wrist"]]
    rows += [hand[f"thumb_{joint}"] for joint in ("tip", "ip", "mcp", "cmc")]
    for finger in ("index", "middle", "ring", "little"):
        rows += [hand[f"{finger}_{joint}"] for joint in ("tip", "dip", "pip", "mcp")]
    return np.array(rows)


def make_rhd(folder: Path, known_hand: Any, write_picture: Any) -> Path:
    """Four pictures with both hands; in the even ones more of the right is to be seen."""
    labels = {}
    place = folder / "evaluation"
    for number in range(4):
        left, right = (_to_rhd(known_hand(side, 10 * number + side)) for side in (False, True))
        xyz = np.concatenate([left, right])
        projected = xyz @ RHD_CAMERA.T
        uv = projected[:, :2] / projected[:, 2:]
        visible = np.arange(42) % 3 > 0
        labels[number] = {"uv_vis": np.column_stack([uv, visible]), "xyz": xyz, "K": RHD_CAMERA}
        mask = np.zeros((320, 320), dtype=np.uint8)
        mask[100:120, 100:150] = 1
        mask[10:40, 10:40] = 17 if number % 2 else 5
        mask[50:70, 50:70] = 2
        more, less = (slice(200, 260), slice(200, 210))
        mask[more if number % 2 == 0 else less, 200:260] = 18
        mask[300:302, 300:302] = 33
        write_picture(place / f"mask/{number:05d}.png", mask)
        depth = np.zeros((320, 320, 3), dtype=np.uint8)
        for (u, v), z in zip(uv, xyz[:, 2], strict=True):
            coded = round(z / 5 * 65535)
            depth[round(v - 0.5), round(u - 0.5), :2] = coded // 256, coded % 256
        write_picture(place / f"depth/{number:05d}.png", depth)
        write_picture(place / f"color/{number:05d}.png", np.full_like(depth, 40 + number))
    (folder / RHD_LABELS).write_bytes(pickle.dumps(labels))
    return folder


FREIHAND_POSES = 5


def make_freihand(folder: Path, known_hand: Any, write_picture: Any) -> Path:
    """Five poses, four times each for training, once for evaluation; meshes of ten vertices."""
    rng = np.random.default_rng(0)
    for name, times in (("training", 4), ("evaluation", 1)):
        cameras, joints, meshes = [], [], []
        for pose in range(FREIHAND_POSES):
            cameras.append([[470.0 + pose, 0, 112], [0, 471.0 + pose, 111], [0, 0, 1]])
            hand = known_hand(True, pose if times == 4 else 50 + pose)
            joints.append([hand[joint].tolist() for joint in JOINT_NAMES])
            meshes.append((np.array(joints[-1][:10]) + rng.normal(0, 0.01, (10, 3))).tolist())
        for what, rows in (("K", cameras), ("xyz", joints), ("verts", meshes)):
            (folder / f"{name}_{what}.json").write_text(json.dumps(rows))
        for number in range(FREIHAND_POSES * times):
            picture = np.full((224, 224, 3), 3 * number, dtype=np.uint8)
            write_picture(folder / name / f"rgb/{number:08d}.jpg", picture)
    for pose in range(FREIHAND_POSES):
        mask = np.zeros((224, 224), dtype=np.uint8)
        mask[: 40 * pose + 8] = 255
        write_picture(folder / f"training/mask/{pose:08d}.jpg", mask)
    return folder


GE_GESTURES, GE_SIDE, GE_FOCAL = 2, 96, 150.0


def to_world(points_m: Array, angles_deg: Array, place_cm: Array) -> Array:
    """(N, 3) camera, metres, to world, centimetres: what the loader must undo."""
    a, b, c = np.deg2rad(angles_deg)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    rotation = z @ y @ x @ np.diag([1, -1, -1])
    return 100 * points_m @ rotation.T + place_cm


def camera_of(number: int, gesture: int) -> tuple[Array, Array]:
    """Angles in degrees and place in centimetres."""
    rng = np.random.default_rng([number, gesture])
    return rng.uniform(-60, 60, 3), rng.uniform(-30, 30, 3)


def make_ge_synthetic(folder: Path, known_hand: Any, write_picture: Any) -> Path:
    """The gesture as camera 1 sees it is known; the others look from elsewhere."""
    (folder / "3D_labels").mkdir()
    (folder / "hand_3D_mesh").mkdir()
    joint_lines, camera_lines = "\n", "\n"
    for gesture in range(GE_GESTURES):
        hand = known_hand(False, gesture)
        joints = np.array([hand[name] for name in JOINT_NAMES])
        world = to_world(joints, *camera_of(1, gesture))
        lines = (f"bone_{n} {x:.9f} {y:.9f} {z:.9f}" for n, (x, y, z) in enumerate(world))
        joint_lines += "\n".join(lines) + "\n\n"
        for camera in range(1, 26):
            angles, place = camera_of(camera, gesture)
            numbers = " ".join(f"{value:.9f}" for value in (GE_FOCAL, *place, *angles))
            camera_lines += f"cam{camera:02d} {numbers} \n"
        camera_lines += "\n"
        mesh = to_world(joints[:7] + 0.002, *camera_of(1, gesture))
        text = "# made up\n" + "".join(f"v {x:.9f} {y:.9f} {z:.9f}\n" for x, y, z in mesh)
        file = folder / "hand_3D_mesh" / f"pose.{gesture + 1:04d}.obj"
        file.write_text(text + "vn 0 0 1\nf 1 2 3\n")
    (folder / "3D_labels/handGestures.txt").write_text(joint_lines)
    (folder / "3D_labels/camPosition.txt").write_text(camera_lines)
    for light in (1, 30):
        for camera in (1, 6, 25):
            for gesture in range(GE_GESTURES):
                picture = np.zeros((GE_SIDE, GE_SIDE, 4), dtype=np.uint8)
                picture[20:70, 30:60] = (200, 10 * camera // 2, light, 255)
                picture[70:72, 30:60, 3] = 64
                name = f"l{light:02d}/cam{camera:02d}/any_l_cam_.{gesture + 1:04d}.png"
                write_picture(folder / "images" / name, picture)
    return folder


def make_photo_set(folder: Path, write_picture: Any, count: int = 3) -> Path:
    """Photos whose labels say which they are; the teacher's Left is the person's right."""
    folder.mkdir(exist_ok=True)
    labels = {}
    for k in range(count):
        uv = np.random.default_rng(k).uniform(10, 50, (21, 2)) + 0.5
        hand = {"uv": uv.tolist(), "world_m": [[0, 0, 0]] * 21}
        hand["handedness_as_reported"] = "Left" if k % 2 else "Right"
        labels[f"{k}.png"] = {"hands": [hand]}
        write_picture(folder / f"{k}.png", np.full((60, 60, 3), k, dtype=np.uint8))
    (folder / "pseudo_labels.json").write_text(json.dumps(labels))
    return folder
