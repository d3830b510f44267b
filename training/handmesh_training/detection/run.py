"""`handmesh train detector`: layers are rendered, then the detector is trained on scenes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from handmesh.atomic import write_atomic
from handmesh.nn import DetectorConfig

from .. import parallel
from ..lanes import batches
from ..opencv import cv2
from ..render_settings import RenderSettings
from ..sources import Batch, to_input
from ..stages import starting_from
from ..train import Loss, Task, Trainer, TrainSettings
from .sheet import contact_sheet
from .stream import Scenes, SceneStream, batch_of
from .supplies import SupplySettings, prepared
from .targets import DetectionWeights, detection_loss
from .validate import detection_errors

STAGE = "detector"
# Scenes that are watched are composed by another seed, of what the others are composed of.
_WATCHED_SEED = 987_654
# Of them, so many are drawn on a sheet in the run's folder.
_SHOWN = 60


@dataclass(frozen=True)
class DetectorRun:
    """Everything that a training of the detector is made of.

    Attributes:
        folder: of the run: layers, checkpoint, log.
        look: skins and environments to render with.
        photos: sets of labelled photos to adapt to.
        config: of the network. settings: of the optimisation. weights: of the loss.
        cut_outs: samples that cut-outs are made of. pictures: rendered pictures.
        watched: scenes that are looked at now and then. They are other compositions of the same
            cut-outs, pictures, photos and panoramas that are trained on: their figures tell how the
            training goes, not how unknown hands are found.
        device: "cpu" or "cuda". workers: loader processes. minutes: stop after so long.
        start_from: weights of a bundle, or a checkpoint, to begin with.
    """

    folder: Path
    look: RenderSettings
    photos: Sequence[Path] = ()
    config: DetectorConfig = field(default_factory=DetectorConfig)
    settings: TrainSettings = field(default_factory=TrainSettings)
    weights: DetectionWeights = field(default_factory=DetectionWeights)
    cut_outs: int = 7168
    pictures: int = 4096
    watched: int = 512
    device: str = "cpu"
    workers: int = 1
    minutes: float = math.inf
    start_from: Path | None = None


def detector_task(weights: DetectionWeights) -> Task:
    """What a `Trainer` trains of a detector."""

    def make(device: torch.device) -> Loss:
        def loss(grid: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            return detection_loss(grid, batch["hands"], weights)

        return loss

    def whole(network: nn.Module) -> nn.Module:
        return network

    return Task(
        STAGE, whole, make, detection_errors, lambda batch: to_input(batch["pictures"]),
        terms=asdict(weights),
    )  # fmt: skip


def train_detector(run: DetectorRun) -> Trainer:
    """Train, or go on; as `Trainer.run`, whose errors it raises.

    Raises:
        InputError: no folder of panoramas, or supplies that do not hold what they should.
        CheckpointError, BundleError: ``start_from`` cannot be read, or is of another network.
    """
    folder, seed, side = run.folder / STAGE, run.settings.seed, run.config.input_size
    if parallel.rank() == 0:
        _prepared(run)
    parallel.wait_for_all()
    supplies = _prepared(run)
    watched = batch_of(supplies.open(), side, run.watched, _WATCHED_SEED, 0, 0)
    if parallel.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        sheet = contact_sheet(Scenes(watched.pictures[:_SHOWN], watched.labels[:_SHOWN]))
        write_atomic(folder / "scenes.png", cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
    trainer = Trainer(
        run.config, run.settings, folder, detector_task(run.weights), {"scenes": watched},
        run.device, prepare=None if run.start_from is None else starting_from(run.start_from),
    )  # fmt: skip
    stream = SceneStream(supplies, side, run.settings.lane_batch, seed)

    def open_batches(own: list[int], of: int, start: int) -> Iterator[Batch]:
        return batches(stream, own, of, start, run.workers)

    trainer.run(open_batches, run.minutes)
    return trainer


def _prepared(run: DetectorRun) -> SupplySettings:
    layers, seed = run.folder / "layers", run.settings.seed
    return prepared(layers, run.look, run.photos, seed, run.cut_outs, run.pictures)
