"""`handmesh train`: what its options make of a run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from handmesh.bundle import Bundle
from handmesh.cli import main
from handmesh.graph import Topology
from handmesh.nn import LightConfig, to_dict
from handmesh.types import FINGERS
from handmesh_training import cli_detector, cli_experiment, cli_run, cli_train, heads, stages
from handmesh_training.checkpoint import FILE, write_checkpoint
from handmesh_training.detection import run
from handmesh_training.experiments.lab import LabSettings
from handmesh_training.experiments.tables import STUDIES
from handmesh_training.losses import PAPER, LossWeights
from handmesh_training.rendered import HandRenderer, RenderSettings
from handmesh_training.samples import Crops
from handmesh_training.shards import SetSettings
from handmesh_training.shards.writer import render_shards

pytestmark = pytest.mark.usefixtures("quick_surroundings")


def test_training_takes_size_and_margin_from_the_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[stages.Run] = []
    monkeypatch.setattr(stages, "train_fully", made.append)
    monkeypatch.setattr(HandRenderer, "chunk", lambda *_: None)
    folder = tmp_path / "set"
    render_shards(SetSettings(26, 4, 5, RenderSettings(crop_px=40, margin=1.7)), folder)

    assert main(["train", "--out", str(tmp_path / "run"), "--shards", str(folder)]) == 0
    assert main(["train", "--out", str(tmp_path / "run"), "--reuse", "2"]) == 0
    assert main(["train", "--out", str(tmp_path / "run"), "--shards", str(tmp_path)]) == 2

    stored, rendered = (run.stream for run in made)
    assert (stored.render.crop_px, stored.render.margin, stored.reuse) == (40, 1.7, 1)
    assert stored.augment.stored_margin == 1.7
    assert (stored.shards, rendered.shards, rendered.reuse) == (folder, None, 2)


def test_partners_are_of_the_training_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a run is watched on stays comparable with other runs."""
    made: list[stages.Run] = []
    looks: list[RenderSettings] = []
    monkeypatch.setattr(stages, "train_fully", made.append)
    monkeypatch.setattr(HandRenderer, "chunk", lambda self, *_: looks.append(self.settings))
    begin = ["train", "--out", str(tmp_path / "run"), "--partners"]
    assert main([*begin, "0.35"]) == 0
    assert [run.stream.render.partners for run in made] == [0.35]
    assert [look.partners for look in looks] == [None]

    assert main([*begin, "1.5"]) == 2
    assert "partners is a share of hands, in 0..1, not 1.5" in capsys.readouterr().err
    render_shards(SetSettings(2, 2, 5, RenderSettings(crop_px=40)), tmp_path / "set")
    assert main([*begin, "0.3", "--shards", str(tmp_path / "set")]) == 2
    assert "--partners goes with hands that are rendered" in capsys.readouterr().err


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[stages.Run]:
    """Runs that are asked for, and not made."""
    runs: list[stages.Run] = []
    for name in ("train_fully", "fine_tune_heatmaps", "train_weakly"):
        monkeypatch.setattr(stages, name, runs.append)
    monkeypatch.setattr(stages, "check_pretrained", lambda *_: None)
    return runs


def test_the_paper_s_recipe_brings_the_paper_s_losses(
    tmp_path: Path, made: list[stages.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HandRenderer, "chunk", lambda *_: None)
    for extra in ([], ["--recipe", "paper"], ["--recipe", "paper", "--losses", "tuned"]):
        assert main(["train", "--out", str(tmp_path / "run"), *extra]) == 0
    assert [run.weights for run in made] == [LossWeights(), PAPER, LossWeights()]


def test_terms_of_the_weak_loss_may_be_left_out(tmp_path: Path, made: list[stages.Run]) -> None:
    weak = ["train", "weak", "--smoke", "--workers", "0", "--out", str(tmp_path / "run")]
    for extra in ([], ["--no-depth"], ["--no-pseudo"]):
        assert main([*weak, *extra]) == 0
    assert [(run.weak.depth, run.weak.pseudo_mesh) for run in made] == [
        (0.1, 1.0),
        (0.0, 1.0),
        (0.1, 0.0),
    ]


def test_hands_without_all_joints_are_not_watched(
    tmp_path: Path, made: list[stages.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["train", "fine-tune-heatmaps", "--smoke", "--workers", "0"]
    command += ["--out", str(tmp_path / "run")]
    assert main(command) == 0
    monkeypatch.setattr(cli_run, "held_out", lambda *_: Crops.empty(0, 64, 4))
    assert main(command) == 0
    assert ["real" in run.validation for run in made] == [True, False]
    assert [run.real.held_out for run in made if run.real is not None] == [(31,), (31,)]


@pytest.mark.parametrize("left", ["pseudo/meshes.npy", "pseudo/meshes.npz", "weak/checkpoint.pt"])
def test_what_a_stage_left_is_gone_on_with_on_demand_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], left: str
) -> None:
    (tmp_path / left).parent.mkdir()
    (tmp_path / left).write_bytes(b"")
    stage = left.split("/")[0]

    assert main(["train", stage, "--smoke", "--out", str(tmp_path)]) != 0
    assert f"holds a run of {stage} already: --resume" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--smoke", "--out", str(tmp_path / "run"), "--device"]
    for device, words in (
        ("cuda", "finds no GPU"),
        ("cuda:1", "finds no GPU"),
        ("mps", "training runs on cpu or cuda"),
        ("nonsense", "there is no device 'nonsense'"),
    ):
        assert main([*command, device]) != 0
        assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_names_that_are_copied_agree_with_those_they_are_copied_from() -> None:
    """Commands are parsed without importing torch."""
    assert cli_train.STAGES == stages.STAGES
    assert cli_train.DETECTOR == run.STAGE
    assert set(cli_train.HEADS) == set(get_args(heads.HeadName))
    assert set(cli_experiment.NAMES) == set(STUDIES)
    settings = asdict(LabSettings())
    assert {name: settings[name] for name in cli_experiment.DEFAULTS} == cli_experiment.DEFAULTS


def test_the_side_of_the_crops_is_an_option(
    tmp_path: Path,
    made: list[stages.Run],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(HandRenderer, "chunk", lambda *_: None)
    begin = ["train", "--out", str(tmp_path / "run")]
    assert main([*begin, "--network", "paper", "--input-size", "128"]) == 0
    assert main([*begin, "--input-size", "96"]) == 0
    sizes = [(run.config.name, run.config.input_size) for run in made]
    assert sizes == [("paper", 128), ("light", 96)]
    assert [run.stream.augment.input_size for run in made] == [128, 96]
    assert [run.stream.render.crop_px for run in made] == [160, 120]

    for wrong, said in (
        (["--input-size", "100"], "multiple of 32"),
        (["--network", "paper", "--input-size", "96"], "multiple of 64"),
        (["--smoke", "--input-size", "128"], "--smoke"),
        (["detector", "--input-size", "128"], "--input-size"),
    ):
        assert main([*begin, *wrong]) == 2
        assert said in capsys.readouterr().err
    assert len(made) == 2


def test_later_stages_take_crops_of_the_size_of_the_run(
    tmp_path: Path, made: list[stages.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HandRenderer, "chunk", lambda *_: None)
    config = LightConfig(input_size=96)
    state = {"graph": Topology.default().sha256, "config": to_dict(config), "average": {}}
    (tmp_path / "run" / "full").mkdir(parents=True)
    write_checkpoint(tmp_path / "run" / "full" / FILE, {**state, "lanes": 1})
    begin = ["train", "--out", str(tmp_path / "run"), "--resume"]
    assert main(begin) == 0
    assert main([*begin, "--network", "paper"]) == 0  # told to be another network later
    assert main([*begin, "--input-size", "64"]) == 0
    assert [run.config.input_size for run in made] == [96, 256, 64]


@pytest.mark.parametrize(
    ("line", "typed", "stages_it_is_of"),
    [
        ("full --data freihand:train:D --limit 100", "--limit", "weak"),
        ("full --joints-3d", "--joints-3d", "weak"),
        ("full --no-depth", "--no-depth", "weak"),
        ("full --no-pseudo", "--no-pseudo", "weak"),
        ("weak --photos D", "--photos", "heatmaps, full, detector"),
        ("weak --shards D", "--shards", "heatmaps, full"),
        ("fine-tune-heatmaps --reuse 2", "--reuse", "heatmaps, full"),
        ("weak --partners 0.4", "--partners", "heatmaps, full"),
        ("pose --steps 10", "--steps", "heatmaps, full"),
        ("weak --losses paper", "--losses", "full"),
        ("all --head transfer --limit 3", "--limit", "weak"),
        ("detector --network paper", "--network", "full"),
        ("detector --head lbs", "--head", "full"),
        ("detector --joints-3d", "--joints-3d", "weak"),
        ("detector --no-depth", "--no-depth", "weak"),
        ("detector --data stb:train_sk:D", "--data", "weak"),
        ("detector --no-draw-on-device", "--draw-on-device", "full"),
        ("pseudo --rate 1e-3", "--rate", "full"),
        ("pseudo --recipe muon", "--recipe", "full"),
        ("pseudo --workers 3", "--workers", "full"),
        ("pose --decay 3", "--decay", "full"),
        ("pose --start-from light", "--start-from", "full"),
        ("pose --skins D", "--skins", "full"),
        ("pose --environments D", "--environments", "full"),
        ("detector --backgrounds D", "--backgrounds", "full"),
        ("detector --input-size 64", "--input-size", "full"),
    ],
)
def test_an_option_that_a_stage_leaves_aside_is_refused(
    tmp_path: Path,
    made: list[stages.Run],
    capsys: pytest.CaptureFixture[str],
    line: str,
    typed: str,
    stages_it_is_of: str,
) -> None:
    assert main(["train", *line.split(), "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert f"{typed} has no effect on {line.split()[0].replace('all', 'full')}" in told
    assert stages_it_is_of in told
    assert not made


def test_options_that_a_stage_reads_pass(tmp_path: Path, made: list[stages.Run]) -> None:
    every = {*cli_train.STAGES, cli_train.DETECTOR}
    assert all({*of} < every for of in cli_train.EFFECTIVE.values())
    command = ["train", "weak", "--smoke", "--workers", "0", "--out", str(tmp_path / "run")]
    assert main([*command, "--limit", "20", "--joints-3d"]) == 0
    assert len(made) == 1


@pytest.mark.parametrize(
    "wrong", ["--steps 0 --decay 0", "--steps -5", "--limit 0", "--lanes 0", "--batch 0"]
)
def test_counts_below_one_are_refused(
    tmp_path: Path, made: list[stages.Run], capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    stage = "weak" if "limit" in wrong else "full"
    assert main(["train", stage, *wrong.split(), "--out", str(tmp_path / "run")]) == 2
    name, value = wrong.split()[:2]
    assert f"{name} must be at least 1, not {value}" in capsys.readouterr().err
    assert not made


@pytest.mark.parametrize("stage", ["full", "all", "detector"])
@pytest.mark.parametrize("photos", ["nowhere", "nowhere:train", "{here}", "{here}:held-out"])
def test_photos_are_looked_at_before_the_first_stage(
    tmp_path: Path,
    made: list[stages.Run],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    photos: str,
) -> None:
    monkeypatch.setattr(cli_run, "_run_of", lambda *_: pytest.fail("work begun"))
    monkeypatch.setattr(cli_detector, "train", lambda *_: pytest.fail("work begun"))
    named = photos.format(here=tmp_path)
    command = ["train", stage, "--out", str(tmp_path / "run"), "--photos", named]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert ("there is no folder nowhere" if "here}" not in photos else "no readable") in told
    assert "pseudo_labels.json" in told
    assert not made


@pytest.mark.parametrize(
    ("stage", "alone", "goes_on"),
    [("full", False, False), ("full", True, False), ("detector", False, True)],
)
def test_photos_of_use_are_those_that_the_stage_trains_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    alone: bool,
    goes_on: bool,
) -> None:
    """Two hands in a photo teach the detector alone, and a hand that points no mesh."""
    begun: list[str] = []
    monkeypatch.setattr(cli_run, "_run_of", lambda *_: pytest.fail("work begun"))
    monkeypatch.setattr(cli_detector, "train", lambda *_: begun.append("detector") or 0)
    joints = np.zeros((21, 3))
    for finger, chain in enumerate(FINGERS.values()):
        bent = finger > 1  # all but thumb and index finger
        joints[list(chain)] = [(finger, i % 2 if bent else i, i // 2 * bent) for i in range(4)]
    hand = {
        "uv": (9.0 * np.arange(42).reshape(21, 2)).tolist(),
        "world_m": joints.tolist(),
        "handedness_as_reported": "Left",
    }
    labels = {"a.png": {"hands": [hand] if alone else [hand, hand]}}
    (tmp_path / "pseudo_labels.json").write_text(json.dumps(labels))
    command = ["train", stage, "--out", str(tmp_path / "run"), "--photos", str(tmp_path)]
    assert main(command) == (0 if goes_on else 2)
    assert begun == ["detector"] * goes_on
    assert ("no labelled hand that is of use" in capsys.readouterr().err) == (not goes_on)


@pytest.mark.parametrize("stage", ["full", "all"])
def test_a_damaged_run_is_told_before_the_work_with_its_remedy(
    tmp_path: Path, made: list[stages.Run], capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    checkpoint = tmp_path / "full" / "checkpoint.pt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"half")
    assert main(["train", stage, "--smoke", "--resume", "--out", str(tmp_path)]) == 2
    assert f"{checkpoint} is not a checkpoint" in (told := capsys.readouterr().err)
    assert "delete it to start anew" in told
    assert not made


def test_a_detector_begins_with_the_weights_that_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[run.DetectorRun] = []
    monkeypatch.setattr(cli_detector, "train_detector", runs.append)
    (tmp_path / "place.hdr").write_bytes(b"not read here")
    command = ["train", "detector", "--environments", str(tmp_path), "--out", str(tmp_path / "run")]
    assert main(command) == main([*command, "--start-from", "detector"]) == 0
    assert [each.start_from for each in runs] == [None, Bundle.load("detector").artifact("torch")]


def test_made_up_places_are_not_offered_to_the_detector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "detector", "--smoke", "--out", str(tmp_path / "run")]
    assert main([*command, "--environments", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path} holds no .hdr panorama, which the detector's scenes take" in told
    assert "made-up" not in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--skins", "--environments", "--backgrounds", "--start-from"])
def test_other_folders_are_looked_at_before_sets_are_cut(
    tmp_path: Path,
    made: list[stages.Run],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
) -> None:
    monkeypatch.setattr(cli_run, "_real", lambda *_: pytest.fail("work begun"))
    command = ["train", "fine-tune-heatmaps", "--smoke", "--out", str(tmp_path / "run")]
    assert main([*command, option, str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not made


def test_a_set_that_is_not_complete_is_told_before_the_first_stage(
    tmp_path: Path, made: list[stages.Run], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "set")
    settings = ["--count", "8", "--shards", "2", "--size", "32", "--world", "2", "--rank", "1"]
    assert main(["render", *settings, "--out", folder]) == 0
    assert main(["train", "--out", str(tmp_path / "run"), "--shards", folder]) == 2
    assert "is not complete" in capsys.readouterr().err
    assert not made
