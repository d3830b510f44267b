"""Weights files: round trip, refusals, damage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from handmesh.errors import BundleError, GraphMismatchError
from handmesh.graph import Topology
from handmesh.nn import LightConfig, StageConfig, build, load_weights, read_config, save_weights

CONFIG = LightConfig(
    stem_channels=8,
    stages=tuple(StageConfig("fused", 8, 1, 1.0) for _ in range(4)),
    pyramid_channels=(8, 8, 8),
    latent=16,
)


@pytest.fixture
def saved(topology: Topology, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    network = build(CONFIG, topology).to(memory_format=torch.channels_last)
    save_weights(network, path, CONFIG, topology)
    return path


def test_round_trip(topology: Topology, saved: Path) -> None:
    torch.manual_seed(0)
    original = build(CONFIG, topology).eval()
    network = build(read_config(saved), topology).eval()
    load_weights(network, saved, CONFIG, topology)
    image = torch.rand(1, 3, 128, 128) - 0.5
    with torch.no_grad():
        torch.testing.assert_close(
            network(image).vertices, original(image).vertices, rtol=0, atol=1e-6
        )
    assert {f.name for f in saved.parent.iterdir()} == {saved.name}  # no temporary file left


def test_equal_weights_give_equal_bytes(topology: Topology, saved: Path) -> None:
    torch.manual_seed(0)
    network = build(CONFIG, topology)
    data = saved.read_bytes()
    for n in range(8):  # the library orders metadata anew each time
        again = saved.with_name(f"{n}.safetensors")
        save_weights(network, again, CONFIG, topology)
        assert again.read_bytes() == data


def test_average_in_place_of_own_weights(topology: Topology, saved: Path) -> None:
    network = build(CONFIG, topology)
    average = {k: torch.full_like(v, 3) for k, v in network.state_dict().items()}
    save_weights(network, saved, CONFIG, topology, state=average)
    load_weights(network, saved, CONFIG, topology)
    assert all(torch.all(v == 3) for v in network.state_dict().values())


def test_another_graph_is_refused(topology: Topology, padded: Topology, saved: Path) -> None:
    with pytest.raises(GraphMismatchError, match=padded.sha256[:12]):
        load_weights(build(CONFIG, padded), saved, CONFIG, padded)


def test_another_config_is_refused(topology: Topology, saved: Path) -> None:
    other = LightConfig()
    with pytest.raises(BundleError, match="read_config"):
        load_weights(build(other, topology), saved, other, topology)


@pytest.mark.parametrize("keep", [0, 4, 1000, -1])
def test_truncated_file(topology: Topology, saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(BundleError):
        load_weights(build(CONFIG, topology), saved, CONFIG, topology)


def test_missing_file(topology: Topology, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no weights file"):
        read_config(tmp_path / "none.safetensors")


def test_safetensors_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(BundleError, match="expected a file of format"):
        read_config(path)


def test_metadata_is_fine_but_a_tensor_is_missing(topology: Topology, tmp_path: Path) -> None:
    network = build(CONFIG, topology)
    state = dict(network.state_dict())
    state.pop("log_beta")
    path = tmp_path / "weights.safetensors"
    save_weights(network, path, CONFIG, topology, state=state)
    with pytest.raises(BundleError, match="log_beta"):
        load_weights(network, path, CONFIG, topology)
