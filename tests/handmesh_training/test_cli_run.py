"""`handmesh train`: what is told before the work, and how its stages follow each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from handmesh.cli import main
from handmesh.graph import Topology
from handmesh.nn import LightConfig, to_dict
from handmesh_training import cli_run, stages
from handmesh_training.checkpoint import write_checkpoint
from handmesh_training.rendered import HandRenderer
from handmesh_training.stages import STAGES, Run

pytestmark = pytest.mark.usefixtures("quick_surroundings")
FUNCTIONS = (
    "train_heatmaps", "train_pose_regressor", "train_fully", "fine_tune_heatmaps", "make_pseudo",
    "train_weakly",
)  # fmt: skip


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path | None]]:
    """Stages that are asked for, and what each would start from."""
    seen: list[tuple[str, Path | None]] = []

    def noted(stage: str, run: Run) -> None:
        seen.append((stage, run.start_from))

    for name, stage in zip(FUNCTIONS, STAGES, strict=True):
        monkeypatch.setattr(stages, name, lambda run, stage=stage: noted(stage, run))
    monkeypatch.setattr(HandRenderer, "chunk", lambda *_: None)
    monkeypatch.setattr(cli_run, "_real", lambda *_: None)
    return seen


def test_what_follows_the_full_stage_starts_from_it(
    tmp_path: Path, ran: list[tuple[str, Path | None]]
) -> None:
    given = tmp_path / "given.pt"
    command = ["train", "all", "--smoke", "--out", str(tmp_path / "run")]
    assert main([*command, "--start-from", str(given)]) == 0
    starts = [given if place < 3 else None for place in range(6)]
    assert ran == list(zip(STAGES, starts, strict=True))


def test_too_many_lanes_for_the_photos_are_told_before_the_work(
    tmp_path: Path,
    ran: list[tuple[str, Path | None]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli_run, "check_photo_sets", lambda *_: None)
    command = ["train", "full", "--out", str(tmp_path / "run"), "--photos", str(tmp_path)]
    assert main([*command, "--batch", "64", "--workers", "32"]) == 2
    assert "fewer --lanes or --workers, or a larger --batch" in capsys.readouterr().err
    assert not ran
    assert main([*command, "--batch", "64", "--workers", "16"]) == 0
    assert len(ran) == 1


@pytest.mark.parametrize("stage", ["fine-tune-heatmaps", "pseudo", "weak"])
def test_nothing_to_adapt_is_told_before_sets_are_cut(
    tmp_path: Path,
    ran: list[tuple[str, Path | None]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
) -> None:
    out = tmp_path / "run"
    command = ["train", stage, "--smoke", "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(cli_run, "_real", lambda *_: pytest.fail("work begun"))
        assert main(command) == 2
    assert f"there is nothing to fine-tune at {out}" in capsys.readouterr().err
    assert not ran
    full = out / "full" / "checkpoint.pt"
    full.parent.mkdir(parents=True)
    config = {"config": to_dict(LightConfig()), "average": {}, "lanes": 1}
    write_checkpoint(full, {"graph": Topology.default().sha256, **config})
    assert main(command) == 0
    assert [name for name, _ in ran] == [stage]


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/x"])
@pytest.mark.parametrize("stage", ["full", "detector"])
def test_a_folder_that_cannot_be_made_is_told_before_the_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    place: str,
) -> None:
    monkeypatch.setattr(cli_run, "_run_of", lambda *_: pytest.fail("work begun"))
    monkeypatch.setattr(cli_run.cli_detector, "train", lambda *_: pytest.fail("work begun"))
    if place.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("there is no such folder here")
    (tmp_path / "file").write_bytes(b"")
    assert main(["train", stage, "--out", str(tmp_path / place)]) == 2
    told = capsys.readouterr().err
    assert f"--out {tmp_path / place}: nothing can be written to" in told
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("wrong", ["--minutes nan", "--minutes -1", "--minutes 0", "--reuse nan"])
def test_numbers_that_train_nothing_or_never_end_are_refused(
    tmp_path: Path,
    ran: list[tuple[str, Path | None]],
    capsys: pytest.CaptureFixture[str],
    wrong: str,
) -> None:
    assert main(["train", *wrong.split(), "--out", str(tmp_path / "run")]) == 2
    assert wrong.split()[0].removeprefix("--") + " must be" in capsys.readouterr().err
    assert not ran
