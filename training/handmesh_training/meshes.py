"""True meshes without pictures: what the pose regressor is trained on, alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .hand import HandModel
from .samples import Crops
from .sampling import HandViews, sample_views
from .seeds import Purpose, generator
from .sources import Batch

CROP_PX, MARGIN = 128, 1.5
# Views are drawn this many batches at a time.
CHUNK = 16


class MeshStream:
    """Batches of `vertices` (B, V, 3), `joints` (B, 21, 3) and `crop_in_bones` (B,): a
    `lanes.LaneSource`.

    Args:
        batch: meshes of one lane's part of a batch. seed: of all of them.
    """

    def __init__(self, batch: int, seed: int) -> None:
        self.batch = batch
        self.seed = seed

    def lane(self, number: int, of: int, start: int) -> Iterator[Batch]:
        """Parts of one lane."""
        model = HandModel()
        chunk, skipped = divmod(start, CHUNK)
        while True:
            rng = generator(self.seed, Purpose.POSE_REGRESSOR, number, of, chunk)
            views = sample_views(rng, model, CHUNK * self.batch, CROP_PX, MARGIN)
            for place in range(skipped, CHUNK):
                rows = slice(place * self.batch, (place + 1) * self.batch)
                yield {
                    name: torch.from_numpy(getattr(views, name)[rows])
                    for name in ("vertices", "joints", "crop_in_bones")
                }
            chunk, skipped = chunk + 1, 0


def unseen_meshes(seed: int, count: int = 512) -> Crops:
    """Meshes that no `MeshStream` of that seed holds, as crops without pictures."""
    rng = generator(seed, Purpose.UNSEEN_MESHES)
    views: HandViews = sample_views(rng, HandModel(), count, CROP_PX, MARGIN)
    crops = Crops.empty(count, 1, views.vertices.shape[1])
    crops.joints[:], crops.vertices[:] = views.joints, views.vertices
    crops.crop_in_bones[:] = views.crop_in_bones
    for flags in (crops.has_hand, crops.has_joints, crops.has_depth, crops.has_mesh):
        flags[:] = True
    return crops
