"""Pseudo-ground-truth meshes of the paper's section 4.4: what the pretrained network makes of the
training pictures when it is given the true heat-maps. They have good edges and smoothness, which is
all that `weak_losses.pseudo_mesh_loss` takes from them.

They lie in an .npy file that is mapped into memory, as the set's own arrays are, for there may be
more of them than fit into it. A small .json beside it names the set and the weights they were made
of; it is written last, and without it they do not count.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from handmesh.atomic import replacing, write_atomic
from handmesh.errors import InputError
from handmesh.imaging import crop
from handmesh.types import CROP_MARGIN, Box

from .cropped_set import CroppedSet
from .disk import new_array
from .losses import gaussian_heatmaps
from .shards.manifest import file_sha256
from .sources import to_input


@torch.no_grad()
def make_pseudo_meshes(
    network: nn.Module,
    weights: Path,
    data: CroppedSet,
    path: Path,
    input_size: int,
    heatmap_size: int,
    device: torch.device,
    batch: int = 64,
) -> None:
    """Run the network on every hand of a set and keep its meshes.

    Args:
        network: trained; its forward takes images and heat-maps. weights: its file, whose hash is
            kept with the meshes.
        data: the set; hands without all their joints get no mesh (zeros).
        path: .npy to write, atomically. input_size, heatmap_size: of the network.

    Raises:
        InputError: the disk is too full.
    """
    network.eval()
    labelled = np.flatnonzero(data.crops.has_joints)
    # The network looks closer than the stored crops do.
    zoom, middle = data.margin / CROP_MARGIN, 0.5 * data.crops.images.shape[1] - 0.5
    box = Box(middle, middle, data.crops.images.shape[1] / zoom)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, ".npy") as temporary:
        meshes: Any = new_array(temporary, np.float32, data.crops.vertices.shape)
        for first in tqdm(range(0, len(labelled), batch), desc="pseudo meshes", unit="batch"):
            rows = labelled[first : first + batch]
            images = np.stack([crop(image, box, input_size) for image in data.crops.images[rows]])
            uv = (data.crops.joints[rows, :, :2] - 0.5) * zoom + 0.5
            maps = gaussian_heatmaps(torch.from_numpy(uv).to(device), heatmap_size)
            output = network(to_input(torch.from_numpy(images).to(device)), maps)
            found = output.vertices.float().cpu().numpy()
            found[..., :2] = (found[..., :2] - 0.5) / zoom + 0.5
            meshes[rows] = found
        meshes.flush()
        del meshes
        _origin_file(path).unlink(missing_ok=True)  # it is of those that were there
    _write_origin(path, data.sha256, file_sha256(weights))


def adopt_pseudo_meshes(old: Path, path: Path) -> None:
    """Take over the meshes of an earlier handmesh, which kept them in an .npz, if they are whole.

    Args:
        old: the .npz; it stays. path: .npy to write, atomically.
    """
    try:
        with np.load(old) as file:
            origin = str(file["set_sha256"]), str(file["weights_sha256"])
        with (
            ZipFile(old) as archive,
            archive.open("vertices.npy") as stored,
            replacing(path, ".npy") as temporary,
        ):
            with temporary.open("wb") as mapped:
                shutil.copyfileobj(stored, mapped)  # a piece at a time
            _origin_file(path).unlink(missing_ok=True)
    except (EOFError, ValueError, KeyError, BadZipFile):
        return
    _write_origin(path, *origin)


def are_pseudo_meshes_of(path: Path, data: CroppedSet, weights: Path) -> bool:
    """Whether a file holds the meshes that these weights make of that set."""
    try:
        return origin_of(path) == origin_from(data, weights)
    except InputError:
        return False


def origin_from(data: CroppedSet, weights: Path) -> str:
    """`origin_of` the meshes that these weights make of that set."""
    return f"{data.sha256} {file_sha256(weights)}"


def origin_of(path: Path) -> str:
    """What the meshes of a file were made of: hashes of the set and of the weights.

    Raises:
        InputError: no such file.
    """
    _, set_sha256, weights_sha256 = _open(path)
    return f"{set_sha256} {weights_sha256}"


def load_pseudo_meshes(path: Path, data: CroppedSet) -> NDArray[np.float32]:
    """(N, V, 3) network coordinates in the stored crops of ``data``, mapped; writing is an error.

    Raises:
        InputError: no such file, or meshes of another set.
    """
    meshes, sha256, _ = _open(path)
    if sha256 != data.sha256 or meshes.shape != data.crops.vertices.shape:
        raise InputError(f"{path} holds meshes of another set than {data.folder}; make them anew")
    return meshes


def _open(path: Path) -> tuple[NDArray[np.float32], str, str]:
    """The meshes, mapped, and the hashes of their set and weights."""
    try:
        meshes = np.lib.format.open_memmap(path, mode="r")
        origin = json.loads(_origin_file(path).read_text(encoding="utf-8"))
        if meshes.dtype != np.float32:
            raise ValueError(f"{meshes.dtype} instead of float32")
        return meshes, str(origin["set_sha256"]), str(origin["weights_sha256"])
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no pseudo meshes ({error}); make them anew") from error


def _origin_file(path: Path) -> Path:
    return path.with_suffix(".json")


def _write_origin(path: Path, set_sha256: str, weights_sha256: str) -> None:
    origin = {"set_sha256": set_sha256, "weights_sha256": weights_sha256}
    write_atomic(_origin_file(path), (json.dumps(origin, indent=2) + "\n").encode())
