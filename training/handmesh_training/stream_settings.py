"""How batches are made, whatever makes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from handmesh.errors import InputError

from .augment import Augmentation
from .pool import Pool
from .rendered import RenderSettings


@dataclass(frozen=True)
class StreamSettings:
    """How batches are made.

    Attributes:
        batch: crops a batch.
        photo_share: share of each batch taken from photos and data sets, if there are any; each
            hand of theirs is as likely as any other.
        photos: photo sets (see `photos`), held in memory.
        datasets: data sets as LAYOUT:SPLIT:FOLDER (see `datasets`), read as they are drawn.
        reuse: how often each rendered crop is drawn before it is replaced, at least 1; every draw
            is augmented anew. Rendering costs a good part of a training step on a CPU.
        pool: rendered crops held at a time by each worker.
        chunk: crops rendered at a time; best a multiple of `rendered.BLOCK`.
        shards: folder of a sharded set to draw from, instead of rendering; its crops must be of
            ``render``'s size and margin. Each sample is read once an epoch, over all workers.
        render: of the stored crops. augment: from those to network inputs.

    Raises:
        InputError: settings that contradict each other, or so small a batch that what there is
            of photos and data sets has no part in it.
    """

    batch: int = 64
    photo_share: float = 0.25
    photos: tuple[Path, ...] = ()
    datasets: tuple[str, ...] = ()
    reuse: float = 3.0
    pool: int = 6144
    chunk: int = 256
    shards: Path | None = None
    render: RenderSettings = field(default_factory=RenderSettings)
    augment: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if (self.photos or self.datasets) and self.photo_share > 0 and not self.others_per_batch:
            raise InputError(
                f"of the {self.batch} crops of a batch's part, a share of {self.photo_share:g} "
                "rounds to none: photos and data sets would never be drawn; take fewer --lanes or "
                "--workers, or a larger --batch, or leave --photos and --data out"
            )
        if self.others_per_batch >= self.batch:
            raise InputError(f"photo_share {self.photo_share} leaves no room for rendered hands")
        if self.augment.stored_margin != self.render.margin:
            raise InputError(
                f"crops are stored with margin {self.render.margin}, but augment.stored_margin is "
                f"{self.augment.stored_margin}; give both the same"
            )
        self.new_pool(seed=0)  # which checks the other numbers

    @property
    def others_per_batch(self) -> int:
        """Crops of each batch that come from photos and data sets."""
        return round(self.batch * self.photo_share) if self.photos or self.datasets else 0

    def new_pool(self, seed: int, worker: int = 0, workers: int = 1) -> Pool:
        """The bookkeeping of one worker's pool."""
        drawn = self.batch - self.others_per_batch
        return Pool(self.pool, self.chunk, drawn, self.reuse, seed, worker, workers)
