"""What the studies share: two domains of rendered hands, trainings that are made once, and errors.

The first domain is what networks are pretrained on. The second stands in for a real RGB-D set:
hands of another build or of another model, other skins and places, seen by a noisy depth camera;
true meshes are known, so that what weak supervision does to the surface can be measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from handmesh.atomic import write_atomic
from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.types import CROP_MARGIN

from .. import metrics
from ..augment import Augmentation
from ..checkpoint import FILE, describe_network, load_network, read_checkpoint, write_checkpoint
from ..cropped_set import CroppedSet, build
from ..cropped_stream import FAR_BONES, CroppedSettings, CroppedStream
from ..hand import HandModel
from ..heads import HeadName, build_network, skin_joints
from ..lanes import batches
from ..losses import PAPER, LossWeights
from ..pseudo_meshes import make_pseudo_meshes
from ..recipe import Recipe
from ..rendered import HandRenderer, RenderSettings
from ..shards.manifest import engine_sha256, file_sha256
from ..sources import Batch, to_input
from ..stages import (
    HEATMAPS,
    POSE,
    Run,
    starting_from,
    take_heatmaps,
    take_regressor,
    train_pose_regressor,
)
from ..stand_in import DepthSensor, RenderedSamples
from ..tasks import full_task, heatmap_task, weak_task
from ..train import Task, Trainer, TrainSettings
from ..weak_losses import WeakWeights
from .hands import Hands, roughness
from .networks import CONFIGS, RECIPE, STARTED, trained_network

MARGIN, DEPTH_PX, MM = 1.9, 64, 1000.0
# What a training took, beside its checkpoint; not there if it was stopped in between.
COST = "cost.json"
# Among the settings of a folder: which sources its hands and trainings are of.
ENGINE = "engine"
# Batches of the pose regressor's training.
POSE_STEPS = 400
# Seeds of the four sets.
TRAINING, SHIFTED_TRAINING, VALIDATION, SHIFTED_VALIDATION = 101, 202, 303, 404
# The second domain's people, where no other hand is given: shorter, thicker fingers and broader
# hands than the first has.
SHIFT = (("finger_length", -0.9), ("finger_diameter", 1.2), ("hand_scale", -0.4), ("weight", 0.8))


@dataclass(frozen=True)
class LabSettings:
    """How large the studies are.

    Attributes:
        network: "light" or "paper", in small, from nothing. start_from: a bundle, or a checkpoint,
            whose network takes its place: what compares heads or losses begins with its trunk, the
            latent included, and with a head from nothing; what compares fine-tunings, with all of
            it. hands: of the first domain. shifted: of the second.
        validation: hands that are measured, of each. heatmap_steps, steps, tuning_steps: batches
            of stages (a), which a trained trunk has behind it, (c), and (d) and (f).
        skins, environments: of the second domain; made up where not given, as the first's are.
        other_hand: of the second domain, with its own skins, see `other_hand.OtherHand`; None for
            this project's.

    Raises:
        InputError: a count below 1.
    """

    network: str = "light"
    start_from: str | None = None
    hands: int = 12_000
    shifted: int = 3_000
    validation: int = 600
    heatmap_steps: int = 300
    steps: int = 800
    tuning_steps: int = 250
    skins: Path | None = None
    environments: Path | None = None
    other_hand: Path | None = None

    def __post_init__(self) -> None:
        for name in ("hands", "shifted", "validation", "heatmap_steps", "steps", "tuning_steps"):
            value = getattr(self, name)
            if value < 1 and not (name == "heatmap_steps" and self.start_from is not None):
                raise InputError(
                    f"{name} must be at least 1, not {value}: give --{name.replace('_', '-')} N"
                )


@dataclass(frozen=True, eq=False)
class Errors:
    """What a network was measured to do.

    Attributes:
        figures: ``pose`` and, of a network with a mesh, ``mesh`` in mm; ``AUC`` of the joints, 20
            to 50 mm; ``roughness``, how much rougher the surface is than the true one, in mm.
        joints_mm: (N, 21) of each joint.
    """

    figures: dict[str, float]
    joints_mm: NDArray[np.float64]


class Lab:
    """Sets and trainings in a folder, made when they are first asked for."""

    def __init__(self, folder: Path, settings: LabSettings) -> None:
        """
        Raises:
            InputError: the folder holds studies of another size, network or weights, or by other
                sources; both skins and another hand, or a folder that does not hold what it should.
            ImageError: a skin or panorama that is none.
            BundleError, CheckpointError: of ``start_from``.
        """
        self.folder, self.settings = folder, settings
        self.config, self.start, self.recipe = CONFIGS[settings.network], None, RECIPE
        if settings.start_from is not None:
            self.config, self.start = trained_network(settings.start_from)
            self.recipe = STARTED
        side = self.config.input_size
        self.first = RenderSettings(crop_px=side * 5 // 4, margin=MARGIN, empty=0.0)
        self.second = replace(
            self.first,
            skins=settings.skins,
            environments=settings.environments,
            shape_shift=SHIFT,
            other_hand=settings.other_hand,
        )
        if any((settings.skins, settings.environments, settings.other_hand)):
            HandRenderer(self.second, SHIFTED_VALIDATION)  # fails now, not after hours of training
        self._complete: set[Path] = set()
        self._claim()

    def _claim(self) -> None:
        """Figures of one folder are all of the same settings, weights and sources."""
        wanted, default = (
            json.loads(json.dumps(asdict(s), default=str)) for s in (self.settings, LabSettings())
        )
        wanted["start_from"] = None if self.start is None else file_sha256(self.start)
        wanted[ENGINE] = engine_sha256()
        path = self.folder / "settings.json"
        if path.exists():
            # A setting that is not named there is newer than the studies.
            stored = {**default, **json.loads(path.read_text())}
            differing = [name for name in wanted if stored.get(name) != wanted[name]]
            if differing == [ENGINE]:
                raise InputError(
                    f"{self.folder} holds studies by other sources than this handmesh has ({path}),"
                    " whose hands and trainings are not comparable: delete the folder, or give "
                    "another"
                )
            if differing:
                raise InputError(
                    f"{self.folder} holds studies with other settings or weights ({path}: "
                    f"{', '.join(differing)}): give the same, delete the folder, or give another"
                )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (json.dumps(wanted, indent=2) + "\n").encode())

    @cached_property
    def training(self) -> CroppedSet:
        """The first domain, with meshes."""
        return self._set("rendered", self.first, TRAINING, self.settings.hands)

    @cached_property
    def shifted(self) -> CroppedSet:
        """The second domain, with the depth camera's pictures; its 3D joints are labelled, and left
        aside by losses that do not ask for them."""
        return self._set("shifted", self.second, SHIFTED_TRAINING, self.settings.shifted)

    def _set(self, name: str, look: RenderSettings, seed: int, count: int) -> CroppedSet:
        samples = RenderedSamples(look, seed, count, DepthSensor())
        vertices = Topology.default().vertex_count
        return build(
            [samples], self.folder / "data" / name, look.crop_px, MARGIN, DEPTH_PX, vertices
        )

    @cached_property
    def validation(self) -> dict[str, Hands]:
        """Hands of both domains that no training sees."""
        self.folder.mkdir(parents=True, exist_ok=True)
        looks = {"first": (self.first, VALIDATION), "second": (self.second, SHIFTED_VALIDATION)}
        return {name: self._hands(look, seed) for name, (look, seed) in looks.items()}

    def _hands(self, look: RenderSettings, seed: int) -> Hands:
        closer = replace(look, crop_px=self.config.input_size, margin=CROP_MARGIN)
        records = HandRenderer(closer, seed).records(range(self.settings.validation))
        return Hands(
            np.stack([r.image for r in records]),
            np.stack([r.intrinsics for r in records]).astype(np.float64),
            np.stack([r.joints_m for r in records]).astype(np.float64),
            np.stack([r.vertices_m for r in records]).astype(np.float64),
        )

    def train(
        self,
        folder: Path,
        task: Task,
        data: CroppedSet,
        seed: int,
        steps: int,
        head: HeadName = "mesh",
        prepare: Callable[[nn.Module], None] | None = None,
        recipe: Recipe | None = None,
        pseudo: Path | None = None,
    ) -> Path:
        """One training; returns its checkpoint. One that is complete is not made again."""
        recipe = self.recipe if recipe is None else recipe
        path = folder / FILE
        if self._is_complete(path, steps):
            return path
        settings = TrainSettings(
            steps, recipe, seed, 1, report=50, evaluate=steps + 1, tensorboard=False
        )
        # Right hands, in the picture, and turned as those are that are measured.
        augment = Augmentation(
            self.config.input_size, MARGIN, wide=0, misses=0, left=0, occluders=0.1,
            upright=0, anyhow=0, rotation=0.15, cut=0,
        )  # fmt: skip
        stream = CroppedStream(
            CroppedSettings(data.folder, recipe.batch, pseudo, augment=augment), seed
        )
        trainer = Trainer(self.config, settings, folder, task, head=head, prepare=prepare)

        def open_batches(own: list[int], of: int, start: int) -> Iterator[Batch]:
            return batches(stream, own, of, start)

        fresh, began = trainer.step == 0, time.process_time()
        trainer.run(open_batches)
        if fresh:
            cost = {"cpu_seconds": time.process_time() - began}
            write_atomic(folder / COST, (json.dumps(cost) + "\n").encode())
        return path

    def _is_complete(self, path: Path, steps: int) -> bool:
        """Whether a training has left so many batches' checkpoint. Studies ask again and again, and
        a checkpoint takes long to read: of one that is complete, that is known from then on."""
        if path not in self._complete:
            if not path.exists() or int(read_checkpoint(path, resumed=True)["step"]) < steps:
                return False
            self._complete.add(path)
        return True

    def regressor(self) -> Path:
        """The pose regressor of all networks with a mesh; linear, and the same for every seed."""
        run = Run(
            self.folder / "shared",
            self.config,
            settings=TrainSettings(recipe=self.recipe, tensorboard=False),
            pose_steps=POSE_STEPS,
            workers=0,
        )
        path = run.checkpoint(POSE)
        # One that was stopped goes on: it is fixed from here on, and half trained it would stay so.
        if not self._is_complete(path, run.pose_steps):
            train_pose_regressor(run)
        return path

    def heatmaps(self, seed: int, recipe: Recipe) -> Path:
        """Stage (a)."""
        folder = self.folder / "shared" / f"{HEATMAPS}-{recipe.optimizer}" / f"seed{seed}"
        steps = self.settings.heatmap_steps
        return self.train(folder, heatmap_task(), self.training, seed, steps, recipe=recipe)

    def pretrained(
        self,
        seed: int,
        head: HeadName = "mesh",
        weights: LossWeights = PAPER,
        name: str = "full",
        recipe: Recipe | None = None,
    ) -> Path:
        """Stage (c) after (a) and (b)."""
        recipe = self.recipe if recipe is None else recipe
        heatmaps = self.heatmaps(seed, recipe) if self.start is None else None

        def prepare(network: nn.Module) -> None:
            if self.start is not None:
                starting_from(self.start, trunk_only=True)(network)
            elif heatmaps is not None:
                take_heatmaps(network, heatmaps)
            if head == "mesh":
                take_regressor(network, self.regressor())

        folder = self.folder / "shared" / f"{name}-{head}" / f"seed{seed}"
        steps = self.settings.steps
        return self.train(
            folder, full_task(weights), self.training, seed, steps, head, prepare, recipe
        )

    def whole(self) -> Path | None:
        """The network of ``start_from`` as it is, for fine-tuning; None where there is none.

        Raises:
            InputError: it has another head than the mesh.
        """
        if self.start is None:
            return None
        if self.start.suffix == ".pt":
            if load_network(self.start).head != "mesh":
                raise InputError(f"{self.start} makes no mesh that depth maps could be held to")
            return self.start
        path = self.folder / "shared" / "started" / FILE
        if not path.exists():
            network = build_network(self.config, Topology.default(), "mesh")
            starting_from(self.start)(network)
            state = {**describe_network(self.config, "mesh"), "average": network.state_dict()}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_checkpoint(path, state)
        return path

    def tuned_heatmaps(self, seed: int, head: HeadName = "mesh", start: Path | None = None) -> Path:
        """Stage (d) after (c), or after ``start``, all of whose weights it begins with."""
        name = f"{_of(start)}tuned-heatmaps-{head}"
        start = start or self.pretrained(seed, head)
        return self.train(
            self.folder / "shared" / name / f"seed{seed}", heatmap_task(True), self.shifted, seed,
            self.settings.tuning_steps, head, starting_from(start),
        )  # fmt: skip

    def pseudo(self, seed: int, start: Path | None = None) -> Path:
        """Stage (e), by the network of (c), or of ``start``."""
        name = f"seed{seed}.npy" if start is None else "all.npy"
        path = self.folder / "shared" / f"{_of(start)}pseudo" / name
        if not path.with_suffix(".json").exists():  # it is written last
            start = start or self.pretrained(seed)
            make_pseudo_meshes(
                load_network(start).network, start, self.shifted, path, self.config.input_size,
                self.config.heatmap_size, torch.device("cpu"),
            )  # fmt: skip
        return path

    def weakly(
        self,
        seed: int,
        weights: WeakWeights,
        name: str,
        start: Path | None = None,
    ) -> Path:
        """Stage (f) after (d) and (e); without pseudo meshes where their weight is 0."""
        folder = self.folder / "shared" / f"{_of(start)}{name}" / f"seed{seed}"
        pseudo = self.pseudo(seed, start) if weights.pseudo_mesh else None
        return self.train(
            folder, weak_task(weights, FAR_BONES, pseudo=pseudo), self.shifted, seed,
            self.settings.tuning_steps,
            prepare=starting_from(self.tuned_heatmaps(seed, start=start)), pseudo=pseudo,
        )  # fmt: skip

    def predict(self, checkpoint: Path, hands: Hands) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Joints (N, 21, 3) and vertices (N, V, 3) in metres; None for a network without a mesh."""
        loaded = load_network(checkpoint)
        found_joints, found_vertices = [], []
        with torch.no_grad():
            for first in range(0, len(hands.images), 64):
                images = torch.from_numpy(hands.images[first : first + 64])
                output = loaded.network(to_input(images))
                found_joints.append(output.joints.float().numpy())
                found_vertices.append(output.vertices.float().numpy())
        joints = hands.lift(np.concatenate(found_joints))
        if loaded.head == "lbs":
            with torch.no_grad():
                posed = skin_joints(HandModel(blending="linear"), torch.from_numpy(joints).float())
            return joints, posed.numpy()
        vertices = np.concatenate(found_vertices)
        return joints, hands.lift(vertices) if vertices.shape[1] else None

    def errors(self, checkpoint: Path, domain: str = "first") -> Errors:
        """Of a network on hands that no training sees, root and scale given."""
        hands = self.validation[domain]
        joints, vertices = self.predict(checkpoint, hands)
        each = np.linalg.norm(joints - hands.joints_m, axis=-1) * MM
        figures = {"pose": float(each.mean()), "AUC": metrics.auc(each, 20.0, 50.0)}
        if vertices is not None:
            offsets = (vertices - hands.vertices_m) * MM
            figures["mesh"] = float(np.linalg.norm(offsets, axis=-1).mean())
            figures["roughness"] = roughness(offsets)
        return Errors(figures, each)


def _of(start: Path | None) -> str:
    """Before the names of what is fine-tuned from a whole network."""
    return "" if start is None else "whole-"
