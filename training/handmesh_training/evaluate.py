"""How good an estimator is on labelled hands, under a protocol that says what it is told of them.

Rendered hands, data sets and photos with a teacher all come as samples; what a sample does not tell
is not compared, and each figure says of how many hands it is. docs/evaluation.md has the formulas.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.types import FINGERS, ROOT_JOINT, UNIT_BONE, Box, Camera

from . import metrics
from .datasets import Sample
from .datasets.crops import locates_hand
from .estimators import BATCH, Estimate, Estimator, Query
from .evaluation_report import Alignment, Curve, Figure, Report, Unit
from .finding import FOUND_WITHIN
from .girth import FingerGirth
from .groups import INDEX, LITTLE, MIDDLE, GroupTally, view_of
from .protocols import Protocol

MM = 1000.0
F_THRESHOLDS_MM = (5.0, 15.0)
CURVE_MM = np.linspace(0.0, 50.0, 101)
# The smallest box that `Predictor.predict` takes, in pixels.
SMALLEST_BOX_PX = 4.0

# Boxes about the given one, which is the first: its size times these, moved right and down by
# these shares of it. What an app gives is hardly nearer.
BOXES = tuple(
    (size, right, down)
    for right, down in ((0.0, 0.0), (0.05, 0.03), (-0.05, 0.04), (0.03, -0.06))
    for size in (1.0, 0.88, 0.95, 1.12)
)

# Name, unit and alignment of the figures that are means over hands, in the order of a report.
FIGURES: tuple[tuple[str, Unit, Alignment | None], ...] = (
    ("found", "share", None),
    ("image_share", "share", None),
    ("image_px", "px", None),
    ("joints_mm", "mm", "none"),
    ("joints_root_mm", "mm", "root"),
    ("joints_pa_mm", "mm", "procrustes"),
    ("mesh_mm", "mm", "none"),
    ("mesh_pa_mm", "mm", "procrustes"),
    ("f5", "", "none"),
    ("f15", "", "none"),
    ("f5_pa", "", "procrustes"),
    ("f15_pa", "", "procrustes"),
    ("f5_pa_joints", "", "procrustes_joints"),
    ("f15_pa_joints", "", "procrustes_joints"),
    ("root_mm", "mm", "none"),
    ("root_depth_share", "share", "none"),
    ("handedness", "share", None),
    ("presence", "share", None),
    ("crops_seen", "", None),
)


def evaluate(
    estimator: Estimator,
    samples: Iterable[Sample],
    protocol: Protocol,
    name: str,
    total: int | None = None,
    boxes: int = 1,
) -> Report:
    """Compare an estimator with labels.

    Hands are left out where the labels do not tell where the hand is, or lack the side where the
    protocol gives it, or where the box's middle lies outside the picture. Where camera, scale or
    root are given but not labelled, a hand counts in 2D alone.

    Args:
        name: of the set, for the report. total: of the samples, for the progress bar.
        boxes: ask for each hand in so many of `BOXES`, and take the mean: of few hands, one that is
            read in some boxes alone decides the figures of a single one.

    Raises:
        InputError: the estimator must be told more than the protocol gives, there is no hand that
            it could be asked for, or another number of boxes than there are, or of a protocol that
            gives none.
    """
    estimator.require(protocol)
    if not 1 <= boxes <= len(BOXES) or (boxes > 1 and not protocol.box):
        raise InputError(
            f"a hand is asked for in 1 to {len(BOXES)} boxes, where the protocol gives its box: "
            f"not in {boxes}"
        )
    tally = Tally(protocol, boxes)
    with tqdm(total=total, desc=name, unit="hand") as bar:
        for batch in _batches(samples):
            asked = []
            for sample in batch:
                reason = why_not(sample, protocol, boxes)
                if reason is None:
                    asked.append(sample)
                else:
                    tally.left_out[reason] += boxes
            queries = [query_for(sample, protocol) for sample in asked]
            for variation in BOXES[:boxes]:
                varied = [
                    query
                    if query.box is None
                    else replace(query, box=_varied(query.box, *variation))
                    for query in queries
                ]
                found = estimator.estimate(varied)
                for sample, query, estimate in zip(asked, varied, found, strict=True):
                    tally.add(sample, query, estimate)
            bar.update(len(batch))
    if not tally.asked:
        reasons = ", ".join(f"{count} {why}" for why, count in tally.left_out.items())
        raise InputError(f"{name} holds no labelled hand to evaluate ({reasons or 'it is empty'})")
    return tally.report(name)


def why_not(sample: Sample, protocol: Protocol, boxes: int = 1) -> str | None:
    """Why a hand cannot be asked for under a protocol in so many `BOXES`; None if it can."""
    if not locates_hand(sample):
        return "too few joints known to tell where the hand is"
    if protocol.handedness and sample.is_right is None:
        return "right or left not known"
    if protocol.box:
        given = Box.from_points(sample.joints_px[sample.joint_known])
        height, width = sample.image.shape[:2]
        for box in (_varied(given, *variation) for variation in BOXES[:boxes]):
            if not (-0.5 <= box.cx <= width - 0.5 and -0.5 <= box.cy <= height - 0.5):
                return "middle of the box outside the picture"
            if not SMALLEST_BOX_PX <= box.size <= 8 * max(width, height):
                return "box too small or too large"
    return None


def query_for(sample: Sample, protocol: Protocol) -> Query:
    """What the protocol tells of a hand, as far as its labels know it."""
    known = sample.joint_known
    camera = bone_length_m = root_depth_m = None
    if protocol.camera and sample.intrinsics is not None:
        height, width = sample.image.shape[:2]
        camera = Camera.from_matrix(sample.intrinsics, width, height)
    if sample.joints_m is not None:
        if protocol.scale and known[list(UNIT_BONE)].all():
            base, end = sample.joints_m[list(UNIT_BONE)]
            bone_length_m = float(np.linalg.norm(end - base)) or None
        if protocol.root and known[ROOT_JOINT] and sample.joints_m[ROOT_JOINT, 2] > 0:
            root_depth_m = float(sample.joints_m[ROOT_JOINT, 2])
    return Query(
        image=sample.image,
        box=Box.from_points(sample.joints_px[known]) if protocol.box else None,
        handedness=("right" if sample.is_right else "left") if protocol.handedness else None,
        camera=camera,
        bone_length_m=bone_length_m,
        root_depth_m=root_depth_m,
        name=sample.key,
    )


def _varied(box: Box, size: float, right: float, down: float) -> Box:
    moved = box.cx + right * box.size, box.cy + down * box.size
    return Box(*moved, size * box.size, box.angle)


def groups_of(sample: Sample) -> dict[str, str]:
    """Kinds and names of the groups that a hand belongs to; its view where 3D labels tell it."""
    groups = dict(sample.groups)
    palm = [ROOT_JOINT, INDEX, MIDDLE, LITTLE]
    if (
        sample.joints_m is not None
        and sample.is_right is not None
        and sample.joint_known[palm].all()
    ):
        # A teacher's joints have an origin of their own, but the camera's axes.
        ahead = None if sample.intrinsics is not None else np.array([0.0, 0.0, 1.0])
        groups["view"] = view_of(sample.joints_m, sample.is_right, ahead)
    return groups


class Tally:
    """Errors hand by hand, as they come in."""

    def __init__(self, protocol: Protocol, boxes: int = 1) -> None:
        self.protocol, self.boxes = protocol, boxes
        self.asked = self.hands = 0
        self.left_out: Counter[str] = Counter()
        self._values: defaultdict[str, list[float]] = defaultdict(list)
        self._sides_px: list[float] = []
        # Errors of single joints, for PCK, by alignment.
        self._joints_mm: defaultdict[Alignment, list[NDArray[np.float64]]] = defaultdict(list)
        self._groups = GroupTally()
        self._girth = FingerGirth(Topology.default())
        self._girths: list[NDArray[np.float64]] = []

    def add(self, sample: Sample, query: Query, estimate: Estimate | None) -> None:
        """Count one hand, as it was asked for; None where it was not found."""
        self.asked += 1
        if estimate is None:
            self.left_out["no hand found"] += 1
            missed = {} if self.protocol.box else {"found": 0.0}
            for name, value in missed.items():
                self._values[name].append(value)
            self._groups.add(groups_of(sample), missed, compared=False)
            return
        self.hands += 1
        before = {name: len(of) for name, of in self._values.items()}
        known = sample.joint_known
        self._add_2d(np.float64(estimate.joints_px)[known], sample.joints_px[known])
        open_side = not self.protocol.handedness and sample.is_right is not None
        if open_side and estimate.handedness is not None:
            agrees = (estimate.handedness == "right") == sample.is_right
            self._values["handedness"].append(agrees)
        if estimate.presence is not None:
            self._values["presence"].append(estimate.presence > 0.5)
        if estimate.crops_seen is not None:
            self._values["crops_seen"].append(estimate.crops_seen)
        if len(estimate.vertices_m) == self._girth.vertex_count:
            mesh = sample.vertices_m if sample.our_mesh else None
            self._girths.append(
                self._girth.shares(estimate.vertices_m, estimate.joints_m, mesh, sample.joints_m)
            )
        protocol = self.protocol
        followed = (
            (query.camera is not None or not protocol.camera)
            and (query.bone_length_m is not None or not protocol.scale)
            and (query.root_depth_m is not None or not protocol.root)
        )
        if followed and sample.joints_m is not None:
            self._add_joints(np.float64(estimate.joints_m) * MM, sample.joints_m * MM, sample)
            if sample.vertices_m is not None and len(estimate.vertices_m):
                self._add_mesh(estimate, sample.vertices_m, sample)
        self._groups.add(
            groups_of(sample),
            {name: of[-1] for name, of in self._values.items() if len(of) > before.get(name, 0)},
        )

    def _add_2d(self, found: NDArray[np.float64], truth: NDArray[np.float64]) -> None:
        """Known joints (K, 2), pixels."""
        side = float(metrics.box_sides(truth[None])[0])
        error = float(metrics.mean_distance(found[None], truth[None])[0])
        self._sides_px.append(side)
        self._values["image_px"].append(error)
        self._values["image_share"].append(error / side)
        if not self.protocol.box:
            self._values["found"].append(error / side < FOUND_WITHIN)

    def _add_joints(
        self, found: NDArray[np.float64], truth: NDArray[np.float64], sample: Sample
    ) -> None:
        """Joints (21, 3), millimetres."""
        known = sample.joint_known
        aligned: dict[Alignment, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        if self.protocol.camera:
            aligned["none"] = found, truth
        if known[ROOT_JOINT]:
            aligned["root"] = found - found[ROOT_JOINT], truth - truth[ROOT_JOINT]
            if not self.protocol.root and sample.intrinsics is not None:
                distance, share = metrics.root_error(found[:1], truth[:1])
                self._values["root_mm"].append(distance[0])
                self._values["root_depth_share"].append(share[0])
        for alignment, (a, b) in aligned.items():
            each = metrics.point_distances(a[None, known], b[None, known])[0]  # (K,)
            self._joints_mm[alignment].append(each)
            key = "joints_mm" if alignment == "none" else "joints_root_mm"
            self._values[key].append(each.mean())
        if known.sum() >= metrics.PROCRUSTES_MIN_POINTS:
            error = metrics.procrustes_error(found[None, known], truth[None, known])[0]
            self._values["joints_pa_mm"].append(error)

    def _add_mesh(
        self, estimate: Estimate, vertices_m: NDArray[np.float32], sample: Sample
    ) -> None:
        """Vertices correspond one to one where the labels are of our mesh: as many of another are
        others."""
        found, truth = np.float64(estimate.vertices_m) * MM, np.float64(vertices_m) * MM
        same, known = sample.our_mesh and len(found) == len(truth), sample.joint_known
        if self.protocol.camera:
            self._add_f("", found, truth)
            if same:
                self._values["mesh_mm"].append(metrics.mean_distance(found[None], truth[None])[0])
        if same:
            fitted = metrics.procrustes_align(found[None], truth[None])[0]  # (V, 3)
            self._values["mesh_pa_mm"].append(metrics.mean_distance(fitted[None], truth[None])[0])
            self._add_f("_pa", fitted, truth)
        elif sample.joints_m is not None and known.sum() >= metrics.PROCRUSTES_MIN_POINTS:
            joints, labels = estimate.joints_m[known] * MM, sample.joints_m[known] * MM
            fit = metrics.best_similarity(joints[None], labels[None])
            self._add_f("_pa_joints", fit.apply(found[None])[0], truth)

    def _add_f(self, suffix: str, found: NDArray[np.float64], truth: NDArray[np.float64]) -> None:
        scores = metrics.f_score(found, truth, F_THRESHOLDS_MM)
        for threshold, score in zip(F_THRESHOLDS_MM, scores, strict=True):
            self._values[f"f{threshold:g}{suffix}"].append(score)

    def report(self, name: str) -> Report:
        """All that there is something to say of."""
        return Report(
            name, self.protocol, self.hands, dict(self.left_out),
            tuple(self._figures()), tuple(self._curves()), tuple(self._groups.report()),
            self.boxes,
        )  # fmt: skip

    def _figures(self) -> Iterator[Figure]:
        curves = {curve.alignment: curve for curve in self._curves()}
        for name, unit, alignment in FIGURES:
            values = self._values.get(name)
            if not values:
                continue
            yield Figure(name, float(np.mean(values)), unit, len(values), alignment)
            if name == "image_share":
                median = float(np.median(values))
                yield Figure("image_share_median", median, unit, len(values))
            if name == "image_px":
                for low, high, hands, error in metrics.by_box_side(values, self._sides_px):
                    if hands:
                        to = "up" if high == float("inf") else f"{high:g}"
                        yield Figure(f"image_px_box_{low:g}_{to}", error, unit, hands)
            if alignment in curves and name in ("joints_mm", "joints_root_mm"):
                stem = "auc" if alignment == "none" else "auc_root"
                curve = curves[alignment]
                yield Figure(f"{stem}_0_50", curve.auc_0_50, "", len(values), alignment)
                yield Figure(f"{stem}_20_50", curve.auc_20_50, "", len(values), alignment)
        for finger, girths in zip(FINGERS, np.reshape(self._girths, (-1, 5)).T, strict=True):
            if len(girths):
                yield Figure(f"girth_{finger}", float(np.median(girths)), "", len(girths))

    def _curves(self) -> Iterator[Curve]:
        for alignment, rows in self._joints_mm.items():
            errors = np.concatenate(rows)
            yield Curve(
                alignment=alignment,
                thresholds_mm=CURVE_MM,
                share=metrics.pck(errors, CURVE_MM),
                auc_0_50=metrics.auc(errors, 0.0, 50.0),
                auc_20_50=metrics.auc(errors, 20.0, 50.0),
            )


def _batches(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    iterator = iter(samples)
    while batch := list(islice(iterator, BATCH)):
        yield batch
