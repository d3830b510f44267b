"""One training run: batches in, steps, checkpoints, reports.

What is trained, by which loss, is told by a `Task`; the paper's stages are such tasks in a row.

A run is resumable at any time and exactly: checkpoints hold weights, their moving average, the
optimiser and the number of batches consumed, are replaced atomically, and the stream of batches
goes on bit for bit.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from handmesh.errors import CheckpointError, DivergedError, InputError
from handmesh.graph import Topology
from handmesh.nn import NetworkConfig

from . import parallel
from .checkpoint import FILE, describe_network, read_checkpoint, write_checkpoint
from .heads import HeadName, build_network
from .lanes import own_lanes
from .monitor import Monitor
from .recipe import PROLONGABLE, Recipe
from .sources import Batch, to_input
from .validate import network_errors

# Batches between looks at the clock, which all processes must agree on.
STOP_EVERY = 20
# A loss so many times the median of so many batches before it has diverged.
DIVERGED, RECENT = 1000, 50

# Output of the trained part and its batch to the loss and its terms before weighting.
Loss = Callable[[Any, Batch], tuple[Tensor, dict[str, Tensor]]]
# Batches of this process from number `start` on: (rank's lanes, all lanes, start).
OpenBatches = Callable[[list[int], int, int], Iterator[Batch]]


@dataclass(frozen=True)
class Task:
    """What a run trains.

    Attributes:
        name: of the stage.
        part: from the network to what is run and trained of it.
        loss: made for a device.
        errors: of the part on a set of crops, or of what else it is watched on.
        inputs: what the part is given of a batch.
        terms: weights of the loss, and what else of it a run does not change midway.
        fine_tuning: whether the recipe's lower rate holds.
        autocast: whether the part may run in the recipe's precision.
        some_unused: whether some of the part's parameters are not reached by the loss.
    """

    name: str
    part: Callable[[nn.Module], nn.Module]
    loss: Callable[[torch.device], Loss]
    errors: Callable[[nn.Module, Any, torch.device], dict[str, float]] = network_errors
    inputs: Callable[[Batch], Tensor] = lambda batch: to_input(batch["images"])
    terms: Mapping[str, float | str | None] = field(default_factory=dict)
    fine_tuning: bool = False
    autocast: bool = True
    some_unused: bool = False


@dataclass(frozen=True)
class TrainSettings:
    """How a run goes, whatever it trains.

    Attributes:
        steps: batches in all. recipe: of the optimisation.
        seed: of weights and stream.
        lanes: rows that samples are dealt out to; see `lanes`. None for one a process.
        report, evaluate: batches between log lines, and between evaluations; the end is evaluated,
            too.
        checkpoint_seconds: between checkpoints.
        synchronize_norms: whether several processes share the statistics of batch norms; then they
            compute what one process would from the same batches.
        tensorboard: see `Monitor`.

    Raises:
        InputError: a count below 1.
    """

    steps: int = 20_000
    recipe: Recipe = field(default_factory=lambda: PROLONGABLE)
    seed: int = 0
    lanes: int | None = None
    report: int = 100
    evaluate: int = 1_000
    checkpoint_seconds: float = 180.0
    synchronize_norms: bool = True
    tensorboard: bool | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "report", "evaluate", "lanes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, not {value}")

    @property
    def lane_count(self) -> int:
        """How many rows samples are dealt out to."""
        return self.lanes or parallel.world_size()

    @property
    def lane_batch(self) -> int:
        """Crops of one lane's part of a batch."""
        return max(1, self.recipe.batch // self.lane_count)


class Trainer:
    """Holds the state of a run; `run` goes on from wherever it is."""

    def __init__(
        self,
        config: NetworkConfig,
        settings: TrainSettings,
        folder: Path,
        task: Task,
        validation: Mapping[str, Any] | None = None,
        device: str = "cpu",
        head: HeadName = "mesh",
        prepare: Callable[[nn.Module], None] | None = None,
    ) -> None:
        """
        Args:
            config: of the network. settings: of the run. folder: for checkpoints and the log; a
                checkpoint that is there is gone on from. task: what is trained.
            validation: named sets of what the task's errors are measured on, now and then: crops
                of hands at the network's input size.
            device: where torch computes. head: what the network ends in.
            prepare: loads weights into a fresh network; not called when a run goes on.

        Raises:
            CheckpointError: ``folder`` holds a checkpoint that cannot be read, or of another
                network, stage, number of lanes, seed, kind of recipe or loss.
            InputError: a batch that lanes cannot share out equally.
        """
        if settings.recipe.batch % settings.lane_count:
            raise InputError(
                f"a batch of {settings.recipe.batch} cannot be shared out equally among "
                f"{settings.lane_count} lanes: give another --batch or --lanes"
            )
        torch.manual_seed(settings.seed)
        self.config, self.settings, self.folder = config, settings, Path(folder)
        self.task, self.head = task, head
        self.device = torch.device(device)
        self.validation = validation or {}
        self.network = self._build()
        self.step = self.images_seen = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        state = self._read() if self.checkpoint_path.exists() else None
        if state is not None:
            self._load(self.network, state, "network")
        elif prepare is not None:
            prepare(self.network)
        if parallel.world_size() > 1 and settings.synchronize_norms:
            parallel.synchronize_norms(self.network)
        self._freeze_pose_regressor(self.network)
        self.part = task.part(self.network)
        self.optimizer = settings.recipe.optimizer_of(self.part.parameters())
        self.average: nn.Module | None = None
        if settings.recipe.average is not None:
            self.average = self._build()
            self.average.load_state_dict(self.network.state_dict())
            self._freeze_pose_regressor(self.average)
        if state is not None:
            self._load(self.evaluated, state, "average")
            self._load(self.optimizer, state, "optimizer")
            self.step, self.images_seen = int(state["step"]), int(state["images_seen"])
        self._loss = task.loss(self.device)
        self._recent: deque[float] = deque(maxlen=RECENT)
        self.monitor = Monitor(self.folder, settings.tensorboard)

    def _build(self) -> nn.Module:
        network = build_network(self.config, Topology.default(), self.head)
        if self.settings.recipe.channels_last:
            return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network.to(self.device)

    def _freeze_pose_regressor(self, network: nn.Module) -> None:
        """A regressor that was trained before is one fixed affine map from now on (section 4.3)."""
        regressor: Any = getattr(network, "pose_regressor", None)
        if regressor is not None and self.task.name != "pose":
            regressor.freeze()

    @property
    def evaluated(self) -> nn.Module:
        """The network to be measured and shipped: of averaged weights where the recipe has them."""
        return self.network if self.average is None else self.average

    @property
    def checkpoint_path(self) -> Path:
        """Where checkpoints are written, whether there is one or not."""
        return self.folder / FILE

    def save(self) -> None:
        """Write a checkpoint; the old one stays whole until the new one is."""
        write_checkpoint(
            self.checkpoint_path,
            {
                **self._identity,
                "step": self.step,
                "images_seen": self.images_seen,
                "network": self.network.state_dict(),
                "average": self.evaluated.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
        )

    def _read(self) -> dict[str, Any]:
        """The folder's checkpoint, once it is known to be of this run."""
        path = self.checkpoint_path
        state = read_checkpoint(path, self.device, resumed=True)
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise CheckpointError(
                    f"{path} is of another {name} ({state.get(name)!r}, not {value!r}); use "
                    "another folder, or delete it"
                )
        return state

    @property
    def _identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on as itself. Its length and rates may change."""
        recipe = self.settings.recipe
        return {
            **describe_network(self.config, self.head),
            "stage": self.task.name,
            "lanes": self.settings.lane_count,
            "seed": self.settings.seed,
            "recipe": {"kind": recipe.optimizer, "batch": recipe.batch, "average": recipe.average},
            "terms": dict(self.task.terms),
        }

    def _load(self, target: Any, state: dict[str, Any], name: str) -> None:
        try:
            target.load_state_dict(state[name])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self.checkpoint_path} is not a readable checkpoint: its {name} does not fit "
                f"({error}); delete it to start anew"
            ) from error

    def run(self, open_batches: OpenBatches, minutes: float = math.inf) -> None:
        """Train until `steps`, or for so many minutes; a checkpoint is written either way.

        Raises:
            DivergedError: loss or gradient stopped being finite numbers, or the loss grew beyond
                all measure; the last checkpoint is kept.
            InputError: the lanes cannot be shared out among the processes.
        """
        self._recent.clear()
        settings, lead = self.settings, parallel.rank() == 0
        own = own_lanes(settings.lane_count, parallel.rank(), parallel.world_size())
        module = parallel.synchronized(self.part, self.device, self.task.some_unused)
        compiled = settings.recipe.compile
        if compiled or (compiled is None and self.device.type == "cuda"):
            module = torch.compile(module)  # type: ignore[assignment]
        began = last_save = time.monotonic()
        sums: dict[str, float] = {}
        first = started = self.step
        told = self.step
        batches: Iterator[Batch] | None = None
        if lead:
            self.monitor.rewind(self.step)
        with tqdm(
            total=settings.steps, initial=self.step, unit="batch", desc=self.task.name,
            disable=not lead,
        ) as bar:  # fmt: skip
            while self.step < settings.steps:
                late = time.monotonic() - began > 60 * minutes
                if self.step % STOP_EVERY == 0 and parallel.agreed(late, self.device):
                    break
                if batches is None:
                    batches = open_batches(own, settings.lane_count, self.step)
                batch = {k: v.to(self.device, non_blocking=True) for k, v in next(batches).items()}
                for name, value in self._train_step(module, batch, len(own)).items():
                    sums[name] = sums.get(name, 0.0) + value
                bar.update()
                if not lead:
                    continue
                if self.step % settings.report == 0:
                    row = {k: v / (self.step - first) for k, v in sums.items()}
                    pace = bar.format_dict["rate"] or 0.0
                    bar.set_postfix(
                        loss=f"{row['loss']:.3f}",
                        images=f"{pace * settings.recipe.batch:.0f}/s",
                    )
                    self.monitor.scalars({"step": self.step, "images": self.images_seen, **row})
                    sums, first = {}, self.step
                if self.step % settings.evaluate == 0:
                    self._tell(batch, bar)
                    told = self.step
                if time.monotonic() - last_save > settings.checkpoint_seconds:
                    self.save()
                    last_save = time.monotonic()
            if lead and self.step > told:
                self._tell(batch, bar)
        if lead and not (self.step == started and self.checkpoint_path.exists()):
            self.save()
        self.monitor.close()
        parallel.wait_for_all()  # the next stage reads what process 0 has written

    def _train_step(self, module: nn.Module, batch: Batch, lanes: int) -> dict[str, float]:
        """One step on the parts of so many lanes."""
        recipe, settings = self.settings.recipe, self.settings
        self.network.train()
        rate = recipe.rate(self.step, settings.steps, self.task.fine_tuning)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        inputs = self.task.inputs(batch)
        low = self.task.autocast and recipe.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low):
            output = module(inputs)
        loss, terms = self._mean_loss(output, batch, lanes)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        trained = [p for p in self.part.parameters() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(trained, recipe.clip or math.inf)
        figures = self._checked_figures({"loss": loss, "gradient": norm, **terms})
        self.optimizer.step()
        self.step += 1
        self.images_seen += len(inputs) * parallel.world_size()
        self._update_average()
        return {**figures, "rate": rate}

    def _mean_loss(self, output: Any, batch: Batch, lanes: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over lanes: each counts its own labels, so that it does not matter which process
        a lane is on."""
        parts = [self._loss(_part(output, i, lanes), _part(batch, i, lanes)) for i in range(lanes)]
        loss = torch.stack([loss for loss, _ in parts]).mean()
        return loss, {k: torch.stack([t[k] for _, t in parts]).mean() for k in parts[0][1]}

    def _checked_figures(self, figures: dict[str, Tensor]) -> dict[str, float]:
        """What is told of a step. All processes stop here together, before a step would spoil the
        weights of any.

        It is the one place where a step waits for the device: everything comes in one copy.
        """
        values = torch.stack([value.detach().float() for value in figures.values()])
        usual = median(self._recent) if len(self._recent) == RECENT else math.inf
        bad = (values[0] > DIVERGED * usual) | ~values[:2].isfinite().all()
        *told, stop = torch.cat([values, parallel.any_of(bad)[None]]).tolist()
        self._recent.append(told[0])
        if stop:
            raise DivergedError(
                f"the {_culprit(told[0], told[1], usual)} at batch {self.step}; the last "
                "checkpoint is whole: resume from it with a lower learning rate"
            )
        return dict(zip(figures, told, strict=True))

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average is None or self.settings.recipe.average is None:
            return
        # A young average follows quickly, or it would remember the random start.
        keep = min(self.settings.recipe.average, (1 + self.step) / (10 + self.step))
        fresh, old = self.network.state_dict(), self.average.state_dict()
        real = [name for name, value in old.items() if value.is_floating_point()]
        counts = [name for name, value in old.items() if not value.is_floating_point()]
        # A few kernels for all tensors: one for each would take longer than their work.
        torch._foreach_lerp_([old[n] for n in real], [fresh[n] for n in real], 1 - keep)
        if counts:
            torch._foreach_copy_([old[n] for n in counts], [fresh[n] for n in counts])

    def evaluate(self) -> dict[str, float]:
        """Errors of what would be shipped, as ``<set>_<figure>``; see `validate`."""
        part = self.task.part(self.evaluated)
        figures: dict[str, float] = {}
        for name, crops in self.validation.items():
            errors = self.task.errors(part, crops, self.device)
            figures |= {f"{name}_{key}": value for key, value in errors.items()}
        return figures

    def _tell(self, batch: Batch, bar: tqdm[Any]) -> None:
        """Evaluate, into the log and above the bar; and show what is trained on."""
        figures = self.evaluate()
        if figures:
            self.monitor.scalars({"step": self.step, "images": self.images_seen, **figures})
            words = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            bar.write(f"{self.task.name}, batch {self.step}: {words}", file=sys.stderr)
        self._show(batch)

    def _show(self, batch: Batch) -> None:
        """A grid of what is trained on, and what the network makes of it."""
        if "images" in batch and self.monitor.shows_pictures:
            from .grids import training_grid  # draws with OpenCV

            picture = training_grid(self.evaluated, batch)
            self.monitor.picture("batch", picture, self.step)


def _culprit(loss: float, norm: float, usual: float) -> str:
    for name, value in (("loss", loss), ("norm of the gradient", norm)):
        if not math.isfinite(value):
            return f"{name} is {value}"
    if loss > DIVERGED * usual:
        return f"loss is {loss:g}, {DIVERGED} times what it was"
    return "loss of another process is not finite or far too large"


def _part(value: Any, index: int, of: int) -> Any:
    """The index-th of so many equal parts of every tensor in a batch or an output."""
    if isinstance(value, Tensor):
        return value.chunk(of)[index] if of > 1 else value
    if isinstance(value, dict):
        return {k: _part(v, index, of) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_part(v, index, of) for v in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_part(v, index, of) for v in value)
    return value
