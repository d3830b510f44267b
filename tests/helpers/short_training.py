"""A training of a tiny network on few made-up surroundings, and a script that runs it.

python short_training.py FOLDER STEPS LANES RECIPE
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from handmesh.nn import LightConfig, StageConfig
from handmesh.nn.config import DecoderConfig
from handmesh_training import parallel
from handmesh_training.augment import Augmentation
from handmesh_training.lanes import batches
from handmesh_training.losses import LossWeights
from handmesh_training.opencv import use_one_thread
from handmesh_training.recipe import Recipe
from handmesh_training.rendered import RenderSettings
from handmesh_training.rendering import EnvironmentSet, SkinSet
from handmesh_training.sources import Batch
from handmesh_training.stream import CropStream
from handmesh_training.stream_settings import StreamSettings
from handmesh_training.tasks import full_task
from handmesh_training.train import Trainer, TrainSettings

# See the fixture `tiny_config`.
TINY = LightConfig(
    input_size=64,
    stem_channels=8,
    stages=tuple(StageConfig("fused", width, 1, 2.0) for width in (8, 16, 16, 24)),
    pyramid_channels=(16, 16, 16),
    pyramid_depth=(1, 1, 1),
    joint_channels=8,
    global_channels=8,
    latent=32,
    decoder=DecoderConfig(8, (8, 8), 8, 3, (4, 4), (4, 4), 16, True),
)
BATCH = 8


class Plain(Recipe):
    """Without Adam, which divides by the gradient's size: where that is near 0, rounding decides a
    step's sign."""

    def optimizer_of(self, parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
        wanted = [p for p in parameters if p.requires_grad]
        return torch.optim.SGD(wanted, self.learning_rate)


RECIPES = {"adamw": Recipe, "sgd": Plain}


def few_surroundings() -> None:
    """In a process of its own, as the fixture `quick_surroundings` does in the tests'."""
    environments, plain = EnvironmentSet.procedural(0, count=2, height=32), SkinSet.procedural
    EnvironmentSet.procedural = lambda *_: environments  # type: ignore
    SkinSet.procedural = lambda seed, count, mesh, *_: plain(seed, 2, mesh, size=32)  # type: ignore


def train(folder: Path, steps: int, lanes: int, recipe: str = "adamw") -> None:
    """Every step is told, and a checkpoint written after each."""
    use_one_thread()
    stream = StreamSettings(
        batch=BATCH // lanes,
        pool=32,
        chunk=16,
        render=RenderSettings(crop_px=80),
        augment=Augmentation(input_size=TINY.input_size),
    )
    settings = TrainSettings(
        steps=steps,
        recipe=RECIPES[recipe](batch=BATCH, warmup=2, precision="fp32", learning_rate=1e-3),
        lanes=lanes,
        report=1,
        evaluate=1000,
        checkpoint_seconds=0.0,
        tensorboard=False,
    )

    def open_batches(own: list[int], of: int, start: int) -> Iterator[Batch]:
        return batches(CropStream(stream, 3), own, of, start)

    with parallel.process_group("cpu") as device:
        trainer = Trainer(TINY, settings, folder, full_task(LossWeights()), device=device)
        trainer.run(open_batches)


if __name__ == "__main__":
    few_surroundings()
    train(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
