"""How good a bundle is: on rendered hands, on labelled data sets, and on photos against a teacher.

All go through `handmesh.Predictor`, as an app would, in the runtime that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from handmesh import Box, Camera, Predictor
from handmesh.errors import InputError

from . import metrics
from .datasets import Dataset
from .photos import read_labels
from .rendered import HandRenderer, RenderSettings

MM = 1000.0
# What a detector would give: the joints' tight box, half as large again.
BOX_MARGIN = 1.5


@dataclass(frozen=True)
class RenderedReport:
    """Errors on rendered right hands; the box is given, as is handedness.

    Attributes:
        count: hands.
        image_share: mean 2D joint error over the side of the joints' box.
        joints_mm, mesh_mm: mean 3D error with camera, root depth and scale given, as in the
            paper (section 5.1).
        joints_pa_mm, mesh_pa_mm: after Procrustes alignment with scale.
        auc_20_50: area under the PCK of the joints between 20 and 50 mm, same protocol.
    """

    count: int
    image_share: float
    joints_mm: float
    mesh_mm: float
    joints_pa_mm: float
    mesh_pa_mm: float
    auc_20_50: float


@dataclass(frozen=True)
class PhotoReport:
    """Disagreement with a teacher on photos; the box around the teacher's joints is given.

    Attributes:
        count: photos.
        image_share: mean 2D joint error over the side of the joints' box.
        image_share_median: the median of it.
        joints_pa_mm: mean 3D joint error after Procrustes alignment to the teacher's joints.
        handedness: share of hands whose side agrees with the teacher's (it is not given).
        presence: share of photos in which the network is more sure than not that a hand is there.
        found: share of hands found without any box, to within a third of the box's side on average;
            NaN when not searched.
    """

    count: int
    image_share: float
    image_share_median: float
    joints_pa_mm: float
    handedness: float
    presence: float
    found: float


@dataclass(frozen=True)
class LabelledReport:
    """Errors against a data set's own labels; the box around the known joints is given.

    Attributes:
        count: hands.
        image_share, image_share_median: 2D joint error over the side of the joints' box.
        joints_pa_mm: mean 3D joint error after Procrustes alignment, of the hands with 3D labels;
            NaN where there are none. The camera is given where the set tells it.
        handedness: share of hands whose side is right (it is not given); NaN where the set does not
            tell it.
        presence: share of pictures in which the network is more sure than not that a hand is there.
    """

    count: int
    image_share: float
    image_share_median: float
    joints_pa_mm: float
    handedness: float
    presence: float


Report = RenderedReport | PhotoReport | LabelledReport


def evaluate_rendered(
    predictor: Predictor, settings: RenderSettings, count: int, seed: int, chunk: int = 128
) -> RenderedReport:
    """Render ``count`` hands that no training with another seed has seen, and measure.

    Raises:
        InputError: fewer than one hand.
    """
    if count < 1:
        raise InputError(f"expected at least one rendered hand, got {count}")
    renderer = HandRenderer(settings, seed)
    found: dict[str, list[NDArray[np.floating]]] = {k: [] for k in ("px", "joints", "mesh")}
    truth: dict[str, list[NDArray[np.floating]]] = {k: [] for k in ("px", "joints", "mesh")}
    side = settings.crop_px
    box = Box(0.5 * side - 0.5, 0.5 * side - 0.5, side * BOX_MARGIN / settings.margin)
    with tqdm(total=count, desc="rendered", unit="hand") as bar:
        for first in range(0, count, chunk):
            drawn = renderer.draw(range(first, min(first + chunk, count)))
            images, views = renderer.render(drawn).image, drawn.views
            for i, image in enumerate(images):
                fx, fy, cx, cy = (float(x) for x in views.intrinsics[i])
                joints = views.joints_m[i].astype(np.float64)
                hand = predictor.predict(
                    image,
                    box=box,
                    camera=Camera(fx, fy, cx, cy, side, side),
                    handedness="right",
                    bone_length_m=float(np.linalg.norm(joints[10] - joints[9])),
                    root_depth_m=float(joints[0, 2]),
                )[0]
                subset = renderer.model.asset.template_subset
                found["px"].append(hand.joints_px)
                found["joints"].append(hand.joints_m)
                found["mesh"].append(hand.vertices_m)
                truth["px"].append(views.joints[i, :, :2] * side - 0.5)
                truth["joints"].append(joints)
                truth["mesh"].append(views.vertices_m[i, subset])
                bar.update()
    a = {name: np.stack(rows) for name, rows in found.items()}
    b = {name: np.stack(rows) for name, rows in truth.items()}
    each = np.linalg.norm(a["joints"] - b["joints"], axis=-1) * MM
    return RenderedReport(
        count=count,
        image_share=float(metrics.box_normalised_error(a["px"], b["px"]).mean()),
        joints_mm=float(each.mean()),
        mesh_mm=float(metrics.mean_distance(a["mesh"], b["mesh"]).mean() * MM),
        joints_pa_mm=float(metrics.procrustes_error(a["joints"], b["joints"]).mean() * MM),
        mesh_pa_mm=float(metrics.procrustes_error(a["mesh"], b["mesh"]).mean() * MM),
        auc_20_50=metrics.auc(each, 20.0, 50.0),
    )


def evaluate_photos(
    predictor: Predictor,
    folders: Iterable[Path | str],
    limit: int | None = None,
    search: bool = False,
) -> PhotoReport:
    """Compare with the teacher's labels of photo sets.

    Args:
        limit: evaluate at most so many photos, evenly spread.
        search: also look for the hand without a box.

    Raises:
        InputError: a folder without labels, or no labelled photo at all.
    """
    hands = [hand for folder in folders for hand in read_labels(folder)]
    if not hands:
        raise InputError("the photo sets hold no labelled hand")
    if limit is not None and len(hands) > limit:
        hands = [hands[i * len(hands) // limit] for i in range(limit)]
    share, aligned, sides, sure, hits = [], [], [], [], []
    for label in tqdm(hands, desc="photos", unit="photo"):
        box = Box.from_points(label.joints_px, margin=BOX_MARGIN)
        hand = predictor.predict(label.path, box=box)[0]
        truth_px = label.joints_px[None]
        share.append(metrics.box_normalised_error(hand.joints_px[None], truth_px)[0])
        aligned.append(metrics.procrustes_error(hand.joints_m[None], label.joints_m[None])[0] * MM)
        sides.append((hand.handedness == "right") == label.is_right)
        sure.append(hand.presence > 0.5)
        if search:
            seen = predictor.predict(label.path)
            hits.append(
                bool(seen)
                and metrics.box_normalised_error(seen[0].joints_px[None], truth_px)[0] < 1 / 3
            )
    return PhotoReport(
        count=len(hands),
        image_share=float(np.mean(share)),
        image_share_median=float(np.median(share)),
        joints_pa_mm=float(np.mean(aligned)),
        handedness=float(np.mean(sides)),
        presence=float(np.mean(sure)),
        found=float(np.mean(hits)) if search else float("nan"),
    )


def evaluate_labelled(
    predictor: Predictor, dataset: Dataset, limit: int | None = None
) -> LabelledReport:
    """Compare with the labels of a data set, over the joints that are known.

    Args:
        limit: evaluate at most so many hands, evenly spread.

    Raises:
        InputError: the set holds no hand, or one without two known joints.
    """
    count = len(dataset)
    if not count:
        raise InputError(f"{dataset.folder} holds no labelled hand")
    wanted = count if limit is None else min(limit, count)
    share, aligned, sides, sure = [], [], [], []
    for i in tqdm(range(wanted), desc=dataset.folder.name, unit="hand"):
        sample = dataset[i * count // wanted]
        known = sample.joint_known
        truth_px = sample.joints_px[known]
        camera = None
        if sample.intrinsics is not None:
            height, width = sample.image.shape[:2]
            camera = Camera.from_matrix(sample.intrinsics, width, height)
        box = Box.from_points(truth_px, margin=BOX_MARGIN)
        hand = predictor.predict(sample.image, box=box, camera=camera)[0]
        found_px = hand.joints_px[known]
        share.append(metrics.box_normalised_error(found_px[None], truth_px[None])[0])
        if sample.joints_m is not None:
            found, truth = hand.joints_m[known][None], sample.joints_m[known][None]
            aligned.append(metrics.procrustes_error(found, truth)[0] * MM)
        if sample.is_right is not None:
            sides.append((hand.handedness == "right") == sample.is_right)
        sure.append(hand.presence > 0.5)
    return LabelledReport(
        count=wanted,
        image_share=float(np.mean(share)),
        image_share_median=float(np.median(share)),
        joints_pa_mm=float(np.mean(aligned)) if aligned else float("nan"),
        handedness=float(np.mean(sides)) if sides else float("nan"),
        presence=float(np.mean(sure)),
    )


def to_table(reports: dict[str, Report]) -> str:
    """One line a figure, aligned; shares in percent."""
    lines = []
    for name, report in reports.items():
        lines.append(f"{name} ({report.count} hands)")
        for key, value in asdict(report).items():
            if key == "count" or value != value:
                continue
            if key.endswith("_mm"):
                lines.append(f"  {key:<20}{value:9.2f} mm")
            elif key.startswith("auc"):
                lines.append(f"  {key:<20}{value:9.3f}")
            else:
                lines.append(f"  {key:<20}{100 * value:9.2f} %")
    return "\n".join(lines)
