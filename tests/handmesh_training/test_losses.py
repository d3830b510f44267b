"""Each loss against its equation, written out in float64 NumPy loops, and by finite differences."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
import torch

from handmesh.errors import InputError
from handmesh.graph import Topology
from handmesh.nn import NetworkOutput
from handmesh_training import losses
from handmesh_training.losses import PAPER, LossWeights
from handmesh_training.surface import Surface

torch.set_num_threads(1)
# An octahedron with two faces missing: open edges, and vertices with unequal neighbour counts.
FACES = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [0, 3, 5]], dtype=np.int32)
V = 6
REDUCTIONS = ["mean", "sum"]


@pytest.fixture
def surface() -> Surface:
    return Surface(FACES, V)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def edges() -> list[tuple[int, int]]:
    found = {tuple(sorted((int(f[i]), int(f[(i + 1) % 3])))) for f in FACES for i in range(3)}
    return sorted(found)


def batch(terms: list[list[float]], weight: np.ndarray | None, reduction: str) -> float:
    """Terms of each sample to the expected loss."""
    samples = [sum(t) if reduction == "sum" else sum(t) / len(t) for t in terms]
    if weight is None:
        return sum(samples) / len(samples)
    return float(np.dot(samples, weight) / weight.sum()) if weight.sum() else 0.0


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(np.asarray(a, dtype=np.float64)) for a in arrays]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
class TestAgainstEquations:
    """Eqs. (2) to (5), L_H and L_J, term by term."""

    def weight(self, weighted: bool) -> np.ndarray | None:
        return np.array([0.5, 0.0, 2.0]) if weighted else None

    def check(self, got: torch.Tensor, expected: float) -> None:
        np.testing.assert_allclose(got.item(), expected, rtol=1e-10)

    def test_heatmap(self, rng: np.random.Generator, weighted: bool, reduction: str) -> None:
        maps, target = rng.random((2, 3, 4, 5, 6))
        weight = self.weight(weighted)
        terms = [list(((m - t) ** 2).ravel()) for m, t in zip(maps, target, strict=True)]
        m, t = tensors(maps, target)
        w = None if weight is None else torch.from_numpy(weight)
        expected = batch(terms, weight, reduction)
        self.check(losses.heatmap_loss(m, t, w, reduction), expected)
        self.check(losses.heatmap_loss([m, t], t, w, reduction), expected / 2)

    def test_vertex_and_points(
        self, rng: np.random.Generator, weighted: bool, reduction: str
    ) -> None:
        found, true = rng.random((2, 3, V, 3))
        scale = np.array([5.0, 6.5, 8.0])
        weight = self.weight(weighted)
        flat, deep = [], []
        for b in range(3):
            d = found[b] - true[b]
            flat.append([float(x[0] ** 2 + x[1] ** 2) for x in d])
            s = scale[b]
            deep.append([float((s * x[0]) ** 2 + (s * x[1]) ** 2 + x[2] ** 2) for x in d])
        p, t, s = tensors(found, true, scale)
        w = None if weight is None else torch.from_numpy(weight)
        two, three = batch(flat, weight, reduction), batch(deep, weight, reduction)
        self.check(losses.point_loss_2d(p, t, w, reduction), two)
        self.check(losses.point_loss_3d(p, t, s, w, reduction), three)
        self.check(losses.pose_loss(p, t, s, w, reduction), three)
        self.check(losses.vertex_loss(p, t, s, w, reduction), two + three)

    def test_normal(
        self, surface: Surface, rng: np.random.Generator, weighted: bool, reduction: str
    ) -> None:
        found, true = rng.normal(size=(2, 3, V, 3))
        weight = self.weight(weighted)
        terms: list[list[float]] = []
        for b in range(3):
            terms.append([])
            for face in FACES:
                p0, p1, p2 = true[b][face]
                normal = np.cross(p1 - p0, p2 - p0)
                normal /= math.sqrt(float(normal @ normal))
                for i, j in ((0, 1), (1, 2), (2, 0)):
                    edge = found[b][face[i]] - found[b][face[j]]
                    terms[-1].append(float(edge @ normal) ** 2)
        p, t = tensors(found, true)
        w = None if weight is None else torch.from_numpy(weight)
        expected = batch(terms, weight, reduction)
        self.check(losses.normal_loss(p, t, surface, w, reduction), expected)

    def test_edge(
        self, surface: Surface, rng: np.random.Generator, weighted: bool, reduction: str
    ) -> None:
        found, true = rng.normal(size=(2, 3, V, 3))
        weight = self.weight(weighted)
        terms = [
            [
                float(
                    (
                        np.sum((true[b][i] - true[b][j]) ** 2)
                        - np.sum((found[b][i] - found[b][j]) ** 2)
                    )
                    ** 2
                )
                for i, j in edges()
            ]
            for b in range(3)
        ]
        p, t = tensors(found, true)
        w = None if weight is None else torch.from_numpy(weight)
        expected = batch(terms, weight, reduction)
        self.check(losses.edge_loss(p, t, surface, w, reduction), expected)

    def test_laplacian(
        self, surface: Surface, rng: np.random.Generator, weighted: bool, reduction: str
    ) -> None:
        found, true = rng.normal(size=(2, 3, V, 3))
        weight = self.weight(weighted)
        neighbours: dict[int, list[int]] = {i: [] for i in range(V)}
        for i, j in edges():
            neighbours[i].append(j)
            neighbours[j].append(i)
        assert len({len(n) for n in neighbours.values()}) > 1
        delta = true - found
        terms = []
        for b in range(3):
            rough = [delta[b][i] - np.mean(delta[b][neighbours[i]], axis=0) for i in range(V)]
            terms.append([float(r @ r) for r in rough])
        p, t = tensors(found, true)
        w = None if weight is None else torch.from_numpy(weight)
        expected = batch(terms, weight, reduction)
        self.check(losses.laplacian_loss(p, t, surface, w, reduction), expected)


def test_surface_counts_of_the_hand() -> None:
    topology = Topology.default()
    surface = Surface.from_topology(topology)
    assert surface.face_count == len(topology.faces)
    sides = np.sort(topology.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    assert surface.edge_count == len(np.unique(sides, axis=0))
    # Every side of every face is found again at its edge.
    real = surface.faces_of_edge < surface.face_count
    assert int(real.sum()) == 3 * surface.face_count


def test_three_faces_at_an_edge_are_refused() -> None:
    with pytest.raises(InputError, match="at most two"):
        Surface(np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]]), 5)


def test_mesh_losses_vanish_at_the_truth_and_ignore_translation(
    surface: Surface, rng: np.random.Generator
) -> None:
    (true,) = tensors(rng.normal(size=(2, V, 3)))
    shifted = true + torch.tensor([0.3, -2.0, 1.0], dtype=torch.float64)
    for loss in (losses.edge_loss, losses.laplacian_loss):
        assert loss(shifted, true, surface).item() < 1e-24
        assert loss(true * 1.1, true, surface).item() > 1e-4
    assert losses.normal_loss(shifted, true, surface).item() < 1e-24


def huber(distance: float, bend: float) -> float:
    return distance**2 if distance <= bend else 2 * bend * distance - bend**2


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_huber_in_two_and_three_dimensions(rng: np.random.Generator, reduction: str) -> None:
    found, true = rng.random((2, 3, V, 3))
    scale, weight = np.array([5.0, 6.5, 8.0]), np.array([0.5, 0.0, 2.0])
    bend = 2.5  # bones; some distances are beyond it, some are not
    deep, flat, two = [], [], []
    for b in range(3):
        offsets = found[b] - true[b]
        across = [math.hypot(x[0], x[1]) for x in offsets]
        along = [math.hypot(scale[b] * x[0], scale[b] * x[1], x[2]) for x in offsets]
        assert min(along) < bend < max(along)
        deep.append([huber(d, bend) for d in along])
        flat.append([huber(d, bend / scale[b]) for d in across])
        two.append([huber(d, 0.3) for d in across])
    p, t, s, w = tensors(found, true, scale, weight)
    for got, terms in (
        (losses.point_loss_2d(p, t, w, reduction, huber=0.3), two),
        (losses.point_loss_3d(p, t, s, w, reduction, huber=bend), deep),
        (losses.pose_loss(p, t, s, w, reduction, huber=bend), deep),
    ):
        assert got.item() == pytest.approx(batch(terms, weight, reduction), rel=1e-10)
    expected = batch(deep, weight, reduction) + batch(flat, weight, reduction)
    got = losses.vertex_loss(p, t, s, w, reduction, huber=bend)
    assert got.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    "name",
    ["normal", "edge", "laplacian", "vertex", "heatmap", "huber", "point_2d", "point_3d", "pose"],
)
def test_gradients(surface: Surface, rng: np.random.Generator, name: str) -> None:
    found, true, scale = tensors(
        rng.normal(size=(2, V, 3)), rng.normal(size=(2, V, 3)), np.array([5.0, 7.0])
    )
    weight = torch.tensor([0.3, 1.0], dtype=torch.float64)
    functions = {
        "normal": lambda p: losses.normal_loss(p, true, surface, weight),
        "edge": lambda p: losses.edge_loss(p, true, surface, weight),
        "laplacian": lambda p: losses.laplacian_loss(p, true, surface, weight),
        "vertex": lambda p: losses.vertex_loss(p, true, scale, weight),
        "heatmap": lambda p: losses.heatmap_loss(p[..., None], true[..., None], weight),
        "huber": lambda p: losses.vertex_loss(p, true, scale, weight, huber=3.0),
        "point_2d": lambda p: losses.point_loss_2d(p, true, weight, "sum"),
        "point_3d": lambda p: losses.point_loss_3d(p, true, scale, weight, "sum", huber=4.0),
        "pose": lambda p: losses.pose_loss(p, true, scale, weight),
    }
    assert torch.autograd.gradcheck(functions[name], (found.requires_grad_(),))


def test_huber_is_the_square_then_its_tangent() -> None:
    distance = np.array([0.0, 0.5, 1.0, 3.0])
    points = torch.zeros(1, 4, 3, dtype=torch.float64, requires_grad=True)
    target = torch.zeros(1, 4, 3, dtype=torch.float64)
    target[0, :, 0] = torch.from_numpy(distance)
    loss = losses.point_loss_2d(points, target, reduction="sum", huber=1.0)
    np.testing.assert_allclose(loss.item(), 0 + 0.25 + 1 + (2 * 3 - 1))
    loss.backward()
    np.testing.assert_allclose(points.grad[0, :, 0].numpy(), [0, -1, -2, -2], atol=1e-12)


def test_no_labels_at_all_give_zero_and_no_gradient(surface: Surface) -> None:
    points = torch.rand(2, V, 3, requires_grad=True)
    loss = losses.laplacian_loss(points, torch.zeros(2, V, 3), surface, torch.zeros(2))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.all(points.grad == 0)


def test_to_metric_like_puts_all_axes_in_bones() -> None:
    points = torch.tensor([[[0.5, 0.5, 0.0], [1.0, 0.25, -1.5]]], dtype=torch.float64)
    out = losses.to_metric_like(points, torch.tensor([6.0], dtype=torch.float64))
    expected = [[[0.0, 0.0, 0.0], [3.0, -1.5, -1.5]]]
    np.testing.assert_allclose(out.numpy(), expected)


class TestGaussianHeatmaps:
    def test_values(self) -> None:
        uv = np.array([[[0.3, 0.8], [0.5, 0.5]]])
        maps = losses.gaussian_heatmaps(torch.from_numpy(uv), 32).numpy()
        sigma = 2 / 32  # the paper's 4 px of 64
        for j in range(2):
            for row, column in ((0, 0), (25, 9), (16, 15), (31, 31)):
                du, dv = (column + 0.5) / 32 - uv[0, j, 0], (row + 0.5) / 32 - uv[0, j, 1]
                expected = math.exp(-(du**2 + dv**2) / (2 * sigma**2))
                assert maps[0, j, row, column] == pytest.approx(expected, rel=1e-10, abs=1e-300)

    def test_paper_size_and_given_sigma(self) -> None:
        uv = torch.tensor([[[0.5 / 64, 0.5 / 64]]], dtype=torch.float64)  # centre of cell (0, 0)
        at_sigma = losses.gaussian_heatmaps(uv, 64)[0, 0, 0, 4]
        assert at_sigma.item() == pytest.approx(math.exp(-0.5))
        at_sigma = losses.gaussian_heatmaps(uv, 64, sigma=7.0)[0, 0, 7, 0]
        assert at_sigma.item() == pytest.approx(math.exp(-0.5))

    def test_outside(self) -> None:
        uv = torch.tensor([[[1.02, 0.5], [5.0, 0.5]]])
        maps = losses.gaussian_heatmaps(uv, 32)
        assert maps[0, 0].argmax() % 32 == 31  # the tail that reaches inside
        assert maps[0, 1].max() < 1e-6


def fake_batch(
    rng: np.random.Generator, size: int = 8
) -> tuple[NetworkOutput, dict[str, torch.Tensor]]:
    v, tv, j, tj = (torch.from_numpy(rng.random((3, n, 3))) for n in (V, V, 21, 21))
    output = NetworkOutput(
        v, j, [torch.from_numpy(rng.random((3, 21, size, size)))], j[..., 0], j[:, 0, 0], None
    )
    target = {
        "joints": tj,
        "vertices": tv,
        "crop_in_bones": torch.tensor([5.0, 6.0, 1.0], dtype=torch.float64),
        "has_joints": torch.tensor([True, True, True]),
        "has_depth": torch.tensor([True, True, False]),
        "has_mesh": torch.tensor([True, True, False]),
    }
    return output, target


def test_full_loss_is_the_weighted_sum_of_equation_6(
    surface: Surface, rng: np.random.Generator
) -> None:
    output, target = fake_batch(rng)
    weights = LossWeights(2.0, 3.0, 5.0, 7.0, 11.0, 13.0, huber=None)
    total, terms = losses.full_loss(output, target, surface, weights, "sum")
    # Times what the paper publishes: lambda_H 0.5, lambda_l 50, the others 1.
    factors = {"heatmap": 1, "vertex": 3, "normal": 5, "edge": 7, "laplacian": 550, "pose": 13}
    assert set(terms) == set(factors)
    expected = sum(factors[name] * term.item() for name, term in terms.items())
    assert total.item() == pytest.approx(expected, rel=1e-12)
    # The sample without depth counts in the heat-map term alone.
    output.vertices[2] += 9.0
    output.joints[2] += 9.0
    _, again = losses.full_loss(output, target, surface, weights, "sum")
    assert {k: v.item() for k, v in again.items()} == {k: v.item() for k, v in terms.items()}
    output.heatmaps[0][2] += 1.0
    assert (
        losses.full_loss(output, target, surface, weights, "sum")[1]["heatmap"] != terms["heatmap"]
    )


def test_joints_with_depth_count_without_a_mesh(surface: Surface, rng: np.random.Generator) -> None:
    output, target = fake_batch(rng)
    target["has_mesh"] = torch.tensor([True, False, False])
    _, terms = losses.full_loss(output, target, surface)
    output.vertices[1] += torch.from_numpy(rng.random((V, 3)))
    output.joints[1, :, 2] += 9.0
    _, again = losses.full_loss(output, target, surface)
    changed = {name for name in terms if terms[name].item() != again[name].item()}
    assert changed == {"pose"}


def test_the_paper_s_weights_are_those_of_equation_6_alone() -> None:
    terms = {"heatmap", "vertex", "normal", "edge", "laplacian", "pose"}
    others = {
        weight.name: getattr(PAPER, weight.name)
        for weight in fields(PAPER)
        if weight.name not in terms
    }
    assert others.pop("huber") is None
    assert set(others.values()) == {0.0}


def test_gradient_of_equation_6(surface: Surface, rng: np.random.Generator) -> None:
    """By mesh, joints and maps at once; the normals of Eq. (3) are those of the truth, fixed."""
    output, target = fake_batch(rng, size=4)

    def total(vertices: torch.Tensor, joints: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        found = output._replace(vertices=vertices, joints=joints, heatmaps=[maps])
        return losses.full_loss(found, target, surface, LossWeights(2.0, 3.0, huber=0.9))[0]

    given = output.vertices, output.joints, output.heatmaps[0]
    assert torch.autograd.gradcheck(total, tuple(x.requires_grad_() for x in given))


@pytest.mark.parametrize("stacks", [1, 2])
def test_both_reductions_are_in_the_paper_s_proportion(
    surface: Surface, rng: np.random.Generator, stacks: int
) -> None:
    output, target = fake_batch(rng)
    output.heatmaps.extend([output.heatmaps[0] * 0.5] * (stacks - 1))
    target["has_depth"][:] = target["has_mesh"][:] = True
    mean, total = (losses.full_loss(output, target, surface, reduction=r) for r in ("mean", "sum"))
    assert mean[0].item() * V == pytest.approx(total[0].item(), rel=1e-12)
    # Eq. (6) by hand; L_H adds up the stacks.
    maps = losses.gaussian_heatmaps(target["joints"][..., :2], 8)
    by_hand = 0.5 * sum((m - maps).square().sum((1, 2, 3)).mean().item() for m in output.heatmaps)
    lambdas = {"vertex": 1, "normal": 1, "edge": 1, "laplacian": 50, "pose": 1}
    by_hand += sum(lambdas[name] * total[1][name].item() for name in lambdas)
    assert total[0].item() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_joints_that_are_not_taught_do_not_count(
    rng: np.random.Generator, reduction: losses.Reduction
) -> None:
    """Neither they nor their gradients; a mean is over as many as ever."""
    maps, bells = tensors(rng.random((3, 21, 6, 6)), rng.random((3, 21, 6, 6)))
    points, true = tensors(rng.random((3, 21, 3)), rng.random((3, 21, 3)))
    scale, weight = tensors(rng.uniform(5, 8, 3), np.array([1.0, 0.0, 2.0]))
    taught = torch.from_numpy(rng.random((3, 21)) < 0.7)
    offsets = losses.to_metric_like(points, scale) - losses.to_metric_like(true, scale)
    cases = [  # what is given, the loss, and each joint's summands added up
        (
            maps,
            lambda x: losses.heatmap_loss(x, bells, weight, reduction, taught),
            (maps - bells).square().sum(dim=(2, 3)) / (36 if reduction == "mean" else 1),
        ),
        (
            points,
            lambda x: losses.point_loss_2d(x, true, weight, reduction, taught=taught),
            (points - true)[..., :2].square().sum(dim=-1),
        ),
        (
            points,
            lambda x: losses.pose_loss(x, true, scale, weight, reduction, taught=taught),
            offsets.square().sum(dim=-1),
        ),
    ]
    for given, loss, each in cases:
        x = given.clone().requires_grad_()
        found = loss(x)
        rows = (each * taught).sum(dim=1) / (21 if reduction == "mean" else 1)
        assert found.item() == pytest.approx(((rows * weight).sum() / 3).item(), rel=1e-10)
        (gradient,) = torch.autograd.grad(found, x)
        assert (gradient[~taught] == 0).all()
        assert gradient[0][taught[0]].abs().amax() > 0


class TestHeads:
    def test_confidence(self, rng: np.random.Generator) -> None:
        logits = rng.normal(size=(4, 21))
        joints, true = rng.random((2, 4, 21, 3)) * 0.1
        has_joints = np.array([True, False, False, True])
        has_hand = np.array([True, True, False, True])
        values = []
        for b in (0, 2, 3):  # 1: a hand without labels says nothing
            for j in range(21):
                distance = math.hypot(*(joints[b, j, :2] - true[b, j, :2]))
                right = has_hand[b] and distance < 0.05
                p = 1 / (1 + math.exp(-logits[b, j]))
                values.append(-math.log(p if right else 1 - p))
        x, p, t = tensors(logits, joints, true)
        p.requires_grad_()
        x.requires_grad_()
        loss = losses.confidence_loss(
            x, p, t, torch.from_numpy(has_joints), torch.from_numpy(has_hand)
        )
        assert loss.item() == pytest.approx(float(np.mean(values)), rel=1e-10)
        loss.backward()
        assert p.grad is None
        assert x.grad is not None

    def test_confidence_of_what_is_taught(self, rng: np.random.Generator) -> None:
        """Of other joints nothing is known, but that none is right where there is no hand."""
        logits, joints, true = tensors(
            rng.normal(size=(2, 21)), rng.random((2, 21, 3)) * 0.1, rng.random((2, 21, 3)) * 0.1
        )
        has_hand = torch.tensor([True, False])
        taught = torch.ones(2, 21, dtype=torch.bool)
        whole = losses.confidence_loss(logits, joints, true, has_hand, has_hand, taught=taught)
        assert whole == losses.confidence_loss(logits, joints, true, has_hand, has_hand)
        taught[:, 3] = False
        less = losses.confidence_loss(logits, joints, true, has_hand, has_hand, taught=taught)
        right = math.hypot(*(joints[0, 3, :2] - true[0, 3, :2])) < 0.05
        p = 1 / (1 + math.exp(-logits[0, 3]))
        gone = -math.log(p if right else 1 - p) / (2 * 21)
        assert less.item() == pytest.approx(whole.item() - gone, rel=1e-10)

    def test_gradients(self, rng: np.random.Generator) -> None:
        logits, joints, true = tensors(
            rng.normal(size=(4, 21)), rng.random((4, 21, 3)) * 0.1, rng.random((4, 21, 3)) * 0.1
        )
        labelled, present = torch.rand(2, 4, generator=torch.manual_seed(3)) < 0.6
        weight = torch.tensor([0.5, 0.0, 2.0, 1.0], dtype=torch.float64)
        for loss in (
            lambda x: losses.confidence_loss(x, joints, true, labelled, present),
            lambda x: losses.presence_loss(x[:, 0], present, weight),
            lambda x: losses.handedness_loss(x[:, 0], labelled, weight),
        ):
            assert torch.autograd.gradcheck(loss, (logits.requires_grad_(),))

    def test_presence_and_handedness(self) -> None:
        logit = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
        truth = torch.tensor([True, False, False])
        terms = [math.log1p(math.exp(-2.0)), math.log1p(math.exp(-1.0)), math.log1p(math.exp(0.5))]
        assert losses.presence_loss(logit, truth).item() == pytest.approx(sum(terms) / 3)
        weight = torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)
        expected = (terms[0] + 3 * terms[2]) / 4
        assert losses.handedness_loss(logit, truth, weight).item() == pytest.approx(expected)
