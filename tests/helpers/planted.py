"""Labelled hands out of a random generator, and an estimator whose errors are known in advance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handmesh_training.datasets import Sample
from handmesh_training.estimators import Estimate, Query
from handmesh_training.protocols import Protocol

Array = NDArray[np.float64]
ALL = np.ones(21, dtype=bool)


def hand(index: int, known: NDArray[np.bool_] = ALL) -> Sample:
    """Random joints a metre away, with a cloud of 40 vertices; the grey value is the number."""
    rng = np.random.default_rng(index)
    joints_m = rng.normal(0, 0.04, (21, 3)) + (0, 0, 1.0)
    vertices_m = rng.normal(0, 0.05, (40, 3)) + (0, 0, 1.0)
    K = np.array([[300.0 + index, 0, 80], [0, 300.0 + index, 60], [0, 0, 1]])
    projected = joints_m @ K.T
    return Sample(
        key=str(index),
        image=np.full((120, 160, 3), index, dtype=np.uint8),
        is_right=index % 2 == 0,
        joints_px=np.where(known[:, None], projected[:, :2] / projected[:, 2:], np.nan),
        joint_known=known,
        intrinsics=K,
        joints_m=np.where(known[:, None], joints_m, np.nan),
        vertices_m=vertices_m.astype(np.float32),
        our_mesh=True,
    )


class Planted:
    """Answers with the labels after ``move``; with nonsense for joints that are not known."""

    def __init__(
        self,
        samples: Sequence[Sample],
        move: Callable[[Array], Array] = lambda x: x,
        offset_share: float = 0.0,
        missed: Sequence[int] = (),
        **other: Any,
    ) -> None:
        self.samples = {int(sample.key): sample for sample in samples}
        self.move, self.offset_share, self.missed, self.other = move, offset_share, missed, other
        self.description = {"kind": "planted", "name": "planted", "sha256": "0"}
        self.asked: list[Query] = []
        self.batches: list[int] = []

    def require(self, protocol: Protocol) -> None: ...

    def estimate(self, queries: Sequence[Query]) -> list[Estimate | None]:
        self.batches.append(len(queries))
        self.asked += queries
        return [self._answer(self.samples[int(query.image[0, 0, 0])]) for query in queries]

    def _answer(self, sample: Sample) -> Estimate | None:
        if int(sample.key) in self.missed:
            return None
        side = np.ptp(sample.joints_px[sample.joint_known], axis=0).max()
        joints = np.ones((21, 3)) if sample.joints_m is None else self.move(sample.joints_m)
        vertices = np.empty((0, 3))
        if sample.vertices_m is not None:
            vertices = self.move(np.float64(sample.vertices_m))
        made = Estimate(
            joints_px=np.nan_to_num(sample.joints_px, nan=1e6) + [0, self.offset_share * side],
            joints_m=np.nan_to_num(joints, nan=9.0),
            vertices_m=vertices,
            handedness="right",
            presence=0.9 if int(sample.key) else 0.1,
        )
        return replace(made, **self.other)
