"""Pseudo-ground-truth meshes of the paper's section 4.4: what the pretrained network makes of the
training pictures when it is given the true heat-maps. They have good edges and smoothness, which is
all that `weak_losses.pseudo_mesh_loss` takes from them."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from handmesh.atomic import replacing
from handmesh.errors import InputError
from handmesh.imaging import crop
from handmesh.types import CROP_MARGIN, Box

from .cropped_set import CroppedSet
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
        path: .npz to write, atomically. input_size, heatmap_size: of the network.
    """
    network.eval()
    meshes = np.zeros(data.crops.vertices.shape, dtype=np.float32)
    labelled = np.flatnonzero(data.crops.has_joints)
    # The network looks closer than the stored crops do.
    zoom, middle = data.margin / CROP_MARGIN, 0.5 * data.crops.images.shape[1] - 0.5
    box = Box(middle, middle, data.crops.images.shape[1] / zoom)
    for first in tqdm(range(0, len(labelled), batch), desc="pseudo meshes", unit="batch"):
        rows = labelled[first : first + batch]
        images = np.stack([crop(image, box, input_size) for image in data.crops.images[rows]])
        uv = (data.crops.joints[rows, :, :2] - 0.5) * zoom + 0.5
        maps = gaussian_heatmaps(torch.from_numpy(uv).to(device), heatmap_size)
        output = network(to_input(torch.from_numpy(images).to(device)), maps)
        found = output.vertices.float().cpu().numpy()
        found[..., :2] = (found[..., :2] - 0.5) / zoom + 0.5
        meshes[rows] = found
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            vertices=meshes,
            set_sha256=np.array(data.sha256),
            weights_sha256=np.array(file_sha256(weights)),
        )


def are_pseudo_meshes_of(path: Path, data: CroppedSet, weights: Path) -> bool:
    """Whether a file holds the meshes that these weights make of that set."""
    try:
        return origin_of(path) == f"{data.sha256} {file_sha256(weights)}"
    except InputError:
        return False


def origin_of(path: Path) -> str:
    """What the meshes of a file were made of: hashes of the set and of the weights.

    Raises:
        InputError: no such file.
    """
    try:
        with np.load(path) as file:
            return f"{file['set_sha256']} {file['weights_sha256']}"
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"{path} holds no pseudo meshes ({error}); make them anew") from error


def load_pseudo_meshes(path: Path, data: CroppedSet) -> NDArray[np.float32]:
    """(N, V, 3) network coordinates in the stored crops of ``data``.

    Raises:
        InputError: no such file, or meshes of another set.
    """
    try:
        with np.load(path) as file:
            meshes, sha256 = file["vertices"], str(file["set_sha256"])
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"{path} holds no pseudo meshes ({error}); make them anew") from error
    if sha256 != data.sha256 or meshes.shape != data.crops.vertices.shape:
        raise InputError(f"{path} holds meshes of another set than {data.folder}; make them anew")
    return np.asarray(meshes, dtype=np.float32)
