"""Training on made-up hands: it learns, stops, resumes, refuses foreign state, and stops at NaN."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from handmesh.errors import CheckpointError, DivergedError, InputError
from handmesh.graph import Topology
from handmesh.nn import LightConfig, build
from handmesh_training import parallel, train
from handmesh_training.augment import Augmentation
from handmesh_training.lanes import batches
from handmesh_training.losses import LossWeights
from handmesh_training.recipe import PAPER, Recipe
from handmesh_training.rendered import HandRenderer, RenderSettings
from handmesh_training.samples import Crops
from handmesh_training.sources import to_input
from handmesh_training.stream import Batch, CropStream, StreamSettings
from handmesh_training.tasks import full_task
from handmesh_training.train import Trainer, TrainSettings

pytestmark = pytest.mark.usefixtures("quick_surroundings")

STREAM = StreamSettings(
    batch=4,
    pool=16,
    chunk=8,
    render=RenderSettings(crop_px=80),
    augment=Augmentation(input_size=64),
)
RECIPE = Recipe(batch=4, warmup=2, decay=0.5)
SETTINGS = TrainSettings(steps=4, recipe=RECIPE, report=2, evaluate=1000, tensorboard=False)
TASK = full_task(LossWeights())


def trainer_of(
    config: LightConfig,
    folder: Path,
    settings: TrainSettings = SETTINGS,
    validation: dict[str, Crops] | None = None,
) -> Trainer:
    return Trainer(config, settings, folder, TASK, validation)


def run(trainer: Trainer, minutes: float = math.inf) -> Trainer:
    """Train on made-up hands, in this process."""

    def open_batches(own: list[int], of: int, start: int) -> Iterator[Batch]:
        return batches(CropStream(STREAM, trainer.settings.seed), own, of, start)

    trainer.run(open_batches, minutes)
    return trainer


def some_batches(seed: int = 0) -> Iterator[Batch]:
    return batches(CropStream(STREAM, seed), [0], 1)


def states_equal(one: nn.Module, two: nn.Module) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stop_after(trainer: Trainer, steps: int) -> None:
    """Interrupt a run after so many batches, as Ctrl-C or the end of a lease would."""
    plain = trainer._train_step

    def step(*arguments: Any) -> dict[str, float]:
        row = plain(*arguments)
        if trainer.step == steps:
            trainer.save()
            raise KeyboardInterrupt
        return row

    trainer._train_step = step  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run(trainer)


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["steps", "report", "evaluate", "lanes"])
def test_counts_of_a_run_are_at_least_one(name: str) -> None:
    for wrong in (0, -5):
        with pytest.raises(InputError, match=f"{name} must be at least 1, not {wrong}"):
            replace(SETTINGS, **{name: wrong})


def test_the_loss_falls_on_a_repeated_batch(tiny_config: LightConfig, tmp_path: Path) -> None:
    recipe = replace(RECIPE, warmup=5, decay=0, learning_rate=4e-3)
    trainer = trainer_of(tiny_config, tmp_path, replace(SETTINGS, steps=1000, recipe=recipe))
    batch = next(some_batches())

    rows = [trainer._train_step(trainer.part, batch, 1) for _ in range(40)]

    start, end = (np.mean([row["loss"] for row in part]) for part in (rows[:5], rows[-5:]))
    assert end < 0.5 * start
    for term in ("vertex", "pose", "image", "presence"):
        assert rows[-1][term] < rows[0][term], term
    assert trainer.step == 40
    assert trainer.images_seen == 160


def test_a_run_writes_its_log_and_a_checkpoint(tiny_config: LightConfig, tmp_path: Path) -> None:
    trainer = run(trainer_of(tiny_config, tmp_path / "deep" / "run"))

    rows = log_of(trainer.folder)
    assert [row["step"] for row in rows] == [2, 4]
    assert rows[1]["images"] == 16
    # The log's rate is the mean of its batches.
    expected = (RECIPE.rate(2, 4) + RECIPE.rate(3, 4)) / 2
    assert rows[1]["rate"] == pytest.approx(expected)
    assert sorted(path.name for path in trainer.folder.iterdir()) == ["checkpoint.pt", "log.jsonl"]
    assert not states_equal(trainer.network, build(tiny_config, Topology.default()))


@pytest.mark.parametrize("recipe", ["adamw", "rmsprop", "muon"])
def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(
    recipe: str, tiny_config: LightConfig, tmp_path: Path
) -> None:
    """To the last bit: optimiser, average, rates and batches go on where they were."""
    recipes = {
        "adamw": RECIPE, "rmsprop": replace(PAPER, batch=4),
        "muon": replace(RECIPE, optimizer="muon"),
    }  # fmt: skip
    settings = replace(SETTINGS, steps=6, recipe=recipes[recipe])
    whole = run(trainer_of(tiny_config, tmp_path / "whole", settings))

    first = trainer_of(tiny_config, tmp_path / "halved", settings)
    stop_after(first, 4)
    second = run(trainer_of(tiny_config, tmp_path / "halved", settings))

    assert (second.step, second.images_seen) == (6, 24)
    assert states_equal(second.network, whole.network)
    assert states_equal(second.evaluated, whole.evaluated)
    old, new = (t.optimizer.state_dict()["state"] for t in (whole, second))
    assert old.keys() == new.keys()
    for key in old:
        assert all(torch.equal(old[key][n], new[key][n]) for n in old[key])


def test_weights_may_be_prepared(tiny_config: LightConfig, tmp_path: Path) -> None:
    first = run(trainer_of(tiny_config, tmp_path / "first"))

    def prepare(network: nn.Module) -> None:
        network.load_state_dict(first.evaluated.state_dict())

    second = Trainer(tiny_config, SETTINGS, tmp_path / "second", TASK, prepare=prepare)

    assert states_equal(second.network, first.evaluated)
    assert states_equal(second.evaluated, first.evaluated)
    run(second)
    third = Trainer(tiny_config, SETTINGS, second.folder, TASK, prepare=prepare)
    assert states_equal(third.network, second.network), "a run that goes on prepares nothing"


def test_two_runs_from_one_seed_are_the_same(tiny_config: LightConfig, tmp_path: Path) -> None:
    trainers = [
        run(trainer_of(tiny_config, tmp_path / name, replace(SETTINGS, steps=3, seed=seed)))
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    ]

    assert states_equal(trainers[0].network, trainers[1].network)
    assert not states_equal(trainers[0].network, trainers[2].network)


def test_no_time_means_no_batch_but_a_checkpoint(tiny_config: LightConfig, tmp_path: Path) -> None:
    trainer = run(trainer_of(tiny_config, tmp_path), minutes=0)

    assert trainer.step == 0
    assert states_equal(trainer_of(tiny_config, tmp_path).network, trainer.network)


def test_the_pose_regressor_stays_as_it_was_prepared(
    tiny_config: LightConfig, tmp_path: Path
) -> None:
    trainer = trainer_of(tiny_config, tmp_path)
    regressor: Any = trainer.network.pose_regressor
    before = {name: value.clone() for name, value in regressor.state_dict().items()}

    run(trainer)

    for network in (trainer.network, trainer.evaluated):
        now: Any = network.pose_regressor
        assert now.collapsed_weight is not None
        assert not any(parameter.requires_grad for parameter in now.parameters())
        for name, value in before.items():
            assert torch.equal(now.state_dict()[name], value), name


def test_foreign_and_damaged_checkpoints_are_refused(
    tiny_config: LightConfig, tmp_path: Path
) -> None:
    good = trainer_of(tiny_config, tmp_path)
    good.save()
    path = good.checkpoint_path
    whole = path.read_bytes()
    state = torch.load(path, weights_only=True)

    other = replace(tiny_config, latent=40)
    with pytest.raises(CheckpointError, match="another config"):
        trainer_of(other, tmp_path)
    with pytest.raises(CheckpointError, match="another stage"):
        Trainer(tiny_config, SETTINGS, tmp_path, replace(TASK, name="else"))
    with pytest.raises(CheckpointError, match="another lanes"):
        trainer_of(tiny_config, tmp_path, replace(SETTINGS, lanes=2))

    def refused(content: object, match: str) -> None:
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=match):
            trainer_of(tiny_config, tmp_path)

    refused(state | {"graph": "0" * 64}, "another mesh graph")
    refused(state | {"config": state["config"] | {"unknown": 1}}, "another config")
    refused({k: v for k, v in state.items() if k != "optimizer"}, "optimizer")
    refused(state | {"network": {}}, "delete it to start anew")
    refused({"weights": 1}, "not a checkpoint of a training run.*delete it to start anew")
    refused([1, 2], "not a checkpoint of a training run.*delete it to start anew")
    for content in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"not a checkpoint.*delete it to start anew"):
            trainer_of(tiny_config, tmp_path)


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


@pytest.mark.parametrize(("gradient", "culprit"), [(False, "loss"), (True, "norm of the gradient")])
def test_nan_stops_the_run_and_leaves_the_checkpoint_whole(
    tiny_config: LightConfig, tmp_path: Path, gradient: bool, culprit: str
) -> None:
    run(trainer_of(tiny_config, tmp_path, replace(SETTINGS, steps=2)))
    trainer = trainer_of(tiny_config, tmp_path, replace(SETTINGS, checkpoint_seconds=0.0))
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    saved = trainer.checkpoint_path.read_bytes()
    network: Any = trainer.network
    network.encode = nn.Sequential(network.encode, Poison(gradient))

    with pytest.raises(DivergedError, match=f"the {culprit} is nan at batch 2; the last"):
        run(trainer)

    assert trainer.checkpoint_path.read_bytes() == saved
    for name, value in before.items():
        now = trainer.network.get_parameter(name.replace("encode.", "encode.0."))
        assert torch.equal(now, value), name
    assert trainer_of(tiny_config, tmp_path).step == 2


def test_a_process_stops_with_the_one_that_diverged(
    tiny_config: LightConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def elsewhere(flag: Tensor) -> Tensor:
        asked.append(bool(flag))
        return torch.tensor(float(len(asked) == 3))  # the other process, in the third batch

    monkeypatch.setattr(parallel, "any_of", elsewhere)
    trainer = trainer_of(tiny_config, tmp_path)
    with pytest.raises(
        DivergedError, match="another process is not finite or far too large at batch 2"
    ):
        run(trainer)
    assert asked == [False] * 3
    assert trainer.step == 2


def test_a_loss_beyond_all_measure_stops_the_run(
    tiny_config: LightConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "RECENT", 3)
    settings = replace(SETTINGS, steps=9)
    trainer = trainer_of(tiny_config, tmp_path, settings)
    trainer._recent = deque(maxlen=3)
    plain = trainer._loss
    factor = iter([1.0, 1.0, 900.0, 1.0, 1500.0])

    def grown(output: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = plain(output, batch)
        return loss / loss.detach() * next(factor), terms

    trainer._loss = grown
    with pytest.raises(DivergedError, match="the loss is 1500, 1000 times what it was at batch 4"):
        run(trainer)
    assert trainer.step == 4


def test_a_step_reads_its_figures_from_the_device_at_once(
    tiny_config: LightConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each single number that is read makes the processor wait for a GPU."""
    trainer = trainer_of(tiny_config, tmp_path)
    batch = next(some_batches())
    # Adam's counts of its steps lie in the processor's own memory.
    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)
    with _Reads() as reads:
        row = trainer._train_step(trainer.part, batch, 1)
    assert reads.numbers == 0
    assert {"loss", "gradient", "rate", "vertex", "pose"} <= row.keys()

    with _Reads() as reads:
        float(torch.ones(1).sum())
    assert reads.numbers == 1


class _Reads(TorchDispatchMode):
    """Counts what `float(tensor)` and `tensor.item()` come to."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.numbers += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_the_average_is_that_of_each_tensor_by_itself(
    tiny_config: LightConfig, tmp_path: Path
) -> None:
    trainer = trainer_of(tiny_config, tmp_path)
    trainer.step = 3
    with torch.no_grad():
        for value in trainer.network.state_dict().values():
            value.add_(1) if not value.is_floating_point() else value.mul_(1.5).add_(0.1)
    expected = {name: value.clone() for name, value in trainer.evaluated.state_dict().items()}
    for name, value in trainer.network.state_dict().items():
        if value.is_floating_point():
            expected[name].lerp_(value, 1 - 4 / 13)
        else:
            expected[name].copy_(value)

    trainer._update_average()

    for name, value in trainer.evaluated.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_networks_start_from_the_seed_and_the_average_with_them(
    tiny_config: LightConfig, tmp_path: Path
) -> None:
    one, two, other = (
        trainer_of(tiny_config, tmp_path / name, replace(SETTINGS, seed=seed))
        for seed, name in ((5, "a"), (5, "b"), (6, "c"))
    )

    assert states_equal(one.network, two.network)
    assert one.average is not None
    assert states_equal(one.network, one.average)
    assert not states_equal(one.network, other.network)


def test_the_average_follows_in_closed_form(tiny_config: LightConfig, tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=50, recipe=replace(RECIPE, average=0.4))
    trainer = trainer_of(tiny_config, tmp_path, settings)
    name = next(name for name, p in trainer.network.named_parameters() if p.requires_grad)
    expected = trainer.network.state_dict()[name].clone()

    made = some_batches()
    for step in range(1, 9):
        trainer._train_step(trainer.part, next(made), 1)
        keep = min(0.4, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * trainer.network.state_dict()[name]
        torch.testing.assert_close(trainer.evaluated.state_dict()[name], expected)
    state = trainer.evaluated.state_dict()
    counts = [n for n, v in state.items() if not v.is_floating_point()]
    assert counts
    assert all(state[n] == 8 for n in counts)


def test_without_an_average_the_network_itself_is_evaluated(
    tiny_config: LightConfig, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, recipe=replace(PAPER, batch=4))
    trainer = run(trainer_of(tiny_config, tmp_path, settings))

    assert trainer.evaluated is trainer.network
    state = torch.load(trainer.checkpoint_path, weights_only=True)
    assert all(torch.equal(state["average"][n], v) for n, v in state["network"].items())


def test_a_step_on_two_lanes_is_the_mean_of_both(tiny_config: LightConfig, tmp_path: Path) -> None:
    """Each lane counts its own labels; norms see them together."""
    trainer = trainer_of(tiny_config, tmp_path, replace(SETTINGS, lanes=2))
    made = batches(CropStream(replace(STREAM, batch=2), 0), [0, 1], 2)
    batch = next(made)
    batch["has_depth"][:] = torch.tensor([True, False, True, True])
    output = trainer.network(to_input(batch["images"]))

    loss, terms = trainer._mean_loss(output, batch, 2)

    halves = [
        trainer._loss(
            output._replace(
                **{n: v[rows] for n, v in output._asdict().items() if isinstance(v, Tensor)},
                heatmaps=[m[rows] for m in output.heatmaps],
            ),
            {n: v[rows] for n, v in batch.items()},
        )
        for rows in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(loss, (halves[0][0] + halves[1][0]) / 2)
    torch.testing.assert_close(terms["pose"], (halves[0][1]["pose"] + halves[1][1]["pose"]) / 2)
    assert not torch.isclose(terms["pose"], trainer._mean_loss(output, batch, 1)[1]["pose"])


def test_batches_that_lanes_cannot_share_are_refused(
    tiny_config: LightConfig, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="equally among 3 lanes"):
        run(trainer_of(tiny_config, tmp_path, replace(SETTINGS, lanes=3)))


def test_reports_of_batches_that_are_made_again_are_forgotten(
    tiny_config: LightConfig, tmp_path: Path
) -> None:
    trainer = trainer_of(tiny_config, tmp_path)
    stop_after(trainer, 3)
    trainer.save()
    with (tmp_path / "log.jsonl").open("a") as log:  # killed later than the checkpoint
        log.write('{"step": 4, "loss": 1.0}\n{"step": 6, "loss": 1.0}\n{"step": 8, "lo')
    run(trainer_of(tiny_config, tmp_path))
    assert [row["step"] for row in log_of(tmp_path)] == [2, 4]


def test_what_is_trained_shows_in_tensorboard(
    tiny_config: LightConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However short it is: the end is evaluated, and told."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    look = replace(STREAM.render, crop_px=64, margin=1.5, empty=0.0)
    settings = replace(SETTINGS, tensorboard=True)
    assert settings.steps < settings.evaluate
    crops = {"rendered": HandRenderer(look, 7).chunk(0, 4)}
    trainer = run(trainer_of(tiny_config, tmp_path, settings, crops))

    events = accumulator.EventAccumulator(str(trainer.folder / "tensorboard"))
    events.Reload()
    assert {"loss", "vertex", "rate", "rendered_mesh"} <= set(events.Tags()["scalars"])
    logged = [row["loss"] for row in log_of(trainer.folder) if "loss" in row]
    seen = events.Scalars("loss")
    assert [event.step for event in seen] == [2, 4]
    assert [event.value for event in seen] == pytest.approx(logged)
    (told,) = (row["rendered_mesh"] for row in log_of(trainer.folder) if "rendered_mesh" in row)
    assert f"full, batch 4: rendered_2d {trainer.evaluate()['rendered_2d']:.4g}" in (
        output := capsys.readouterr().err
    )
    assert f"rendered_mesh {told:.4g}" in output
    (picture,) = events.Images("batch")
    assert (picture.width, picture.height) == (8 * 160, 2 * 160)
