"""Training on made-up hands: it learns, stops, resumes, refuses foreign state, and stops at NaN."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from handmesh.errors import BundleError, CheckpointError, DivergedError
from handmesh.nn import LightConfig, build, save_weights
from handmesh_training import parallel, train
from handmesh_training.augment import Augmentation
from handmesh_training.hand import HandModel
from handmesh_training.metrics import procrustes_error
from handmesh_training.rendered import HandRenderer, RenderSettings
from handmesh_training.samples import Crops
from handmesh_training.stream import Batch, CropStream, StreamSettings
from handmesh_training.train import BONE_MM, Trainer, TrainSettings, to_input

pytestmark = pytest.mark.usefixtures("quick_surroundings")

SETTINGS = TrainSettings(
    steps=4,
    warmup=2,
    decay=2,
    workers=0,
    report=2,
    evaluate=1000,
    stream=StreamSettings(
        batch=4,
        pool=16,
        chunk=8,
        render=RenderSettings(crop_px=80),
        augment=Augmentation(input_size=64),
    ),
)


@pytest.fixture(scope="module")
def regressor_state(tiny_config: LightConfig, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A pose regressor fitted once, briefly; with its error in mm."""
    trainer = Trainer(tiny_config, SETTINGS, tmp_path_factory.mktemp("regressor"))
    error = trainer.fit_pose_regressor(steps=16, batch=8)
    return trainer.network.pose_regressor.state_dict(), error


@pytest.fixture
def quick_regressor(monkeypatch: pytest.MonkeyPatch, regressor_state: Any) -> None:
    """The stage before the training proper takes no time."""

    def adopt(self: Trainer) -> float:
        regressor: Any = self.network.pose_regressor
        regressor.load_state_dict(regressor_state[0])
        self._adopt_pose_regressor()
        return float(regressor_state[1])

    monkeypatch.setattr(Trainer, "fit_pose_regressor", adopt)


def states_equal(one: nn.Module, two: nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("quick_regressor")
def test_the_loss_falls_on_a_repeated_batch(tiny_config: LightConfig, tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=1000, warmup=5, decay=1, learning_rate=4e-3)
    trainer = Trainer(tiny_config, settings, tmp_path)
    trainer.fit_pose_regressor()
    batch = next(iter(CropStream(settings.stream, 0)))

    rows = [trainer._train_step(batch) for _ in range(40)]

    start, end = (np.mean([row["loss"] for row in part]) for part in (rows[:5], rows[-5:]))
    assert end < 0.5 * start
    for term in ("vertex", "pose", "image", "presence"):
        assert rows[-1][term] < rows[0][term], term
    assert trainer.step == 40
    assert trainer.images_seen == 160


@pytest.mark.usefixtures("quick_regressor")
def test_a_run_writes_its_log_and_a_checkpoint(tiny_config: LightConfig, tmp_path: Path) -> None:
    trainer = Trainer(tiny_config, SETTINGS, tmp_path / "deep" / "run")

    trainer.run()

    rows = log_of(trainer.folder)
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert "pose_regressor_mm" in rows[0]
    assert rows[2]["images"] == 16
    # The log's rate is the mean of its batches.
    expected = (trainer.learning_rate(2) + trainer.learning_rate(3)) / 2
    assert rows[2]["rate"] == pytest.approx(expected)
    assert sorted(path.name for path in trainer.folder.iterdir()) == ["checkpoint.pt", "log.jsonl"]
    assert not states_equal(trainer.network, build(tiny_config, trainer.topology))


@pytest.mark.usefixtures("quick_regressor")
def test_a_run_goes_on_where_it_stopped(tiny_config: LightConfig, tmp_path: Path) -> None:
    first = Trainer(tiny_config, replace(SETTINGS, report=3), tmp_path)
    first.run()

    second = Trainer(tiny_config, replace(SETTINGS, steps=6, report=3, seed=9), tmp_path)

    assert (second.step, second.images_seen) == (4, 16)
    assert states_equal(second.network, first.network)
    assert states_equal(second.average, first.average)
    old, new = (t.optimizer.state_dict()["state"] for t in (first, second))
    assert old.keys() == new.keys()
    for key in old:
        assert torch.equal(old[key]["exp_avg"], new[key]["exp_avg"])
    second.run()
    assert (second.step, second.images_seen) == (6, 24)
    assert [row["step"] for row in log_of(tmp_path)] == [0, 3, 6], (
        "the regressor is not fitted anew"
    )
    # Sums of the two batches since the restart, not of three.
    expected = (second.learning_rate(4) + second.learning_rate(5)) / 2
    assert log_of(tmp_path)[-1]["rate"] == pytest.approx(expected)
    third = Trainer(tiny_config, SETTINGS, tmp_path)
    assert states_equal(third.network, second.network)


@pytest.mark.usefixtures("quick_regressor")
def test_a_new_run_may_start_from_trained_weights(tiny_config: LightConfig, tmp_path: Path) -> None:
    first = Trainer(tiny_config, SETTINGS, tmp_path / "first")
    first.run()
    weights = tmp_path / "weights.safetensors"
    save_weights(first.average, weights, tiny_config, first.topology)

    second = Trainer(tiny_config, replace(SETTINGS, seed=5), tmp_path / "second")
    second.start_from(weights)

    assert states_equal(second.network, first.average)
    assert states_equal(second.average, first.average)
    second.run()
    assert second.step == 4
    assert log_of(second.folder)[0]["step"] != 0, "the regressor is not fitted anew"
    with pytest.raises(CheckpointError, match="another folder"):
        second.start_from(weights)
    with pytest.raises(BundleError, match="no weights file"):
        Trainer(tiny_config, SETTINGS, tmp_path / "third").start_from(tmp_path / "none")


@pytest.mark.usefixtures("quick_regressor")
def test_a_resumed_run_sees_other_batches(
    tiny_config: LightConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[int] = []
    plain = CropStream.__init__

    def noted(self: CropStream, *args: Any, start: int = 0, **more: Any) -> None:
        starts.append(start)
        plain(self, *args, start=start, **more)

    monkeypatch.setattr(CropStream, "__init__", noted)
    Trainer(tiny_config, replace(SETTINGS, steps=2), tmp_path).run()
    Trainer(tiny_config, SETTINGS, tmp_path).run()

    assert starts == [0, 2]


@pytest.mark.usefixtures("quick_regressor")
def test_two_runs_from_one_seed_are_the_same(tiny_config: LightConfig, tmp_path: Path) -> None:
    trainers = [
        Trainer(tiny_config, replace(SETTINGS, steps=3, seed=seed), tmp_path / name)
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    ]
    for trainer in trainers:
        trainer.run()

    assert states_equal(trainers[0].network, trainers[1].network)
    assert not states_equal(trainers[0].network, trainers[2].network)


@pytest.mark.usefixtures("quick_regressor")
def test_no_time_means_no_batch_but_a_checkpoint(tiny_config: LightConfig, tmp_path: Path) -> None:
    trainer = Trainer(tiny_config, SETTINGS, tmp_path)
    trainer.run(minutes=0)

    assert trainer.step == 0
    restored = Trainer(tiny_config, SETTINGS, tmp_path)
    assert states_equal(restored.network, trainer.network)
    # Fitted already: a second run need not fit it again.
    restored.run(minutes=0)
    assert len(log_of(tmp_path)) == 1


def test_a_checkpoint_from_before_the_regressor_does_not_freeze_it(
    tiny_config: LightConfig, tmp_path: Path
) -> None:
    Trainer(tiny_config, SETTINGS, tmp_path).save()

    regressor: Any = Trainer(tiny_config, SETTINGS, tmp_path).network.pose_regressor

    assert regressor.collapsed_weight is None
    assert all(parameter.requires_grad for parameter in regressor.parameters())


def test_foreign_and_damaged_checkpoints_are_refused(
    tiny_config: LightConfig, tmp_path: Path
) -> None:
    good = Trainer(tiny_config, SETTINGS, tmp_path)
    good.save()
    path = good.checkpoint_path
    whole = path.read_bytes()
    state = torch.load(path, weights_only=True)

    other = replace(tiny_config, latent=40)
    with pytest.raises(CheckpointError, match="another network"):
        Trainer(other, SETTINGS, tmp_path)

    def refused(content: object, match: str) -> None:
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=match):
            Trainer(tiny_config, SETTINGS, tmp_path)

    refused(state | {"graph": "0" * 64}, "another network or graph")
    refused(state | {"config": state["config"] | {"unknown": 1}}, "not a readable checkpoint")
    refused({k: v for k, v in state.items() if k != "optimizer"}, "optimizer")
    refused(state | {"network": {}}, "delete it to start anew")
    refused({"weights": 1}, "not a readable checkpoint")
    refused([1, 2], "not a readable checkpoint")
    for content in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt is not a readable"):
            Trainer(tiny_config, SETTINGS, tmp_path)


class Poison(nn.Module):
    """Passes values on, but makes them (forward) or their gradients (backward) NaN."""

    def __init__(self, gradient: bool) -> None:
        super().__init__()
        self.gradient = gradient

    def forward(self, x: Tensor) -> Tensor:
        if not self.gradient:
            return x * math.nan
        x.register_hook(lambda g: g * math.nan)
        return x.clone()


@pytest.mark.usefixtures("quick_regressor")
@pytest.mark.parametrize(("gradient", "culprit"), [(False, "loss"), (True, "norm of the gradient")])
def test_nan_stops_the_run_and_leaves_the_checkpoint_whole(
    tiny_config: LightConfig, tmp_path: Path, gradient: bool, culprit: str
) -> None:
    Trainer(tiny_config, replace(SETTINGS, steps=2), tmp_path).run()
    trainer = Trainer(tiny_config, replace(SETTINGS, checkpoint_seconds=0.0), tmp_path)
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    saved = trainer.checkpoint_path.read_bytes()
    network: Any = trainer.network
    network.encode = nn.Sequential(network.encode, Poison(gradient))

    with pytest.raises(DivergedError, match=f"the {culprit} is nan at batch 2; the last"):
        trainer.run()

    assert trainer.checkpoint_path.read_bytes() == saved
    for name, value in before.items():
        now = trainer.network.get_parameter(name.replace("encode.", "encode.0."))
        assert torch.equal(now, value), name
    assert Trainer(tiny_config, SETTINGS, tmp_path).step == 2


@pytest.mark.usefixtures("quick_regressor")
def test_a_process_stops_with_the_one_that_diverged(
    tiny_config: LightConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def elsewhere(flag: bool, _: torch.device) -> bool:
        asked.append(flag)
        return len(asked) == 3  # the other process, in the third batch

    monkeypatch.setattr(parallel, "any_of", elsewhere)
    trainer = Trainer(tiny_config, SETTINGS, tmp_path)
    with pytest.raises(DivergedError, match="another process is not finite at batch 2"):
        trainer.run()
    assert asked == [False] * 3
    assert trainer.step == 2


def test_learning_rate_closed_form(tiny_config: LightConfig, tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=1000, warmup=100, decay=400, learning_rate=0.5)
    rate = Trainer(tiny_config, settings, tmp_path).learning_rate

    assert rate(0) == pytest.approx(0.005)
    assert rate(49) == pytest.approx(0.25)
    assert [rate(step) for step in (99, 100, 599, 600)] == [0.5] * 4
    assert rate(700) == pytest.approx(0.5 * (1 - math.sqrt(0.25)))
    assert rate(936) == pytest.approx(0.5 * (1 - math.sqrt(336 / 400)))
    assert 0 < rate(999) < 0.001
    assert rate(1000) == 0
    falling = [rate(step) for step in range(600, 1001)]
    assert all(a > b for a, b in itertools.pairwise(falling))


def test_networks_start_from_the_seed_and_the_average_with_them(
    tiny_config: LightConfig, tmp_path: Path
) -> None:
    one, two, other = (
        Trainer(tiny_config, replace(SETTINGS, seed=seed), tmp_path / name)
        for seed, name in ((5, "a"), (5, "b"), (6, "c"))
    )

    assert states_equal(one.network, two.network)
    assert states_equal(one.network, one.average)
    assert not states_equal(one.network, other.network)
    assert one.network.training
    assert not one.average.training


@pytest.mark.usefixtures("quick_regressor")
def test_the_average_follows_in_closed_form(tiny_config: LightConfig, tmp_path: Path) -> None:
    trainer = Trainer(tiny_config, replace(SETTINGS, average=0.4, steps=50), tmp_path)
    trainer.fit_pose_regressor()
    batches = iter(CropStream(SETTINGS.stream, 0))
    name = next(name for name, p in trainer.network.named_parameters() if p.requires_grad)
    expected = trainer.network.state_dict()[name].clone()

    for step in range(1, 9):
        trainer._train_step(next(batches))
        keep = min(0.4, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * trainer.network.state_dict()[name]
        torch.testing.assert_close(trainer.average.state_dict()[name], expected)
    counts = [n for n, v in trainer.average.state_dict().items() if not v.is_floating_point()]
    assert counts
    assert all(trainer.average.state_dict()[n] == 8 for n in counts)


def test_the_regressor_is_fitted_frozen_and_shared(
    tiny_config: LightConfig, tmp_path: Path, regressor_state: Any
) -> None:
    state, error = regressor_state
    trainer = Trainer(tiny_config, SETTINGS, tmp_path)
    start: Any = trainer.network.pose_regressor
    untrained = {name: value.clone() for name, value in start.state_dict().items()}
    assert any(not torch.equal(state[name], untrained[name]) for name in state)

    again = trainer.fit_pose_regressor(steps=16, batch=8)

    assert again == pytest.approx(error, rel=1e-3), "from one seed"
    assert 0 < again < 8, "already near: it starts from the template's own regressor"
    for network in (trainer.network, trainer.average):
        regressor: Any = network.pose_regressor
        assert regressor.collapsed_weight is not None
        assert not any(parameter.requires_grad for parameter in regressor.parameters())
    trained: Any = trainer.network.pose_regressor
    averaged: Any = trainer.average.pose_regressor
    assert torch.equal(trained.collapsed_weight, averaged.collapsed_weight)


def test_to_input() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3).repeat(2, 4, 4, 1)

    found = to_input(images)

    assert found.shape == (2, 3, 4, 4)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([-0.5, -0.3, 0.5]))
    assert images.unique().tolist() == [0, 51, 255], "the pictures are left alone"


def perfect(crops: Crops, offset: float) -> nn.Module:
    """A network that knows the answers, but for an offset of the joints in u."""

    class Oracle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen = 0

        def forward(self, images: Tensor) -> Any:
            rows = slice(self.seen, self.seen + len(images))
            self.seen += len(images)
            joints = torch.from_numpy(crops.joints[rows]).clone()
            joints[:, 9, 0] += offset
            vertices = torch.from_numpy(crops.vertices[rows])
            return type("Output", (), {"joints": joints, "vertices": vertices})()

    return Oracle()


def test_evaluation_of_known_answers(tiny_config: LightConfig, tmp_path: Path) -> None:
    settings = replace(SETTINGS.stream.render, crop_px=64, margin=1.5, empty=0.0)
    crops = HandRenderer(settings, 7).chunk(0, 70)
    flat = Crops.concatenate([crops])
    flat.has_depth[:] = flat.has_mesh[:] = False
    trainer = Trainer(tiny_config, SETTINGS, tmp_path, {"all": crops, "flat": flat})

    trainer.average = perfect(Crops.concatenate([crops, flat]), 0.0)
    figures = trainer.evaluate()

    assert set(figures) == {"all_2d", "all_joints", "all_joints_pa", "all_mesh", "flat_2d"}
    assert max(figures.values()) < 1e-3
    trainer.average = perfect(Crops.concatenate([crops, flat]), 0.1)
    figures = trainer.evaluate()
    # One joint of 21 is off by 0.1 of the crop, which has 1.5 times the box's side.
    assert figures["all_2d"] == pytest.approx(0.1 * 1.5 / 21, rel=1e-3)
    off_mm = 0.1 * crops.crop_in_bones.mean() * BONE_MM
    assert figures["all_joints"] == pytest.approx(off_mm / 21, rel=1e-3)
    scale = np.stack([crops.crop_in_bones, crops.crop_in_bones, np.ones(70)], axis=1)[:, None]
    moved = crops.joints.astype(np.float64)
    moved[:, 9, 0] += 0.1
    aligned = procrustes_error(moved * scale, crops.joints * scale).mean() * BONE_MM
    assert figures["all_joints_pa"] == pytest.approx(aligned, rel=1e-3)
    assert figures["all_mesh"] < 1e-3


def test_bone_mm_is_the_template_s() -> None:
    joints = HandModel().joints

    assert float((joints[10] - joints[9]).norm()) * 1000 == pytest.approx(BONE_MM, abs=1)


def test_the_objective_uses_each_label_where_it_is_known(
    tiny_config: LightConfig, tmp_path: Path
) -> None:
    """Changing a label that a flag says is unknown changes nothing; else it does."""
    trainer = Trainer(tiny_config, SETTINGS, tmp_path)
    batch = next(iter(CropStream(SETTINGS.stream, 1)))
    output = trainer.network(to_input(batch["images"]))

    def loss(changed: Batch) -> float:
        with torch.no_grad():
            return float(train.objective(output, changed, trainer.surface, SETTINGS.weights)[0])

    for flag in (True, False):
        flags = {f"has_{x}": torch.full((4,), flag) for x in ("hand", "joints", "depth", "mesh")}
        known = batch | flags
        for name in ("joints", "vertices", "is_right"):
            value = known[name]
            other = ~value if value.dtype == torch.bool else value + 0.1
            assert (loss(known | {name: other}) != loss(known)) == flag, (name, flag)
    assert loss(batch | {"has_hand": ~batch["has_hand"]}) != loss(batch)
