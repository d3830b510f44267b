"""Weights between those of runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from handmesh.errors import CheckpointError, InputError
from handmesh.graph import Topology
from handmesh.nn import LightConfig
from handmesh_training.blend import blend, main
from handmesh_training.checkpoint import describe_network, load_network, write_checkpoint
from handmesh_training.heads import HeadName, build_network


def written(path: Path, config: LightConfig, seed: int, head: HeadName = "mesh") -> Path:
    torch.manual_seed(seed)
    network = build_network(config, Topology.default(), head)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand(value.shape))
            else:
                value.fill_(seed)
    state = {"average": network.state_dict(), "step": seed, "images_seen": 64 * seed}
    write_checkpoint(path, describe_network(config, head) | state)
    return path


def test_weights_are_the_weighted_mean_whatever_the_shares_add_up_to(
    tiny_config: LightConfig, tmp_path: Path
) -> None:
    files = [written(tmp_path / f"{seed}.pt", tiny_config, seed) for seed in (1, 2, 3)]
    shares = (1.0, 2.0, 5.0)
    out = tmp_path / "new" / "checkpoint.pt"

    assert main([str(out), *(f"{f}={w}" for f, w in zip(files, shares, strict=True))]) == 0

    loaded = load_network(out)
    assert (loaded.step, loaded.images_seen) == (3, 192)
    parts = [torch.load(file, weights_only=True)["average"] for file in files]
    for name, value in loaded.network.state_dict().items():
        if value.is_floating_point():
            mean = sum(w * p[name].double() for w, p in zip(shares, parts, strict=True)) / 8
            assert torch.allclose(value.double(), mean, rtol=1e-6, atol=1e-7), name
        else:
            assert torch.equal(value, parts[2][name]), name


def test_other_networks_are_refused(tiny_config: LightConfig, tmp_path: Path) -> None:
    one = written(tmp_path / "one.pt", tiny_config, 1)
    other = written(tmp_path / "other.pt", tiny_config, 1, "joints")
    with pytest.raises(CheckpointError, match="another network"):
        blend({one: 1.0, other: 1.0})
    (tmp_path / "damaged.pt").write_bytes(one.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"damaged\.pt is not a checkpoint"):
        blend({one: 1.0, tmp_path / "damaged.pt": 1.0})
    with pytest.raises(CheckpointError, match=r"there is no file .*none\.pt") as told:
        blend({one: 1.0, tmp_path / "none.pt": 1.0})
    assert "delete" not in str(told.value)


@pytest.mark.parametrize("share", [0.0, -1.0, float("nan"), float("inf")])
def test_shares_are_positive(share: float) -> None:
    with pytest.raises(InputError, match="positive weight"):
        blend({Path("a"): 1.0, Path("b"): share})


def test_what_is_no_blend_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two checkpoints"):
        blend({Path("a"): 1.0})
    with pytest.raises(InputError, match=r"FILE=WEIGHT"):
        main([str(tmp_path / "out.pt"), "a.pt", "b.pt=1"])
    with pytest.raises(InputError, match="given twice"):
        main([str(tmp_path / "out.pt"), "a.pt=1", "a.pt=2", "b.pt=1"])
    assert not (tmp_path / "out.pt").exists()


def test_as_a_command_errors_are_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "handmesh_training.blend", str(tmp_path / "out.pt"), "a.pt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "FILE=WEIGHT" in done.stderr
