"""`handmesh train all --smoke`: every stage of every network and head, from the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from handmesh.cli import main
from handmesh_training import stages
from handmesh_training.checkpoint import load_network
from handmesh_training.cropped_set import CroppedSet
from handmesh_training.meshes import unseen_meshes
from handmesh_training.pseudo_meshes import load_pseudo_meshes


@pytest.fixture(autouse=True)
def quick(quick_surroundings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few meshes are held out."""
    monkeypatch.setattr(stages, "unseen_meshes", lambda seed: unseen_meshes(seed, 8))


def losses_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def smoke(network: str, out: Path) -> list[str]:
    """Run every stage, and look at what is left."""
    arguments = ["train", "all", "--smoke", "--network", network, "--workers", "0"]
    arguments += ["--out", str(out)]
    assert main(arguments) == 0
    for stage in ("heatmaps", "pose", "full", "fine-tune-heatmaps", "weak"):
        loaded = load_network(out / stage / "checkpoint.pt")
        assert loaded.config.name == network
        assert loaded.step == (32 if stage == "pose" else 8)
        rows = losses_of(out / stage)
        assert all(math.isfinite(value) for row in rows for value in row.values())
    terms = losses_of(out / "weak")[0]
    assert min(terms[name] for name in ("depth", "pseudo_edge", "pseudo_laplacian")) > 0
    load_pseudo_meshes(out / "pseudo" / "meshes.npy", CroppedSet(out / "real"))
    return arguments


@pytest.mark.slow
def test_smoke_runs_every_stage_of_paper(tmp_path: Path) -> None:
    smoke("paper", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("joints", {"heatmaps", "full", "fine-tune-heatmaps"}),
        ("lbs", {"heatmaps", "full", "fine-tune-heatmaps"}),
        ("parametric", {"heatmaps", "full", "fine-tune-heatmaps", "weak"}),
    ],
)
def test_smoke_runs_every_stage_that_a_head_has(
    tmp_path: Path, head: str, expected: set[str]
) -> None:
    arguments = ["train", "all", "--smoke", "--workers", "0", "--head", head]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    assert {path.parent.name for path in tmp_path.rglob("*.pt")} == expected


def test_smoke_runs_every_stage_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = smoke("light", out)
    kept = {path: path.read_bytes() for path in out.rglob("*.npz")}
    weak = load_network(out / "weak" / "checkpoint.pt").network.state_dict()
    capsys.readouterr()
    assert main(arguments) != 0
    assert "--resume goes on with it" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0
    assert {path: path.read_bytes() for path in out.rglob("*.npz")} == kept
    again = load_network(out / "weak" / "checkpoint.pt").network.state_dict()
    assert again.keys() == weak.keys()
    assert all(torch.equal(again[name], weak[name]) for name in weak)

    # "transfer" has one stage, on what the full model left.
    transfer = [*arguments[:-1], str(tmp_path / "transfer"), "--head", "transfer"]
    assert main([*transfer, "--start-from", str(out / "full" / "checkpoint.pt")]) == 0
    assert [path.parent.name for path in (tmp_path / "transfer").rglob("*.pt")] == ["full"]

    # The last stage alone, in a folder without those before it.
    common = ["train", "weak", "--smoke", "--workers", "0", "--out", str(tmp_path / "other")]
    assert main(common) != 0
    assert "run `handmesh train full` first" in capsys.readouterr().err
    given = ["--start-from", str(out / "full" / "checkpoint.pt"), "--no-pseudo"]
    assert main([*common, *given]) == 0
    assert not (tmp_path / "other" / "pseudo").exists()
    assert load_network(tmp_path / "other" / "weak" / "checkpoint.pt").step == 8
