"""Table 1, Table 2 and Fig. 8 of the paper, its Fig. 6, and its optimiser beside a modern one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..losses import PAPER, LossWeights
from ..recipe import PAPER as PAPER_RECIPE
from ..stages import starting_from
from ..tasks import full_task
from ..weak_losses import WITH_POSE, WITHOUT_POSE, WeakWeights
from .curves import write_curve
from .lab import COST, Lab
from .study import Figures, Study, Variant

MESH_AND_POSE = {"mesh": "mm", "pose": "mm"}
# Of the pipelines: what is known of the second domain.
LABELS = ("with 3D joints", "without")


def loss_terms(lab: Lab) -> Study:
    """Table 1: each term of L_fully left out."""
    rows = {
        "Full": (PAPER, (7.95, 8.03)),
        "− Normal": (replace(PAPER, normal=0.0), (8.34, 8.30)),
        "− Edge": (replace(PAPER, edge=0.0), (9.09, 9.06)),
        "− Laplacian": (replace(PAPER, laplacian=0.0), (8.63, 8.55)),
        "− 3D pose": (replace(PAPER, pose=0.0), (9.04, 9.24)),
    }

    def variant(name: str, weights: LossWeights, published: tuple[float, float]) -> Variant:
        label = "full" if weights == PAPER else name.removeprefix("− ").lower().replace(" ", "-")

        def run(_: Path, seed: int) -> Figures:
            return lab.errors(lab.pretrained(seed, weights=weights, name=label)).figures

        return Variant(name, run, dict(zip(MESH_AND_POSE, published, strict=True)))

    return Study(
        "table1",
        "Terms of L_fully left out (Table 1)",
        "Full",
        [variant(name, *row) for name, row in rows.items()],
        MESH_AND_POSE | {"roughness": "mm"},
    )


def mesh_heads(lab: Lab) -> Study:
    """Table 2: our decoder, direct linear blend skinning, a parametric hand."""
    rows: dict[str, tuple[str, float, float]] = {
        "Graph CNN": ("mesh", 8.01, 12.72),
        "Direct LBS": ("lbs", 10.32, 13.33),
        "Parametric": ("parametric", 12.12, 20.86),
    }

    def variant(name: str, head: str, rendered: float, real: float) -> Variant:
        def run(_: Path, seed: int) -> Figures:
            checkpoint = lab.pretrained(seed, head)  # type: ignore[arg-type]
            first, second = (lab.errors(checkpoint, d).figures for d in ("first", "second"))
            return {"mesh": first["mesh"], "mesh, shifted": second["mesh"], "pose": first["pose"]}

        return Variant(name, run, {"mesh": rendered, "mesh, shifted": real})

    return Study(
        "table2",
        "Ways to a mesh (Table 2; the paper's parametric hand is MANO)",
        "Graph CNN",
        [variant(name, *row) for name, row in rows.items()],
        {"mesh": "mm", "mesh, shifted": "mm", "pose": "mm"},
    )


def pipelines(lab: Lab) -> Study:
    """Fig. 8 and Table 3: fine-tuned on the second domain, with and without 3D joints.

    Begins with a trained trunk at most, under all heads alike: only the mesh's would have a trained
    head."""
    makers: dict[str, Callable[[int, bool], Path]] = {
        "Full model": lambda seed, posed: _tuned(lab, seed, posed),
        "Baseline 1": lambda seed, posed: _joints_alone(lab, seed, posed),
        "Baseline 2": lambda seed, posed: _tuned(lab, seed, posed, depth=0.0, name="no-depth"),
        "Task transfer": lambda seed, posed: _transfer(lab, seed, posed),
    }

    def variant(name: str, make: Callable[[int, bool], Path]) -> Variant:
        def run(place: Path, seed: int) -> Figures:
            figures: Figures = {}
            for label, posed in zip(LABELS, (True, False), strict=True):
                errors = lab.errors(make(seed, posed), "second")
                for figure in ("pose", "AUC"):
                    figures[f"{figure}, {label}"] = errors.figures[figure]
                write_curve(place, label, errors.joints_mm)
            return figures

        return Variant(name, run, {})

    return Study(
        "fig8",
        "Pipelines for the 3D pose, fine-tuned on the second domain (Table 3, Fig. 8)",
        "Full model",
        [variant(name, make) for name, make in makers.items()],
        {
            "pose, with 3D joints": "mm", "AUC, with 3D joints": "20-50 mm",
            "pose, without": "mm", "AUC, without": "20-50 mm",
        },
    )  # fmt: skip


def weak_supervision(lab: Lab) -> Study:
    """Fig. 6: depth maps and 2D joints alone on a domain that the network was not trained on.

    Begins with all of a trained network, where one is given: that is what one adapts."""

    def variant(name: str) -> Variant:
        def run(_: Path, seed: int) -> Figures:
            errors = lab.errors(_WEAK[name](lab, seed), "second").figures
            return {key: errors[key] for key in ("mesh", "pose", "roughness")}

        return Variant(name, run, {})

    return Study(
        "weak",
        "Weak supervision on the second domain (section 4.4, Fig. 6)",
        "L_weakly",
        [variant(name) for name in _WEAK],
        MESH_AND_POSE | {"roughness": "mm"},
    )


def weak_checkpoints(lab: Lab, seed: int) -> dict[str, Path]:
    """The networks of `weak_supervision`, for pictures."""
    return {name: make(lab, seed) for name, make in _WEAK.items()}


def recipes(lab: Lab) -> Study:
    """The paper's RMSprop beside AdamW, warm-up, cosine, averaging and bfloat16."""

    def variant(name: str, recipe_name: str) -> Variant:
        recipe = PAPER_RECIPE if recipe_name == "paper" else lab.recipe

        def run(_: Path, seed: int) -> Figures:
            label = "full" if recipe == lab.recipe else "full-rmsprop"
            checkpoint = lab.pretrained(seed, name=label, recipe=recipe)
            errors = lab.errors(checkpoint).figures
            figures = {key: errors[key] for key in MESH_AND_POSE}
            cost = checkpoint.parent / COST
            seconds = json.loads(cost.read_text())["cpu_seconds"] if cost.exists() else math.nan
            return figures | {"CPU time": float(seconds)}

        return Variant(name, run, {})

    return Study(
        "recipes",
        "The paper's optimisation beside a modern one, the same batches",
        "Modern",
        [variant("Modern", "modern"), variant("Paper", "paper")],
        MESH_AND_POSE | {"CPU time": "s"},
    )


_WEAK: dict[str, Callable[[Lab, int], Path]] = {
    "L_weakly": lambda lab, seed: _adapted(lab, seed),
    "before": lambda lab, seed: lab.whole() or lab.pretrained(seed),
    "heat-maps alone": lambda lab, seed: lab.tuned_heatmaps(seed, start=lab.whole()),
    "without pseudo meshes": lambda lab, seed: _adapted(lab, seed, pseudo=False, name="no-pseudo"),
    "without depth maps": lambda lab, seed: _adapted(lab, seed, depth=0.0, name="no-depth"),
    "with 3D joints": lambda lab, seed: _adapted(lab, seed, posed=True),
}

STUDIES: dict[str, Callable[[Lab], Study]] = {
    "table1": loss_terms,
    "table2": mesh_heads,
    "fig8": pipelines,
    "weak": weak_supervision,
    "recipes": recipes,
}


def _adapted(
    lab: Lab,
    seed: int,
    posed: bool = False,
    depth: float = WITHOUT_POSE.depth,
    pseudo: bool = True,
    name: str = "weak",
) -> Path:
    """As `_tuned`, but of all of a trained network where one is given."""
    return _tuned(lab, seed, posed, depth, pseudo, name, lab.whole())


def _tuned(
    lab: Lab,
    seed: int,
    posed: bool,
    depth: float = WITHOUT_POSE.depth,
    pseudo: bool = True,
    name: str = "weak",
    start: Path | None = None,
) -> Path:
    """Stage (f), with or without 3D joints."""
    base = WITH_POSE if posed else WITHOUT_POSE
    weights = replace(base, depth=depth, pseudo_mesh=base.pseudo_mesh if pseudo else 0.0)
    return lab.weakly(seed, weights, f"{name}{'-posed' if posed else ''}", start)


def _joints_alone(lab: Lab, seed: int, posed: bool) -> Path:
    """Baseline 1. Without 3D joints, its heat-maps are all that can be adapted."""
    tuned = lab.tuned_heatmaps(seed, "joints")
    if not posed:
        return tuned
    folder = lab.folder / "shared" / "joints-posed" / f"seed{seed}"
    return lab.train(
        folder, full_task(_as_full(WITH_POSE), fine_tuning=True), lab.shifted, seed,
        lab.settings.tuning_steps, "joints", starting_from(tuned),
    )  # fmt: skip


def _transfer(lab: Lab, seed: int, posed: bool) -> Path:
    """A joints head on the fixed trunk of the full model: trained where there are 3D joints, which
    without those of the second domain is the first."""
    full = _tuned(lab, seed, posed)
    name = f"transfer{'-posed' if posed else ''}"
    folder = lab.folder / "shared" / name / f"seed{seed}"
    data = lab.shifted if posed else lab.training
    return lab.train(
        folder, full_task(_as_full(WITH_POSE)), data, seed, lab.settings.steps, "transfer",
        starting_from(full),
    )  # fmt: skip


def _as_full(weak: WeakWeights) -> LossWeights:
    """L_H and L_J with the weights of L_weakly, told in multiples of those of L_fully."""
    return replace(PAPER, heatmap=weak.heatmap / 0.5, pose=weak.pose)
