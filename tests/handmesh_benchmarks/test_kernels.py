"""The benchmark of the kernels, as far as it goes without a GPU: its peers compute the head, its
counts are the head's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from handmesh.errors import BackendUnavailable, InputError
from handmesh.graph import Topology
from handmesh_benchmarks import kernels
from handmesh_benchmarks.kernels_peers import make, weighted_graph
from handmesh_kernels import twin
from handmesh_kernels.constants import HeadConstants


@pytest.fixture(scope="module")
def constants() -> HeadConstants:
    return HeadConstants.from_arrays(kernels.arrays("light")[0]["fp32"])


@pytest.mark.parametrize("name", ["sparse", "dense", "pyg"])
def test_peers_compute_the_head(constants: HeadConstants, name: str) -> None:
    peer = make(name, constants, Topology.default(), "cpu", torch.float32)
    if peer is None:
        pytest.skip("PyTorch Geometric is not installed")
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(3, constants.features)).astype(np.float32)
    uv = rng.random((3, 21, 2), dtype=np.float32)
    with torch.inference_mode():
        vertices, joints = peer(torch.from_numpy(latent), torch.from_numpy(uv))
    wanted = twin.run(constants, latent, uv)
    np.testing.assert_allclose(vertices.numpy(), wanted.vertices, rtol=0, atol=2e-5)
    np.testing.assert_allclose(joints.numpy(), wanted.joints, rtol=0, atol=2e-5)


@pytest.mark.parametrize("count", [320, 1280])
def test_a_graph_of_a_laplacian(count: int) -> None:
    level = next(each for each in Topology.default().levels if each.node_count == count)
    laplacian = level.dense()[level.mask][:, level.mask]
    edges, weights = weighted_graph(laplacian, level.lambda_max)
    adjacency = np.zeros_like(laplacian)
    adjacency[edges[0], edges[1]] = weights
    assert weights.min() > 0
    np.testing.assert_allclose(adjacency, adjacency.T, rtol=1e-9)
    degrees = adjacency.sum(axis=1)
    normalised = np.eye(len(laplacian)) - adjacency / np.sqrt(np.outer(degrees, degrees))
    found = 2 * normalised / level.lambda_max - np.eye(len(laplacian))
    np.testing.assert_allclose(found, laplacian, rtol=0, atol=1e-6)


def test_counts(constants: HeadConstants) -> None:
    one, many = kernels.cost(constants, 1), kernels.cost(constants, 64)
    assert many.operations == 64 * one.operations
    # By hand: fully connected 298 x 5120; theta 80 x 64 x 192, 291 x 64 x 96, 291 x 32 x 96,
    # 1036 x 32 x 9; the pose map 64 x 3108; anchors 1036 x 42.
    dense = 298 * 5120 + 80 * 64 * 192 + 291 * 64 * 96 + 291 * 32 * 96 + 1036 * 32 * 9
    dense += 64 * 3108 + 1036 * 42
    gathered = one.operations // 2 - dense
    entries = [int((c.values != 0).sum()) for c in constants.convolutions]
    assert gathered == entries[0] * 64 + entries[1] * 32 + entries[2] * 32 + entries[3] * 3
    each = 4 * (298 + 42 + 3108 + 63)
    assert many.bytes - one.bytes == 63 * each
    assert one.bytes > 4 * (298 * 5120 + 64 * 3108)


def test_a_table() -> None:
    row = kernels.Timed("ours", "fp16", 8, 12.345, 6.0, 2.0, "bytes", "3.0e-04")
    text = kernels.render([row])
    assert text.splitlines()[-1] == (
        "| ours | fp16 | 8 | 12.3 | 6.0 | 2.00 | bytes | 3.0 | 3.0e-04 |"
    )
    missing = kernels.Timed("pyg", "fp16", 8, None, None, 2.0, "bytes", "not installed")
    assert "|  |  | 2.00 | bytes |  | not installed |" in kernels.render([missing])
    raised = kernels.Timed("pyg", "fp16", 8, None, None, 2.0, "bytes", "a | b\n" + "trace\n" * 99)
    line = kernels.render([raised], header=False)
    assert "\n" not in line
    assert "| a \\| b trace trace" in line
    assert len(line) < 320


def test_heads_are_written(tmp_path: Path) -> None:
    assert kernels.main(["--heads", str(tmp_path / "heads")]) == 0
    loaded = kernels.read_heads(tmp_path / "heads")
    assert {s: head.storage for s, head in loaded.items()} == {"fp32": "fp32", "fp16": "fp16"}


def test_with_constants_from_files_torch_and_cupy_suffice() -> None:
    """What a GPU's machine need not have is not imported."""
    program = """
import sys
import handmesh_benchmarks.kernels, handmesh_kernels.check, handmesh_kernels.compile
from handmesh.errors import BackendUnavailable, InputError
from handmesh.graph import Topology
Topology.default()
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "torch" in said
    assert not {"cv2", "safetensors", "onnx", "onnxruntime", "handmesh_converters"} & set(said)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(BackendUnavailable, match="no CUDA GPU here: run this on"):
        kernels.main([])


@pytest.mark.parametrize("from_files", [False, True])
def test_a_head_without_anchors_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_files: bool
) -> None:
    made, topology = kernels.arrays("light")
    free = {
        storage: {name: array for name, array in own.items() if name != "blend"}
        for storage, own in made.items()
    }
    monkeypatch.setattr(kernels, "arrays", lambda bundle: (free, topology))
    assert kernels.main(["--heads", str(tmp_path)]) == 0, "constants can be written of any head"
    given = "constants" if from_files else "bundle"
    with pytest.raises(InputError, match=f"takes no joints .* give --{given} of another network"):
        kernels._heads("light", tmp_path if from_files else None)


def test_a_folder_without_heads_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give --constants a folder that --heads wrote"):
        kernels._heads("light", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="give --heads another"):
        kernels.main(["--heads", str(tmp_path / "file" / "heads")])
