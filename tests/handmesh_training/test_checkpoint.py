"""Checkpoints: whole or not at all, read as what they are, refused as what they are not."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from handmesh.cli import main
from handmesh.errors import CheckpointError
from handmesh.graph import Topology
from handmesh.nn import LightConfig
from handmesh_training.checkpoint import (
    describe_network,
    load_network,
    read_checkpoint,
    write_checkpoint,
)
from handmesh_training.heads import HeadName, build_network


def state_of(config: LightConfig, head: HeadName = "mesh", seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    network = build_network(config, Topology.default(), head)
    averaged = build_network(config, Topology.default(), head)
    return {
        **describe_network(config, head),
        "network": network.state_dict(),
        "average": averaged.state_dict(),
        "step": 7,
        "images_seen": 448,
    }


@pytest.mark.parametrize("head", ["mesh", "joints", "parametric"])
def test_the_averaged_weights_come_back(
    tiny_config: LightConfig, tmp_path: Path, head: HeadName
) -> None:
    path, state = tmp_path / "checkpoint.pt", state_of(tiny_config, head)
    write_checkpoint(path, state)
    loaded = load_network(path)
    assert (loaded.config, loaded.head, loaded.step, loaded.images_seen) == (
        tiny_config, head, 7, 448,
    )  # fmt: skip
    assert loaded.input_size == 64
    assert not loaded.network.training
    found = loaded.network.state_dict()
    assert found.keys() == state["average"].keys()
    for name, value in state["average"].items():
        assert torch.equal(found[name], value), name
    differing = [n for n, v in state["network"].items() if not torch.equal(found[n], v)]
    assert differing, "these would have been the weights of the last step"


def test_the_pose_regressor_runs_as_one_map_that_is_its_own(
    tiny_config: LightConfig, tmp_path: Path
) -> None:
    path, state = tmp_path / "checkpoint.pt", state_of(tiny_config)
    write_checkpoint(path, state)
    regressor: Any = load_network(path).network.pose_regressor
    plain: Any = build_network(tiny_config, Topology.default(), "mesh")
    plain.load_state_dict(state["average"])
    assert regressor.collapsed_weight is not None
    mesh = torch.rand(2, Topology.default().vertex_count, 3)
    torch.testing.assert_close(regressor(mesh), plain.pose_regressor(mesh), atol=1e-4, rtol=1e-4)


def test_a_checkpoint_without_head_is_of_a_mesh(tiny_config: LightConfig, tmp_path: Path) -> None:
    state = state_of(tiny_config)
    for name in ("head", "step", "images_seen"):
        del state[name]
    write_checkpoint(tmp_path / "old.pt", state)
    loaded = load_network(tmp_path / "old.pt")
    assert (loaded.head, loaded.step, loaded.images_seen) == ("mesh", 0, 0)


def test_an_interrupted_write_leaves_the_old_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, {"a": torch.ones(3)})
    before = path.read_bytes()

    def fail(state: object, place: Path) -> None:
        Path(place).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(path, {"a": torch.zeros(3)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


class Attack:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


def test_what_is_no_checkpoint_is_refused(tiny_config: LightConfig, tmp_path: Path) -> None:
    path, state = tmp_path / "checkpoint.pt", state_of(tiny_config)

    def refused(content: object, match: str) -> None:
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=match):
            load_network(path)

    with pytest.raises(CheckpointError, match=r"there is no file .*none\.pt"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="is a folder, and no checkpoint"):
        read_checkpoint(tmp_path)
    refused([1, 2], "not a checkpoint of a training run")
    refused({"weights": 1}, "not a checkpoint of a training run")
    refused({k: v for k, v in state.items() if k != "average"}, "not a checkpoint of a training")
    refused(state | {"graph": "0" * 64}, "another mesh graph")
    with pytest.raises(CheckpointError, match="use another folder, or delete it"):
        read_checkpoint(path, resumed=True)
    refused(state | {"head": "foot"}, "no network known here")
    refused(state | {"config": {"name": "else"}}, "no network known here")
    refused(state | {"config": "text"}, "no network known here")
    refused(state | {"config": state["config"] | {"latent": 48}}, "no network known here")
    refused(state | {"average": {}}, "no network known here")
    mark = tmp_path / "mark"
    path.write_bytes(pickle.dumps(Attack(mark), protocol=2))
    with pytest.raises(CheckpointError):
        load_network(path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0 a photo", b"text", b""])
def test_of_a_file_that_is_no_checkpoint_nothing_dangerous_is_advised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    """Torch itself advises to load it unsafely; and only a run's own file is to be deleted."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="delete it to start anew") as told:
        read_checkpoint(path, resumed=True)
    assert main(["evaluate", "--checkpoint", str(path), "--rendered", "1"]) == 2
    evaluated = capsys.readouterr().err
    assert "is not a checkpoint of a training run" in evaluated
    assert "delete" not in evaluated
    for text in (str(told.value), evaluated):
        assert "weights_only" not in text
        assert "torch.load" not in text


@pytest.mark.parametrize("error", [RuntimeError("unexpected pos 64\n at"), OSError(28, "No space")])
def test_a_checkpoint_that_cannot_be_written_is_told_and_the_old_one_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"old")

    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*checkpoint\.pt .*MB are free"):
        write_checkpoint(path, {})
    assert path.read_bytes() == b"old"
