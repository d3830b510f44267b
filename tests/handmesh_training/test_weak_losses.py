"""Eqs. (7) and (8) against loops in float64, by finite differences, and what masks leave out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from handmesh.graph import Topology
from handmesh.nn import NetworkOutput
from handmesh_training.depth_renderer import DepthRenderer
from handmesh_training.hand import HandModel
from handmesh_training.losses import to_metric_like
from handmesh_training.sampling import sample_views
from handmesh_training.surface import Surface
from handmesh_training.weak_losses import (
    WITH_POSE,
    WITHOUT_POSE,
    WeakWeights,
    depth_map_loss,
    pseudo_mesh_loss,
    weak_loss,
)

torch.set_num_threads(1)
# An open strip: two squares side by side, folded at their common edge.
FACES = np.array([[0, 1, 2], [0, 2, 3], [1, 4, 5], [1, 5, 2]], dtype=np.int32)
V, SIDE, HEATMAP = 6, 8, 4
STRIP = np.array(
    [[0.2, 0.2, 0], [0.5, 0.2, 0.5], [0.5, 0.8, 0.4], [0.2, 0.8, 0], [0.8, 0.2, 0], [0.8, 0.8, 0.1]]
)
REDUCTIONS = ["mean", "sum"]


@pytest.fixture
def surface() -> Surface:
    return Surface(FACES, V)


@pytest.fixture
def renderer(surface: Surface) -> DepthRenderer:
    return DepthRenderer(surface, SIDE, background=3.0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def double(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float64))


def smooth_l1(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def over_batch(terms: list[list[float]], weight: np.ndarray, reduction: str) -> float:
    rows = [sum(t) / (len(t) if reduction == "mean" else 1) for t in terms]
    return float(np.dot(rows, weight) / weight.sum()) if weight.sum() else 0.0


def case(
    rng: np.random.Generator, stacks: int = 2
) -> tuple[NetworkOutput, dict[str, torch.Tensor]]:
    """Three hands: the first with all labels, the second without pseudo mesh, the third's joints
    without depth and its depth map missing."""
    vertices = STRIP + 0.02 * rng.normal(size=(3, V, 3))
    joints = rng.random((3, 21, 3))
    maps = [double(rng.random((3, 21, HEATMAP, HEATMAP))) for _ in range(stacks)]
    blank = torch.zeros(3, 21), torch.zeros(3), None
    output = NetworkOutput(double(vertices), double(joints), maps, *blank)
    target = {
        "joints": double(rng.random((3, 21, 3))),
        "crop_in_bones": double([5.0, 6.0, 7.0]),
        "depth_map": double(rng.normal(0.3, 1.5, (3, SIDE, SIDE))),
        "depth_known": torch.from_numpy(rng.random((3, SIDE, SIDE)) < 0.7),
        "pseudo": double(STRIP + 0.1 * rng.normal(size=(3, V, 3))),
        "has_joints": torch.tensor([True, True, True]),
        "has_depth": torch.tensor([True, True, False]),
        "has_depth_map": torch.tensor([True, True, False]),
        "has_pseudo": torch.tensor([True, False, True]),
    }
    return output, target


def expected_terms(
    output: NetworkOutput,
    target: dict[str, torch.Tensor],
    renderer: DepthRenderer,
    reduction: str,
) -> dict[str, float]:
    """Every term by loops. The rendered depth alone is taken from the renderer, whose own tests are
    elsewhere."""
    t = {name: value.numpy() for name, value in target.items()}
    vertices, joints = output.vertices.detach().numpy(), output.joints.detach().numpy()
    depth = renderer(output.vertices.detach()).sharp.numpy()
    scale, sigma = t["crop_in_bones"], HEATMAP / 16
    edges = sorted({tuple(sorted((int(f[i]), int(f[i - 1])))) for f in FACES for i in range(3)})
    neighbours = {i: [a + b - i for a, b in edges if i in (a, b)] for i in range(V)}
    rows: dict[str, list[list[float]]] = {
        name: [[] for _ in range(3)]
        for name in ("depth", "pseudo_edge", "pseudo_laplacian", "pose", "heatmap")
    }
    for b in range(3):
        s = np.array([scale[b], scale[b], 1.0])
        for known, d, r in zip(
            t["depth_known"][b].flat, depth[b].flat, t["depth_map"][b].flat, strict=True
        ):
            rows["depth"][b].append(smooth_l1(float(d - r)) if known else 0.0)
        points, pseudo = vertices[b] * s, t["pseudo"][b] * s
        for i, j in edges:
            now, then = points[i] - points[j], pseudo[i] - pseudo[j]
            rows["pseudo_edge"][b].append(float(now @ now - then @ then) ** 2)
        offset = pseudo - points
        for i in range(V):
            rough = offset[i] - sum(offset[k] for k in neighbours[i]) / len(neighbours[i])
            rows["pseudo_laplacian"][b].append(float(rough @ rough))
        for j in range(21):
            miss = joints[b, j] - t["joints"][b, j]
            rows["pose"][b].append(float((miss * s) @ (miss * s)))
            u, v = t["joints"][b, j, :2] * HEATMAP - 0.5
            for stack in output.heatmaps:
                for y in range(HEATMAP):
                    for x in range(HEATMAP):
                        bell = math.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2))
                        rows["heatmap"][b].append((float(stack[b, j, y, x]) - bell) ** 2)
    flags = {
        "depth": t["has_depth_map"],
        "pseudo_edge": t["has_pseudo"],
        "pseudo_laplacian": t["has_pseudo"],
        "pose": t["has_depth"],
        "heatmap": t["has_joints"],
    }
    found = {k: over_batch(v, flags[k].astype(float), reduction) for k, v in rows.items()}
    if reduction == "sum":  # the term is the mean over the stacks
        found["heatmap"] /= len(output.heatmaps)
    return found


def test_published_weights() -> None:
    """Section 4.4."""
    published = {"heatmap": 0.1, "depth": 0.1, "pseudo_mesh": 1, "edge": 1, "laplacian": 50}
    assert vars(WITHOUT_POSE) == {**published, "pose": 0}
    assert vars(WITH_POSE) == {**published, "pose": 10}
    assert WeakWeights() == WITHOUT_POSE


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weight", [None, [0.5, 0.0, 2.0], [0.0, 0.0, 0.0]])
def test_depth_map_loss(
    rng: np.random.Generator, weight: list[float] | None, reduction: str
) -> None:
    rendered, reference = 2 * rng.normal(size=(2, 3, 5, 5))
    known = rng.random((3, 5, 5)) < 0.6
    assert 0.2 < (np.abs(rendered - reference) > 1).mean() < 0.9  # both sides of the bend
    plain = np.ones(3) if weight is None else np.array(weight)
    for mask in (None, known):
        terms = [
            [
                smooth_l1(float(rendered[b, y, x] - reference[b, y, x]))
                if mask is None or mask[b, y, x]
                else 0.0
                for y in range(5)
                for x in range(5)
            ]
            for b in range(3)
        ]
        got = depth_map_loss(
            double(rendered),
            double(reference),
            None if mask is None else torch.from_numpy(mask),
            None if weight is None else double(plain),
            reduction,
        )
        assert got.item() == pytest.approx(over_batch(terms, plain, reduction), rel=1e-12)


def test_unknown_pixels_may_hold_nan(rng: np.random.Generator) -> None:
    rendered = double(rng.normal(size=(2, 4, 4))).requires_grad_()
    reference = double(rng.normal(size=(2, 4, 4)))
    known = torch.from_numpy(rng.random((2, 4, 4)) < 0.5)
    clean = depth_map_loss(rendered, reference, known)
    (wanted,) = torch.autograd.grad(clean, rendered)
    for bad in (math.nan, math.inf, -math.inf):
        loss = depth_map_loss(rendered, reference.masked_fill(~known, bad), known)
        (got,) = torch.autograd.grad(loss, rendered)
        assert loss.item() == clean.item()
        assert torch.equal(got, wanted)
    assert torch.all(wanted[~known] == 0)
    assert torch.all(wanted[known] != 0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_term_is_its_equation(
    surface: Surface, renderer: DepthRenderer, rng: np.random.Generator, reduction: str
) -> None:
    output, target = case(rng)
    _, terms = weak_loss(output, target, surface, renderer, reduction=reduction)
    wanted = expected_terms(output, target, renderer, reduction)
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(wanted, rel=1e-10)
    scale = target["crop_in_bones"]
    both = [to_metric_like(x, scale) for x in (output.vertices, target["pseudo"])]
    total, parts = pseudo_mesh_loss(*both, surface, weight=double([1, 0, 1]), reduction=reduction)
    assert parts.keys() == {"pseudo_edge", "pseudo_laplacian"}
    by_hand = wanted["pseudo_edge"] + 50 * wanted["pseudo_laplacian"]
    assert total.item() == pytest.approx(by_hand, rel=1e-10)


@pytest.mark.parametrize("stacks", [1, 2])
def test_the_total_is_the_weighted_sum_in_the_paper_s_proportion(
    surface: Surface, renderer: DepthRenderer, rng: np.random.Generator, stacks: int
) -> None:
    output, target = case(rng, stacks)
    weights = WeakWeights(2.0, 3.0, 5.0, 7.0, 11.0, 13.0)
    summed, _ = weak_loss(output, target, surface, renderer, weights, "sum")
    wanted = expected_terms(output, target, renderer, "sum")
    lambdas = {
        "heatmap": 2.0 * stacks,  # Eq. (8) adds the stacks up
        "depth": 3.0,
        "pseudo_edge": 5.0 * 7.0,
        "pseudo_laplacian": 5.0 * 11.0,
        "pose": 13.0,
    }
    by_hand = sum(weight * wanted[name] for name, weight in lambdas.items())
    assert summed.item() == pytest.approx(by_hand, rel=1e-10)
    mean, _ = weak_loss(output, target, surface, renderer, weights, "mean")
    assert mean.item() * V == pytest.approx(by_hand, rel=1e-10)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients(surface: Surface, rng: np.random.Generator, reduction: str) -> None:
    """Of the whole, through the renderer, with every term's weight above 0.

    The outline of the sharp map has a gradient without having a slope, so this one is left without
    a width; tests of the renderer see to it.
    """
    renderer = DepthRenderer(surface, SIDE, softness=1e-4, background=3.0)
    output, target = case(rng, stacks=1)
    weights = WeakWeights(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)

    def total(vertices: torch.Tensor, joints: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        found = output._replace(vertices=vertices, joints=joints, heatmaps=[maps])
        return weak_loss(found, target, surface, renderer, weights, reduction)[0]

    given = output.vertices, output.joints, output.heatmaps[0]
    inputs = tuple(x.requires_grad_() for x in given)
    assert torch.autograd.gradcheck(total, inputs, fast_mode=True)  # along random directions
    mesh = output.vertices
    assert torch.autograd.gradcheck(lambda v: total(v, *inputs[1:]), (mesh,))


LABELS = {
    "has_joints": ("joints",),
    "has_depth": ("joints",),
    "has_depth_map": ("depth_map",),
    "has_pseudo": ("pseudo",),
}


@pytest.mark.parametrize("flag", LABELS)
def test_what_is_flagged_as_missing_does_not_count(
    surface: Surface, renderer: DepthRenderer, rng: np.random.Generator, flag: str
) -> None:
    """Neither in the loss nor in its gradient, whatever stands there: NaN, too."""
    output, target = case(rng)
    weights = WeakWeights(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    given = [x.requires_grad_() for x in (output.vertices, output.joints, *output.heatmaps)]

    def run(changed: dict[str, torch.Tensor]) -> tuple[float, list[torch.Tensor]]:
        loss, _ = weak_loss(output, changed, surface, renderer, weights)
        return loss.item(), list(torch.autograd.grad(loss, given))

    missing = {**target, flag: torch.tensor([True, False, True])}
    if flag == "has_joints":  # depth of a joint is not known without its place
        missing["has_depth"] = torch.tensor([True, False, True])
    clean_loss, clean = run(missing)
    assert clean_loss != run({**target, flag: torch.tensor([True, True, True])})[0]
    for name in LABELS[flag]:
        spoilt = missing[name].clone()
        spoilt[1, ..., 2 if flag == "has_depth" else slice(None)] = math.nan
        loss, gradients = run({**missing, name: spoilt})
        assert loss == clean_loss
        for got, wanted in zip(gradients, clean, strict=True):
            assert torch.equal(got, wanted)
            assert torch.isfinite(got).all()


def test_joints_that_are_not_taught_move_nothing(
    surface: Surface, renderer: DepthRenderer, rng: np.random.Generator
) -> None:
    output, target = case(rng)
    weights = WeakWeights(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    taught = torch.ones(3, 21, dtype=torch.bool)
    moved = target["joints"].clone()
    moved[1, 4] += 0.2

    def loss(joints: torch.Tensor) -> float:
        found = {**target, "joints": joints, "taught": taught}
        return weak_loss(output, found, surface, renderer, weights)[0].item()

    assert loss(moved) != loss(target["joints"])
    taught[1, 4] = False
    assert loss(moved) == loss(target["joints"])


def test_without_any_label_there_is_no_gradient(
    surface: Surface, renderer: DepthRenderer, rng: np.random.Generator
) -> None:
    output, target = case(rng)
    for name in LABELS:
        target[name] = torch.zeros(3, dtype=torch.bool)
    output.vertices.requires_grad_()
    loss, terms = weak_loss(output, target, surface, renderer, WITH_POSE)
    loss.backward()
    assert loss.item() == 0
    assert all(term.item() == 0 for term in terms.values())
    assert output.vertices.grad is not None
    assert torch.all(output.vertices.grad == 0)


def roughness(points: np.ndarray, truth: np.ndarray, faces: np.ndarray) -> tuple[float, float]:
    """Of one mesh (V, 3) in bones against the true one: root mean square of the relative error of
    edge lengths, and of how the offset differs from its neighbours' mean."""
    sides = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    a, b = np.unique(sides, axis=0).T
    length = np.linalg.norm(points[a] - points[b], axis=1)
    true = np.linalg.norm(truth[a] - truth[b], axis=1)
    offset = points - truth
    total, count = np.zeros_like(offset), np.zeros(len(offset))
    for i, j in ((a, b), (b, a)):
        np.add.at(total, i, offset[j])
        np.add.at(count, i, 1)
    rough = offset - total / count[:, None]
    return (
        float(np.sqrt(np.mean((length / true - 1) ** 2))),
        float(np.sqrt((rough**2).sum(axis=1).mean())),
    )


def test_without_the_pseudo_mesh_surfaces_degenerate() -> None:
    """Fig. 6, on meshes alone: the vertices themselves are moved by the losses' gradients, from a
    true hand that is displaced, turned and bent, towards a noisy depth map of it. By L_D alone the
    surface becomes rough and the mesh worse than it was; with L_pM it stays smooth and gets better.
    """
    rng = np.random.default_rng(0)
    surface = Surface.from_topology(Topology.default())
    renderer = DepthRenderer(surface, 32)
    views = sample_views(rng, HandModel(), 1, 128, 1.5)
    scale = torch.from_numpy(views.crop_in_bones)
    truth = torch.from_numpy(views.vertices)
    with torch.no_grad():
        clean = renderer(truth)
    noise = torch.from_numpy(rng.normal(0, 0.08, clean.sharp.shape).astype(np.float32))  # 4 mm
    reference = clean.sharp + noise * (clean.face >= 0)
    local = truth - truth.mean(dim=1, keepdim=True)
    start = truth.clone()
    start[..., 0] += 0.03  # a pixel
    start[..., 2] += 0.3 + 0.15 * scale * local[..., 0] + 0.05 * (scale * local[..., 1]).square()
    pseudo = start.clone()  # as the paper's: smooth, but at a wrong depth

    def fit(pseudo_mesh: float, steps: int = 80) -> tuple[torch.Tensor, float]:
        """The mesh that is reached, and by which part L_D fell."""
        moved = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([moved])
        falls = []
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * (1 - step / steps)
            depth = depth_map_loss(renderer(moved).sharp, reference, reduction="sum")
            points = [to_metric_like(x, scale) for x in (moved, pseudo)]
            mesh, _ = pseudo_mesh_loss(*points, surface, reduction="sum")
            optimizer.zero_grad()
            (WITHOUT_POSE.depth * depth + pseudo_mesh * mesh).backward()
            optimizer.step()
            falls.append(float(depth.detach()))
        return moved.detach(), falls[-1] / falls[0]

    bones = to_metric_like(truth, scale)

    def quality(vertices: torch.Tensor) -> tuple[float, float, float]:
        """Error of edge lengths, roughness, and mean distance to the true vertices in bones."""
        points = to_metric_like(vertices, scale)
        rough = roughness(points[0].numpy(), bones[0].numpy(), surface.faces.numpy())
        return (*rough, float((points - bones).norm(dim=-1).mean()))

    (alone, _), (held, fall) = fit(0.0), fit(WITHOUT_POSE.pseudo_mesh)
    assert fall < 0.5  # alone it may not even fall, where the surface runs into itself
    (alone_edges, alone_rough, alone_miss), (edges, rough, miss) = quality(alone), quality(held)
    assert alone_edges > 8 * edges
    assert alone_rough > 8 * rough
    assert miss < quality(start)[2] < alone_miss
