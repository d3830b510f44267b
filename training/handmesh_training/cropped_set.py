"""Labelled data sets, cut to hands once and kept on disk as arrays: what fine-tuning reads.

Reading STB or RHD means decoding pictures of which the hand is a small part. `build` cuts the hands
out, with joints, depth maps and all, into a folder of .npy files that are mapped into memory, so
that sets larger than the memory can be trained on and all processes share one copy.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray
from tqdm import tqdm

from handmesh.atomic import write_atomic
from handmesh.errors import CheckpointError, InputError
from handmesh.types import ROOT_JOINT, UNIT_BONE, Box

from .datasets import Sample
from .datasets.crops import can_crop, tells_scale, to_crops
from .datasets.dataset import spread
from .depth_maps import UNKNOWN, Depths, reference_depth
from .disk import new_array
from .samples import Crops
from .shards.manifest import file_sha256

INDEX, DEPTHS, GROUPS = "index.json", "depth_maps", "groups"
# Of the files in which the known layouts keep labels.
LABEL_SUFFIXES = (".json", ".mat", ".pickle", ".txt")


class SampleSource(Protocol):
    """A `datasets.Dataset`, or what looks like one. Its folder is None where its samples lie in no
    file: then the split tells all that decides them."""

    split: str

    @property
    def folder(self) -> Path | None: ...

    @property
    def revision(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def group_of(self, index: int) -> int: ...


class CroppedSet:
    """Crops of a folder made by `build`, and their depth maps.

    Attributes:
        crops: all of them, mapped; writing to them is an error.
        depth_maps: (N, D, D) float32, see `depth_maps.reference_depth`; all unknown where there
            is no depth picture, or no root depth and scale to tell it by.
        groups: (N, 2) int64, the number of the data set and its group, see `Dataset.group_of`.
        margin: side of the crops over the joints' box.
        sha256: of what is in it, and how it was cut; pseudo-ground-truth meshes name it.
        made_from: sha256 of how it was cut, and of the sets' label files.

    Raises:
        InputError: no such set there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        try:
            index = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
            arrays = {
                name: np.load(self.folder / f"{name}.npy", mmap_mode="r")
                for name in (*(field.name for field in fields(Crops)), DEPTHS, GROUPS)
            }
            self.margin, self.sha256 = float(index["margin"]), str(index["sha256"])
            self.made_from = str(index["made_from"])
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{folder} holds no set of cropped hands, or one of an earlier version ({error}); "
                "delete it, it is made anew"
            ) from error
        self.depth_maps: Depths = arrays.pop(DEPTHS)
        self.groups: NDArray[np.int64] = arrays.pop(GROUPS)
        self.crops = Crops(**arrays)

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def has_depth_map(self) -> NDArray[np.bool_]:
        """(N,) whether anything is known of the depth map."""
        return np.asarray(~np.isnan(self.depth_maps).all(axis=(1, 2)))

    def last_groups(self, one_in: int, most: int) -> NDArray[np.int64]:
        """Rows of the last groups of each data set, whole: as few of them as hold one hand in
        ``one_in``, or ``most`` of them, but never all that a set has."""
        chosen = [np.empty(0, np.int64)]
        for number in np.unique(self.groups[:, 0]):
            rows = np.flatnonzero(self.groups[:, 0] == number)
            wanted = min(len(rows) // one_in, most)
            names, sizes = np.unique(self.groups[rows, 1], return_counts=True)
            if wanted and len(names) > 1:
                count = 1 + int(np.searchsorted(np.cumsum(sizes[::-1]), wanted))
                last = names[max(len(names) - count, 1) :]
                chosen.append(rows[np.isin(self.groups[rows, 1], last)])
        return np.concatenate(chosen)


def build(
    datasets: Sequence[SampleSource],
    folder: Path,
    side: int,
    margin: float,
    depth_side: int,
    vertex_count: int,
    limit: int | None = None,
    joints_3d: bool = True,
) -> CroppedSet:
    """Cut the hands out of data sets, unless ``folder`` holds just these already.

    Left hands are mirrored. Samples of unknown side, or with hardly a known joint, are left out.
    A set whose label files have changed since, or are read otherwise now, is another. Pictures are
    read while cutting alone: their contents are part of the result's hash.

    Args:
        datasets: what to read. folder: where to; appears when it is whole.
        side: of the crops in pixels. margin: side of the crop over the joints' box.
        depth_side: D of the stored depth maps. vertex_count: V of the (unlabelled) vertices.
        limit: hands of each set at most, evenly spread.
        joints_3d: keep labels of the joints' depth. Without, 3D joints serve for the root depth and
            scale of depth maps alone, which the paper takes as given (section 5.1).

    Raises:
        InputError: no usable hand in the sets, or one that cannot be read; or a disk too full.
        CheckpointError: ``folder`` holds another set.
    """
    folder = Path(folder)
    chosen = [(data, spread(len(data), limit)) for data in datasets]
    settings: dict[str, Any] = {
        "sets": [
            [
                None if data.folder is None else str(data.folder),
                data.split,
                data.revision,
                len(rows),
                None if data.folder is None else _labels_sha256(data.folder, folder),
            ]
            for data, rows in chosen
        ],
        "side": side,
        "margin": margin,
        "depth_side": depth_side,
        "joints_3d": joints_3d,
        "vertices": vertex_count,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    if folder.exists():
        found = CroppedSet(folder)
        if found.made_from != digest:
            raise CheckpointError(
                f"{folder} holds hands cut out of other sets, or otherwise, or labels or how they "
                "are read have changed since, or the renderer of rendered ones; delete it, or use "
                "another folder"
            )
        return found
    total = sum(len(rows) for _, rows in chosen)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    empty = Crops.empty(1, side, vertex_count)
    arrays = {field.name: getattr(empty, field.name) for field in fields(Crops)}
    arrays[DEPTHS] = np.zeros((1, depth_side, depth_side), np.float32)
    contents = sorted(arrays)
    arrays[GROUPS] = np.zeros((1, 2), np.int64)
    stores: dict[str, NDArray[Any]] = {
        name: _new_store(partial, name, array.dtype, (total, *array.shape[1:]))
        for name, array in arrays.items()
    }
    kept, content = 0, hashlib.sha256(digest.encode())
    with tqdm(total=total, desc="cropping", unit="hand") as bar:
        for number, (data, rows) in enumerate(chosen):
            for row in rows:
                bar.update()
                sample = data[row]
                if not can_crop(sample):
                    continue
                crops = to_crops([sample], side, margin, vertex_count)
                if sample.our_mesh and sample.is_right:
                    _label_mesh(crops, sample, margin)
                if not joints_3d:
                    crops.has_depth[:] = False
                for field in fields(Crops):
                    stores[field.name][kept] = getattr(crops, field.name)[0]
                stores[DEPTHS][kept] = _depth_map(sample, margin, depth_side)
                stores[GROUPS][kept] = number, data.group_of(row)
                for name in contents:
                    content.update(stores[name][kept].tobytes())
                kept += 1
    if not kept:
        raise InputError("the data sets hold no hand of a known side with known joints")
    for name in list(stores):
        store: Any = stores.pop(name)
        store.flush()
        if kept < total:  # the rows of what was left out
            # Mapped, for a set may be larger than the memory.
            shorter: Any = _new_store(partial, f"{name}.cut", store.dtype, (kept, *store.shape[1:]))
            shorter[:] = store[:kept]
            shorter.flush()
            del shorter, store
            (partial / f"{name}.cut.npy").replace(partial / f"{name}.npy")
    index = {"count": kept, "sha256": content.hexdigest(), "made_from": digest, **settings}
    write_atomic(partial / INDEX, (json.dumps(index, indent=2) + "\n").encode())
    partial.rename(folder)
    return CroppedSet(folder)


def _new_store(partial: Path, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """`new_array` in a folder of others; where the disk is too full for it, none of them is left
    to fill it."""
    try:
        return new_array(partial / f"{name}.npy", dtype, shape)
    except InputError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _label_mesh(crops: Crops, sample: Sample, margin: float) -> None:
    """Add the mesh of one right hand, if it is labelled, to its crop."""
    points, lens, joints_m = sample.vertices_m, sample.intrinsics, sample.joints_m
    if points is None or lens is None or joints_m is None or not tells_scale(joints_m):
        return
    box = Box.from_points(sample.joints_px[sample.joint_known], margin=margin)
    pixels = points[:, :2] / points[:, 2:] * lens[[0, 1], [0, 1]] + lens[:2, 2]  # (V, 2)
    bone_m = np.linalg.norm(joints_m[UNIT_BONE[1]] - joints_m[UNIT_BONE[0]])
    crops.vertices[0, :, :2] = box.to_crop(pixels)
    crops.vertices[0, :, 2] = (points[:, 2] - joints_m[ROOT_JOINT, 2]) / bone_m
    crops.has_mesh[0] = True


def _depth_map(sample: Sample, margin: float, side: int) -> Depths:
    """(D, D) in the same crop as `to_crops` takes."""
    known, joints_m = sample.joint_known, sample.joints_m
    if sample.depth_m is None or joints_m is None or not known.all() or not tells_scale(joints_m):
        return np.full((side, side), UNKNOWN)
    box = Box.from_points(sample.joints_px[known], margin=margin)
    bone_m = float(np.linalg.norm(joints_m[UNIT_BONE[1]] - joints_m[UNIT_BONE[0]]))
    root_m = float(joints_m[ROOT_JOINT, 2])
    depth = reference_depth(sample.depth_m, box, sample.joints_px, root_m, bone_m, side)
    return depth if sample.is_right else depth[:, ::-1]


def _labels_sha256(folder: Path, result: Path) -> str:
    """Of names and contents of the label files below a folder. What the run writes is none: neither
    the result nor, where they lie below, its neighbours."""
    below, found = folder.resolve() in result.resolve().parent.parents, hashlib.sha256()
    own = result.resolve().parent if below else result.resolve()
    labels = [
        Path(place) / name
        for place, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix in LABEL_SUFFIXES
    ]
    for path in sorted(labels):
        if own not in path.resolve().parents:
            found.update(f"{path.relative_to(folder)} {file_sha256(path)}\n".encode())
    return found.hexdigest()
