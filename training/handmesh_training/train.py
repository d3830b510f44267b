"""Training of one network end to end: losses, schedule, checkpoints, monitoring.

As in the paper (section 4.3) the linear pose regressor is trained first, by itself, on true meshes;
it is then kept fixed and collapsed into one affine map. The rest is trained end to end by
`objective`: the paper's L_fully (Eq. 6), and what the `light` network's other heads need. A run is
resumable at any time: checkpoints hold weights, their moving average, the optimiser and the number
of batches consumed, and are replaced atomically.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from handmesh.atomic import replacing
from handmesh.errors import CheckpointError, DivergedError
from handmesh.graph import Topology
from handmesh.nn import NetworkConfig, NetworkOutput, build, from_dict, load_weights, to_dict

from . import losses, parallel
from .device_stream import DeviceStream
from .hand import HandModel
from .metrics import box_normalised_error, procrustes_error, root_aligned_error
from .samples import Crops
from .sampling import sample_views
from .seeds import Purpose, generator
from .stream import Batch, CropStream, StreamSettings, loader

# Middle finger's MCP to PIP of the template: what one "bone" is when errors are told in mm.
BONE_MM = 47.0
USUAL_CROP_IN_BONES = 6.5
# Batches between looks at the clock, which all processes must agree on.
STOP_EVERY = 20


@dataclass(frozen=True)
class TrainSettings:
    """One training run.

    Attributes:
        steps: batches in all. warmup: batches of linear warm-up. decay: batches at the end over
            which the learning rate falls to zero; in between it is constant.
        learning_rate, weight_decay: of AdamW. clip: largest gradient norm.
        average: decay of the weights' moving average, which is what is evaluated and shipped.
        seed: of weights and stream. workers: loader processes; 0, this process.
        draw_on_device: whether the training's device, a GPU, draws and augments the crops; else
            the loader's processes do, on the CPU.
        report, evaluate: batches between log lines, and between evaluations.
        checkpoint_seconds: between checkpoints.
        weights: of the losses. stream: how batches are made.
    """

    steps: int = 20_000
    warmup: int = 500
    decay: int = 6_000
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    clip: float = 10.0
    average: float = 0.999
    seed: int = 0
    workers: int = 1
    draw_on_device: bool = False
    report: int = 100
    evaluate: int = 1_000
    checkpoint_seconds: float = 180.0
    weights: losses.LossWeights = field(default_factory=losses.LossWeights)
    stream: StreamSettings = field(default_factory=StreamSettings)


def objective(
    output: NetworkOutput, batch: Batch, surface: losses.Surface, weights: losses.LossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its unweighted terms. Samples contribute to what they are labelled for.

    Args:
        output: of the network. batch: its labels, named like the fields of `Crops`.
        surface: of the network's mesh. weights: of the terms.
    """
    total, terms = losses.full_loss(output, batch, surface, weights)
    joints, flat, present = batch["joints"], batch["has_joints"].float(), batch["has_hand"]
    bend = None if weights.huber is None else weights.huber / USUAL_CROP_IN_BONES
    others = {"image": losses.point_loss_2d(output.joints, joints, flat, huber=bend)}
    if output.heatmap_uv is not None:
        others["heatmap_uv"] = losses.point_loss_2d(output.heatmap_uv, joints, flat, huber=bend)
    if output.confidence_logits is not None:
        others["confidence"] = losses.confidence_loss(
            output.confidence_logits, output.joints, joints, batch["has_joints"], present
        )
    if output.presence_logit is not None:
        others["presence"] = losses.presence_loss(output.presence_logit, present)
    if output.handedness_logit is not None:
        others["handedness"] = losses.handedness_loss(
            output.handedness_logit, batch["is_right"], present.float()
        )
    for name, term in others.items():
        total = total + getattr(weights, name) * term
    return total, terms | others


def to_input(images: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 to (B, 3, S, S) float32 in -0.5..0.5, channels last in memory."""
    return images.permute(0, 3, 1, 2).float().div_(255).sub_(0.5)


class Trainer:
    """Holds the state of a run; `run` goes on from wherever it is."""

    def __init__(
        self,
        config: NetworkConfig,
        settings: TrainSettings,
        folder: Path,
        validation: dict[str, Crops] | None = None,
        device: str = "cpu",
    ) -> None:
        """
        Args:
            config: of the network. settings: of the run. folder: for checkpoints and the log.
            validation: named sets of crops at the network's input size, all of hands, evaluated
                now and then. device: where torch computes.

        Raises:
            CheckpointError: ``folder`` holds a checkpoint that cannot be read or is of another
                network.
        """
        torch.manual_seed(settings.seed)
        self.config, self.settings, self.folder = config, settings, Path(folder)
        self.device = torch.device(device)
        self.validation = validation or {}
        self.topology = Topology.default()
        self.surface = losses.Surface.from_topology(self.topology).to(self.device)
        self.network = self._build()
        self.average = self._build().eval()
        self.average.load_state_dict(self.network.state_dict())
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": settings.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=(0.9, 0.98),
        )
        self._parallel = self.network
        self.step = 0
        self.images_seen = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint_path.exists():
            self.restore()

    def _build(self) -> nn.Module:
        network: nn.Module = build(self.config, self.topology)
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def checkpoint_path(self) -> Path:
        """Where checkpoints are written, whether there is one or not."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write a checkpoint; the old one stays whole until the new one is."""
        state = {
            "config": to_dict(self.config),
            "graph": self.topology.sha256,
            "step": self.step,
            "images_seen": self.images_seen,
            "pose_regressor_fixed": self._pose_regressor_is_fixed,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with replacing(self.checkpoint_path) as temporary:
            torch.save(state, temporary)

    def restore(self) -> None:
        """Go on from the folder's checkpoint.

        Raises:
            CheckpointError: it cannot be read, or is of another network or graph.
        """
        path = self.checkpoint_path
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            same = state["graph"] == self.topology.sha256
            same = same and from_dict(state["config"]) == self.config
            if same:
                self.network.load_state_dict(state["network"])
                self.average.load_state_dict(state["average"])
                self.optimizer.load_state_dict(state["optimizer"])
                self.step, self.images_seen = int(state["step"]), int(state["images_seen"])
                fixed = bool(state.get("pose_regressor_fixed", True))
        except Exception as error:  # damaged or foreign bytes make torch raise a dozen types
            raise CheckpointError(
                f"{path} is not a readable checkpoint ({error}); delete it to start anew"
            ) from error
        if not same:
            raise CheckpointError(
                f"{path} is of another network or graph; use another folder, or delete it"
            )
        if fixed:
            self._adopt_pose_regressor()

    def start_from(self, weights: Path) -> None:
        """Begin with trained weights (a bundle's ``weights.safetensors``) instead of random ones.

        Their pose regressor is kept fixed, as it was.

        Raises:
            CheckpointError: this run has already made steps.
            BundleError, GraphMismatchError: weights that cannot be read, or of another network.
        """
        if self.step:
            raise CheckpointError(
                f"{self.folder} holds a run of {self.step} batches already: it goes on from its "
                "own weights; use another folder to start from others"
            )
        load_weights(self.network, weights, self.config, self.topology)
        load_weights(self.average, weights, self.config, self.topology)
        self._adopt_pose_regressor()

    def learning_rate(self, step: int) -> float:
        """Of one step: linear warm-up, constant, then 1 - sqrt to nothing (Hägele et al. 2024)."""
        s = self.settings
        rate = s.learning_rate * min(1.0, (step + 1) / max(s.warmup, 1))
        left = s.steps - step
        if left < s.decay:
            rate *= 1 - math.sqrt(1 - left / s.decay)
        return rate

    def _batches(self, rank: int, world: int) -> Iterator[Batch]:
        s = self.settings
        if not s.draw_on_device:
            stream = CropStream(s.stream, s.seed, start=self.step, rank=rank, world=world)
            return iter(loader(stream, s.workers))
        device = self.device
        return iter(DeviceStream(s.stream, s.seed, device, s.workers, self.step, rank, world))

    @property
    def _pose_regressor_is_fixed(self) -> bool:
        regressor: Any = self.network.pose_regressor
        return regressor.collapsed_weight is not None

    def fit_pose_regressor(self, steps: int = 1200, batch: int = 64) -> float:
        """Train the pose regressor alone on true meshes, then freeze and collapse it.

        Args:
            steps: batches. batch: meshes in each.

        Returns:
            Its mean joint error on unseen meshes, in mm.
        """
        model, rng = HandModel(), generator(self.settings.seed, Purpose.POSE_REGRESSOR)
        regressor: Any = self.network.pose_regressor
        regressor.train()
        optimizer = torch.optim.Adam(regressor.parameters(), lr=1e-3)
        for step in tqdm(range(steps), desc="pose regressor", unit="batch"):
            if step % 16 == 0:
                views = sample_views(rng, model, 16 * batch, 128, 1.5)
            rows = slice(step % 16 * batch, (step % 16 + 1) * batch)
            vertices, joints, scale = (
                torch.from_numpy(a[rows]).to(self.device)
                for a in (views.vertices, views.joints, views.crop_in_bones)
            )
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * (1 - step / steps)
            loss = losses.pose_loss(regressor(vertices), joints, scale)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        regressor.freeze()
        views = sample_views(rng, model, 512, 128, 1.5)
        with torch.no_grad():
            found = regressor(torch.from_numpy(views.vertices).to(self.device)).cpu()
        scale = torch.from_numpy(views.crop_in_bones)
        miss = losses.to_metric_like(found, scale) - losses.to_metric_like(
            torch.from_numpy(views.joints), scale
        )
        self._adopt_pose_regressor()
        return float(miss.norm(dim=-1).mean()) * BONE_MM

    def _adopt_pose_regressor(self) -> None:
        """Fix the regressor; the averaged network uses the same one."""
        regressor: Any = self.network.pose_regressor
        averaged: Any = self.average.pose_regressor
        averaged.load_state_dict(regressor.state_dict())
        regressor.freeze()
        averaged.freeze()

    def run(self, minutes: float = math.inf) -> None:
        """Train until `steps`, or for so many minutes; a checkpoint is written either way.

        Raises:
            DivergedError: loss or gradient stopped being finite numbers; the last checkpoint is
                kept.
        """
        if not self._pose_regressor_is_fixed:
            self._log({"step": 0, "pose_regressor_mm": self.fit_pose_regressor()})
        began = last_save = time.monotonic()
        rank, world = parallel.rank(), parallel.world_size()
        self._parallel = parallel.synchronized(self.network, self.device)
        batches = self._batches(rank, world)
        sums: dict[str, float] = {}
        first = self.step
        lead = rank == 0
        with tqdm(
            total=self.settings.steps, initial=self.step, unit="batch", disable=not lead
        ) as bar:
            while self.step < self.settings.steps:
                late = time.monotonic() - began > 60 * minutes
                if self.step % STOP_EVERY == 0 and parallel.agreed(late, self.device):
                    break
                batch = {k: v.to(self.device, non_blocking=True) for k, v in next(batches).items()}
                for name, value in self._train_step(batch).items():
                    sums[name] = sums.get(name, 0.0) + value
                bar.update()
                if not lead:
                    continue
                if self.step % self.settings.report == 0:
                    row = {k: v / (self.step - first) for k, v in sums.items()}
                    bar.set_postfix(loss=f"{row['loss']:.3f}")
                    self._log({"step": self.step, "images": self.images_seen, **row})
                    sums, first = {}, self.step
                if self.step % self.settings.evaluate == 0:
                    self._log({"step": self.step, "images": self.images_seen, **self.evaluate()})
                if time.monotonic() - last_save > self.settings.checkpoint_seconds:
                    self.save()
                    last_save = time.monotonic()
        if lead:
            self.save()

    def _train_step(self, batch: Batch) -> dict[str, float]:
        self.network.train()
        rate = self.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images = to_input(batch["images"])
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            output = self._parallel(images)
        loss, terms = objective(output, batch, self.surface, self.settings.weights)
        value = float(loss.detach())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        trained = [p for p in self.network.parameters() if p.grad is not None]
        norm = float(nn.utils.clip_grad_norm_(trained, self.settings.clip))
        self._check_finite({"loss": value, "norm of the gradient": norm})
        self.optimizer.step()
        self.step += 1
        self.images_seen += len(images) * parallel.world_size()
        self._update_average()
        return {
            "loss": value,
            "gradient": norm,
            "rate": rate,
            **{k: float(v.detach()) for k, v in terms.items()},
        }

    def _check_finite(self, figures: dict[str, float]) -> None:
        """Stop all processes together, before a step would spoil the weights of any."""
        bad = [f"{name} is {value}" for name, value in figures.items() if not math.isfinite(value)]
        if parallel.any_of(bool(bad), self.device):
            culprit = bad[0] if bad else "loss of another process is not finite"
            raise DivergedError(
                f"the {culprit} at batch {self.step}; the last checkpoint is whole: resume from it "
                "with a lower learning rate"
            )

    @torch.no_grad()
    def _update_average(self) -> None:
        # A young average follows quickly, or it would remember the random start.
        keep = min(self.settings.average, (1 + self.step) / (10 + self.step))
        fresh = self.network.state_dict()
        for name, old in self.average.state_dict().items():
            if old.is_floating_point():
                old.lerp_(fresh[name], 1 - keep)
            else:
                old.copy_(fresh[name])

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Errors of the averaged weights on the validation sets.

        ``<set>_2d``: mean joint error over the side of the hand's box. For sets with depth also, in
        mm for a hand of 47 mm first bone and with weak perspective: ``_joints`` root-aligned,
        ``_joints_pa`` after Procrustes alignment; with our mesh, ``_mesh`` as ``_joints``.
        """
        figures: dict[str, float] = {}
        for name, crops in self.validation.items():
            parts: list[tuple[Any, Any]] = []
            for start in range(0, len(crops), 64):
                images = torch.from_numpy(crops.images[start : start + 64]).to(self.device)
                output = self.average(to_input(images))
                parts.append((output.joints.float().cpu(), output.vertices.float().cpu()))
            joints, vertices = (torch.cat(p) for p in zip(*parts, strict=True))
            truth = crops.joints
            figures[f"{name}_2d"] = float(
                box_normalised_error(joints[..., :2].numpy(), truth[..., :2]).mean()
            )
            if not crops.has_depth.all():
                continue
            scale = torch.from_numpy(crops.crop_in_bones)

            def metric(points: Tensor, scale: Tensor = scale) -> np.ndarray:
                return losses.to_metric_like(points, scale).numpy() * BONE_MM

            true_joints = metric(torch.from_numpy(truth))
            found = metric(joints)
            figures[f"{name}_joints"] = float(root_aligned_error(found, true_joints).mean())
            figures[f"{name}_joints_pa"] = float(procrustes_error(found, true_joints).mean())
            if not crops.has_mesh.all():
                continue
            mesh = metric(vertices) - found[:, :1]
            true_mesh = metric(torch.from_numpy(crops.vertices)) - true_joints[:, :1]
            figures[f"{name}_mesh"] = float(np.linalg.norm(mesh - true_mesh, axis=-1).mean())
        return figures

    def _log(self, row: dict[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
