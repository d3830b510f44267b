"""Studies: runs are kept, differences are paired by seed, and noise is called noise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import cv2
import made_hand
import numpy as np
import pytest
import torch

from handmesh.cli import main
from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.nn import LightConfig, build, load_weights
from handmesh_training import cli_experiment, stages
from handmesh_training.checkpoint import describe_network, load_network, write_checkpoint
from handmesh_training.experiments import lab as laboratory
from handmesh_training.experiments.curves import (
    THRESHOLDS_MM,
    draw_curves,
    read_curve,
    write_curve,
)
from handmesh_training.experiments.hands import Hands, roughness
from handmesh_training.experiments.lab import SHIFT, Lab, LabSettings
from handmesh_training.experiments.networks import CONFIGS, trained_network
from handmesh_training.experiments.study import Figures, Result, Study, Variant, place
from handmesh_training.hand import HandModel
from handmesh_training.heads import HeadName, build_network
from handmesh_training.meshes import unseen_meshes
from handmesh_training.stages import Run

pytestmark = pytest.mark.usefixtures("quick_surroundings")


@pytest.fixture
def small_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches, and few of the pose regressor's: else most of the time is its training."""
    monkeypatch.setattr(laboratory, "POSE_STEPS", 4)
    for name in ("RECIPE", "STARTED"):
        recipe = replace(getattr(laboratory, name), batch=8)
        monkeypatch.setattr(laboratory, name, recipe)
    monkeypatch.setattr(stages, "unseen_meshes", lambda seed: unseen_meshes(seed, 8))


def study_of(values: dict[str, list[float]], ran: list[tuple[str, int]]) -> Study:
    def variant(name: str, figures: list[float]) -> Variant:
        def run(folder: Path, seed: int) -> Figures:
            assert folder.is_dir()
            ran.append((name, seed))
            return {"error": figures[seed]}

        return Variant(name, run, {"error": 7.95} if name == "full" else {})

    variants = [variant(name, figures) for name, figures in values.items()]
    return Study("demo", "A demonstration", "full", variants, {"error": "mm"})


def test_a_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    ran: list[tuple[str, int]] = []
    study = study_of({"full": [1, 2, 3], "less": [2, 3, 5]}, ran)
    study.run(tmp_path, range(1))
    assert ran == [("full", 0), ("less", 0)]

    results = study.run(tmp_path, range(3))

    assert ran[2:] == [("full", 1), ("less", 1), ("full", 2), ("less", 2)]
    assert results["less"]["error"].mean == pytest.approx(10 / 3)
    assert results["less"]["error"].difference == pytest.approx(4 / 3)
    table = study.to_markdown(results)
    assert "| full | 2.00 | 7.95 |" in table
    assert "3.33 (+1.33 ± 0.58)" in table
    (tmp_path / "less" / "seed1" / "figures.json").write_text("[]")
    with pytest.raises(InputError, match="delete it"):
        study.run(tmp_path, range(3))
    with pytest.raises(InputError, match="at least one seed"):
        study.run(tmp_path, [])


def test_differences_stand_out_when_a_paired_t_test_says_so() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    agreed = 0
    for _ in range(200):
        against = rng.normal(10, 2, 4)
        values = against + rng.normal(0.5, 0.5, 4)
        p = scipy_stats.ttest_rel(values, against).pvalue
        assert Result(values, against).stands_out == (p < 0.05)
        agreed += p < 0.05
    assert 20 < agreed < 180, "both happen"
    assert not Result(np.array([9.0]), np.array([1.0])).stands_out, "one seed tells nothing"


def test_roughness_is_what_the_neighbours_do_not_share() -> None:
    topology = Topology.default()
    count = topology.vertex_count
    shifted = np.broadcast_to(np.array([3.0, -1.0, 2.0]), (2, count, 3))
    assert roughness(shifted) == pytest.approx(0, abs=1e-9)
    spike = np.zeros((1, count, 3))
    spike[0, 100, 1] = 5.0
    near = {int(v) for face in topology.faces if 100 in face for v in face} - {100}
    degrees = []
    for vertex in near:
        around = {int(v) for face in topology.faces if vertex in face for v in face} - {vertex}
        degrees.append(len(around))
    expected = (5 + sum(5 / degree for degree in degrees)) / count
    assert roughness(spike) == pytest.approx(expected)


def test_lifting_undoes_projection() -> None:
    rng = np.random.default_rng(1)
    joints = rng.uniform(-0.08, 0.08, (3, 21, 3)) + (0.02, -0.01, 0.5)
    lens = np.array([[200.0, 210.0, 30.0, 33.0]] * 3)
    hands = Hands(np.zeros((3, 64, 64, 3), np.uint8), lens, joints, joints)
    pixel = joints[..., :2] / joints[..., 2:] * lens[:, None, :2] + lens[:, None, 2:]
    bone = np.linalg.norm(joints[:, 10] - joints[:, 9], axis=-1)[:, None]
    depth = (joints[..., 2] - joints[:, :1, 2]) / bone
    points = np.concatenate([(pixel + 0.5) / 64, depth[..., None]], axis=-1)
    np.testing.assert_allclose(hands.lift(points), joints, atol=1e-12)


def test_the_second_domain_is_another_hand_where_one_is_given(
    hand_model: HandModel, tmp_path: Path
) -> None:
    folder = tmp_path / "hand"
    made_hand.write(folder, made_hand.described(hand_model, made_hand.made_hand(hand_model)))
    usual = Lab(tmp_path / "usual", LabSettings())
    assert usual.second == replace(usual.first, shape_shift=SHIFT)

    other = Lab(tmp_path / "other", LabSettings(other_hand=folder))

    assert other.first == usual.first
    assert other.second == replace(other.first, shape_shift=SHIFT, other_hand=folder)
    with pytest.raises(InputError, match="other settings"):
        Lab(tmp_path / "other", LabSettings())


@pytest.mark.parametrize("given", ["skins", "environments"])
def test_folders_that_hold_nothing_are_told_before_anything_is_made(
    tmp_path: Path, given: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="nowhere"):
        Lab(out, replace(LabSettings(), **{given: tmp_path / "nowhere"}))
    assert not out.exists()


def test_studies_that_are_older_than_a_setting_go_on(tmp_path: Path) -> None:
    Lab(tmp_path, LabSettings(hands=50))
    path = tmp_path / "settings.json"
    stored = json.loads(path.read_text())
    del stored["other_hand"]
    path.write_text(json.dumps(stored))
    Lab(tmp_path, LabSettings(hands=50))
    with pytest.raises(InputError, match="other settings"):
        Lab(tmp_path, LabSettings(hands=51))


def test_studies_go_on_with_the_same_weights_and_sources_alone(
    tmp_path: Path, tiny_config: LightConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(path: Path, seed: int) -> LabSettings:
        torch.manual_seed(seed)
        network = build_network(tiny_config, Topology.default(), "mesh")
        state = {**describe_network(tiny_config, "mesh"), "average": network.state_dict()}
        write_checkpoint(path, state)
        return LabSettings(start_from=str(path))

    settings = weights(tmp_path / "some.pt", 0)
    Lab(tmp_path / "studies", settings)
    Lab(tmp_path / "studies", settings)
    copied = tmp_path / "copied.pt"
    copied.write_bytes((tmp_path / "some.pt").read_bytes())
    Lab(tmp_path / "studies", replace(settings, start_from=str(copied)))

    with monkeypatch.context() as patch:
        patch.setattr(laboratory, "engine_sha256", lambda: "f" * 64)
        with pytest.raises(InputError, match=r"by other sources.*delete the folder"):
            Lab(tmp_path / "studies", settings)
    with pytest.raises(InputError, match=r"or weights \(.*: start_from\).*delete the folder"):
        Lab(tmp_path / "studies", weights(tmp_path / "some.pt", 1))


def test_hands_that_cannot_be_had_are_told_before_work_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["experiment", "weak", "--out", str(tmp_path / "studies")]
    assert main([*out, "--other-hand", str(tmp_path)]) == 2
    assert "holds no hand_r.gltf" in capsys.readouterr().err
    assert main([*out, "--other-hand", str(tmp_path), "--skins", str(tmp_path)]) == 2
    assert "skins of its own" in capsys.readouterr().err
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize("name", CONFIGS)
def test_small_networks_take_every_head(name: str) -> None:
    config, topology = CONFIGS[name], Topology.default()
    for head in get_args(HeadName):
        network = build_network(config, topology, head).eval()
        with torch.no_grad():
            output = network(torch.zeros(1, 3, config.input_size, config.input_size))
        assert output.joints.shape == (1, 21, 3), head
        assert output.heatmaps[-1].shape[-1] == config.heatmap_size, head


@pytest.mark.slow
@pytest.mark.usefixtures("small_trainings")
def test_every_study_runs_from_its_command(
    tmp_path: Path, tiny_config: LightConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGS, "light", tiny_config)
    few = ["--hands", "48", "--shifted", "40", "--validation", "8", "--seeds", "2"]
    few += ["--heatmap-steps", "1", "--steps", "2", "--tuning-steps", "1"]

    assert main(["experiment", "all", "--out", str(tmp_path), *few]) == 0

    for name in ("table1", "table2", "fig8", "weak", "recipes"):
        assert (tmp_path / f"{name}.md").read_text().startswith("### ")
    assert (tmp_path / "weak.png").stat().st_size > 10_000
    assert cv2.imread(str(tmp_path / "fig8.png")).shape == (900, 2400, 3)
    # The curve that a run keeps is of the errors that it tells.
    run = tmp_path / "fig8" / "baseline-1" / "seed0"
    share = read_curve(run, "without")
    told = json.loads((run / "figures.json").read_text())["AUC, without"]
    assert told > 0
    assert np.trapezoid(share[40:], THRESHOLDS_MM[40:]) / 30 == pytest.approx(told, abs=0.01)
    figures = json.loads((tmp_path / "table1" / "full" / "seed1" / "figures.json").read_text())
    assert {"mesh", "pose", "AUC", "roughness"} == set(figures)


@pytest.mark.slow
@pytest.mark.usefixtures("small_trainings")
def test_fine_tuning_begins_with_all_of_a_trained_network(tmp_path: Path) -> None:
    settings = LabSettings(start_from="light", shifted=16, validation=4, tuning_steps=1)
    lab = Lab(tmp_path, settings)
    config, weights = trained_network("light")
    shipped = build(config, Topology.default())
    load_weights(shipped, weights, config, Topology.default())

    before = lab.whole()
    assert before is not None
    begun = load_network(before).network.state_dict()
    for name, tensor in shipped.state_dict().items():
        assert torch.equal(begun[name], tensor), name
    tuned = load_network(lab.tuned_heatmaps(0, start=before)).network.state_dict()
    assert all(torch.equal(tuned[n], t) for n, t in begun.items() if n.startswith("head."))
    assert not (tmp_path / "data" / "rendered").exists(), "nothing is trained on the first domain"


def test_a_half_trained_pose_regressor_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, steps = Lab(tmp_path, LabSettings()), 399

    def train(run: Run) -> None:
        nonlocal steps
        steps = run.pose_steps
        write()

    def write() -> None:
        path = tmp_path / "shared" / "pose" / "checkpoint.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        graph = Topology.default().sha256
        torch.save({"graph": graph, "config": {}, "average": {}, "step": steps}, path)

    monkeypatch.setattr("handmesh_training.experiments.lab.train_pose_regressor", train)
    write()
    lab.regressor()
    assert steps == 400
    monkeypatch.setattr("handmesh_training.experiments.lab.train_pose_regressor", pytest.fail)
    lab.regressor()


def test_curves_are_means_over_seeds(tmp_path: Path) -> None:
    study = study_of({"full": [1, 2], "less": [2, 3]}, [])
    study.run(tmp_path, range(2))
    with pytest.raises(InputError, match="holds no curve"):
        draw_curves(study, tmp_path, ["without"], range(2))
    errors = np.array([[0.0, 10.0], [10.2, 60.0]])
    for name in ("full", "less"):
        for seed in range(2):
            write_curve(place(tmp_path, name, seed), "without", errors)
    share = read_curve(place(tmp_path, "full", 0), "without")
    at = dict(zip(THRESHOLDS_MM.tolist(), share.tolist(), strict=True))
    assert (at[0.0], at[9.5], at[10.0], at[10.5], at[50.0]) == (0.25, 0.25, 0.5, 0.75, 0.75)

    picture = draw_curves(study, tmp_path, ["without"], range(2))

    assert cv2.imdecode(np.frombuffer(picture, np.uint8), 1).shape == (900, 1200, 3)


@pytest.mark.slow
@pytest.mark.usefixtures("small_trainings")
def test_variants_begin_with_a_trained_trunk(tmp_path: Path) -> None:
    lab = Lab(tmp_path, LabSettings(start_from="light", hands=16, validation=4, steps=1))

    begun = load_network(lab.pretrained(0)).network.state_dict()
    shipped, _ = trained_network("light")
    network = build(shipped, Topology.default())
    assert lab.start is not None
    load_weights(network, lab.start, shipped, Topology.default())

    assert not (tmp_path / "shared" / "heatmaps-adamw").exists()
    for name, tensor in network.state_dict().items():
        if name.endswith("weight") and tensor.ndim > 1 and "pose_regressor" not in name:
            step = (begun[name] - tensor).abs().max() / tensor.abs().max()
            assert (step > 0.1) == name.startswith("head."), name  # one step of Adam is 1e-3


@pytest.mark.parametrize("name", [*cli_experiment.DEFAULTS, "seeds"])
def test_counts_below_one_are_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    option = f"--{name.replace('_', '-')}"
    assert main(["experiment", "weak", "--out", str(tmp_path / "lab"), option, "0"]) == 2
    told = capsys.readouterr().err
    assert option in told
    assert "must be at least 1, not 0" in told
    assert not (tmp_path / "lab").exists()
    # A trained trunk has that stage behind it.
    assert LabSettings(start_from="light", heatmap_steps=0).heatmap_steps == 0
