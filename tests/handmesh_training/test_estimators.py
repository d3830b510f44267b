"""Estimators: what they are told, what they show a network, and how its answer is lifted."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from handmesh import BONES, Bundle, Camera, Hand, Predictor
from handmesh.errors import CheckpointError, InputError
from handmesh.graph import Topology
from handmesh.nn import DetectorConfig, LightConfig
from handmesh.types import Handedness
from handmesh_training.checkpoint import describe_network, write_checkpoint
from handmesh_training.datasets import Sample
from handmesh_training.datasets.crops import to_crops
from handmesh_training.estimators import (
    BATCH,
    NetworkEstimator,
    PredictorEstimator,
    Query,
    checkpoint_estimator,
)
from handmesh_training.evaluate import query_for
from handmesh_training.hand import HandModel
from handmesh_training.heads import build_network
from handmesh_training.protocols import FREIHAND, IN_THE_WILD, PAPER, UNAIDED
from handmesh_training.sampling import sample_views

SIDE = 64


@pytest.fixture(scope="module")
def samples(hand_model: HandModel) -> list[Sample]:
    """Three hands of the template, the second one in the mirror, in pictures of noise."""
    rng = np.random.default_rng(0)
    views = sample_views(rng, hand_model, 3, 128, 1.9)
    made = []
    for i in range(3):
        fx, fy, cx, cy = views.intrinsics[i].astype(np.float64)
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        joints, vertices = (np.float64(x[i]) for x in (views.joints_m, views.vertices_m))
        if i == 1:
            joints, vertices = joints * [-1, 1, 1], vertices * [-1, 1, 1]
            K[0, 2] = 127 - cx
        projected = joints @ K.T
        made.append(
            Sample(
                key=str(i),
                image=rng.integers(0, 255, (128, 128, 3), dtype=np.uint8),
                is_right=i != 1,
                joints_px=projected[:, :2] / projected[:, 2:],
                joint_known=np.ones(21, dtype=bool),
                intrinsics=K,
                joints_m=joints,
                vertices_m=vertices.astype(np.float32),
            )
        )
    return made


class Knowing:
    """A network that gives the labels of the crops that it was made for, and checks that these
    are what it is shown; vertices stand for themselves as (u, v, d)."""

    def __init__(self, samples: list[Sample], root: float = 0.0) -> None:
        self.crops = to_crops(samples, SIDE, 1.5, 1)
        self.samples = samples
        self.root = root

    def __call__(
        self, images: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        np.testing.assert_array_equal(images, self.crops.images)
        joints = self.crops.joints.astype(np.float64)
        joints[..., 2] += self.root
        return joints[:, :5].astype(np.float32), joints.astype(np.float32)


def estimator_of(samples: list[Sample], root: float = 0.0) -> NetworkEstimator:
    assert samples[0].joints_m is not None
    lengths = [np.linalg.norm(samples[0].joints_m[c] - samples[0].joints_m[p]) for p, c in BONES]
    unit = np.linalg.norm(samples[0].joints_m[10] - samples[0].joints_m[9])
    return NetworkEstimator(Knowing(samples, root), SIDE, np.array(lengths) / unit, {})


@pytest.mark.parametrize("root", [0.0, 0.3])
def test_a_network_s_answer_is_lifted_to_the_labels(samples: list[Sample], root: float) -> None:
    """Left and right, by another way than the labels went into the crop; an offset of all depths,
    the wrist's included, says nothing."""
    found = estimator_of(samples, root).estimate([query_for(s, PAPER) for s in samples])

    for sample, estimate in zip(samples, found, strict=True):
        assert estimate is not None
        assert sample.joints_m is not None
        np.testing.assert_allclose(estimate.joints_px, sample.joints_px, atol=1e-3)
        np.testing.assert_allclose(estimate.joints_m, sample.joints_m, atol=1e-5)
        np.testing.assert_allclose(estimate.vertices_m, sample.joints_m[:5], atol=1e-5)
        assert estimate.handedness is None
        assert estimate.presence is None


def test_a_root_that_is_not_given_is_solved(samples: list[Sample]) -> None:
    first = samples[:1]
    (found,) = estimator_of(first).estimate([query_for(first[0], FREIHAND)])
    assert found is not None
    assert first[0].joints_m is not None
    np.testing.assert_allclose(found.joints_m, first[0].joints_m, rtol=1e-3, atol=1e-4)
    # Without camera and scale it is a usual camera's and an adult's.
    query = replace(query_for(first[0], PAPER), camera=None, bone_length_m=None, root_depth_m=None)
    (guessed,) = estimator_of(first).estimate([query])
    assert guessed is not None
    bone = np.linalg.norm(guessed.joints_m[10] - guessed.joints_m[9])
    assert bone == pytest.approx(0.047, rel=0.3)
    usual = Camera.default(128, 128)
    np.testing.assert_allclose(usual.project(guessed.joints_m), guessed.joints_px, atol=1e-6)


def test_what_a_network_must_be_told(samples: list[Sample]) -> None:
    estimator = estimator_of(samples)
    for protocol in (PAPER, FREIHAND):
        estimator.require(protocol)
    for protocol, missing in ((IN_THE_WILD, "handedness"), (UNAIDED, "box")):
        with pytest.raises(InputError, match=f"must be told the {missing}"):
            estimator.require(protocol)
        with pytest.raises(InputError, match="box and the handedness"):
            estimator.estimate([query_for(samples[0], protocol)])


def test_outputs_of_another_shape_are_refused(samples: list[Sample]) -> None:
    def wrong(images: NDArray[np.uint8]) -> tuple[Any, Any]:
        return np.zeros((len(images), 0, 3)), np.zeros((len(images), 20, 3))

    with pytest.raises(InputError, match=r"\(1, 20, 3\)"):
        NetworkEstimator(wrong, SIDE, np.ones(20), {}).estimate([query_for(samples[0], PAPER)])


def test_a_predictor_is_asked_as_an_app_asks_it(samples: list[Sample]) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.calls: list[dict[str, Any]] = []

        def predict(self, image: Any, **options: Any) -> list[Hand]:
            self.calls.append({"image": image, **options})
            return []

    recorder = Recorder()
    estimator = PredictorEstimator(cast(Predictor, recorder))
    for protocol in (PAPER, FREIHAND, IN_THE_WILD, UNAIDED):
        estimator.require(protocol)
    query = query_for(samples[1], PAPER)

    assert estimator.estimate([query, Query(samples[0].image)]) == [None, None]

    told, untold = recorder.calls
    assert told["image"] is samples[1].image
    assert told["box"] == query.box
    assert told["handedness"] == "left"
    assert told["camera"] == query.camera
    assert told["bone_length_m"] == query.bone_length_m
    assert told["root_depth_m"] == query.root_depth_m
    assert (told.pop("looks"), untold.pop("looks")) == (2, 2), "as predict's own"
    assert all(value is None for name, value in untold.items() if name != "image")
    PredictorEstimator(cast(Predictor, recorder), looks=3).estimate([query])
    assert recorder.calls[-1]["looks"] == 3


def test_a_bundle_gives_what_its_predictor_gives(samples: list[Sample]) -> None:
    query = query_for(samples[0], PAPER)
    with Predictor() as predictor:
        estimator = PredictorEstimator(predictor)
        (found,) = estimator.estimate([query])
        (hand,) = predictor.predict(
            query.image, box=query.box, camera=query.camera, handedness="right",
            bone_length_m=query.bone_length_m, root_depth_m=query.root_depth_m,
        )  # fmt: skip
        described = dict(estimator.description)
    assert found is not None
    np.testing.assert_array_equal(found.joints_m, hand.joints_m)
    np.testing.assert_array_equal(found.vertices_m, hand.vertices_m)
    assert (found.handedness, found.presence) == ("right", hand.presence)
    bundle = Bundle.load()
    assert described["sha256"] == bundle.manifest["sha256"]
    assert described["name"] == "light"
    assert "onnxruntime" in described["runtime"]
    assert described["looks"] == 2


def test_a_checkpoint_runs_on_normalised_batches(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(b"weights")
    seen = []

    def network(images: torch.Tensor) -> SimpleNamespace:
        seen.append(images)
        joints = torch.full((len(images), 21, 3), 0.5)
        joints[:, :, 2] = torch.linspace(0, 1, 21)
        return SimpleNamespace(vertices=torch.empty(len(images), 0, 3), joints=joints)

    loaded = SimpleNamespace(
        network=network, input_size=SIDE, head="mesh", config=None, stage="full"
    )
    module = SimpleNamespace(load_network=lambda path: loaded if path == file else None)
    monkeypatch.setitem(sys.modules, "handmesh_training.checkpoint", module)

    estimator = checkpoint_estimator(file)
    many = [query_for(samples[0], PAPER)] * (BATCH + 1)
    found = estimator.estimate(many)

    assert [len(images) for images in seen] == [BATCH, 1]
    crops = to_crops(samples[:1], SIDE, 1.5, 1)
    shown = seen[1][0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(shown, crops.images[0] / 255 - 0.5, atol=1e-6)
    assert found[0] is not None
    assert found[0].vertices_m.shape == (0, 3)
    assert estimator.description["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert estimator.description["kind"] == "checkpoint"


def test_a_checkpoint_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no file .*nowhere\.pt"):
        checkpoint_estimator(tmp_path / "nowhere.pt")


@pytest.mark.parametrize("handedness", ["right", "left"])
def test_a_mesh_made_of_joints_is_made_of_a_right_hand_s(
    samples: list[Sample], handedness: Handedness
) -> None:
    """Direct LBS: the mesh of the lifted joints, mirrored in and out for a left hand."""
    joints = np.linspace(0.3, 0.7, 63).reshape(1, 21, 3)
    given: list[np.ndarray] = []

    def mesh_of(joints_m: np.ndarray) -> np.ndarray:
        given.append(joints_m)
        return joints_m[:5] + [0.01, 0, 0]

    estimator = NetworkEstimator(
        lambda crops: (np.empty((len(crops), 0, 3)), joints), SIDE,
        Topology.default().bone_ratios, {}, mesh_of,
    )  # fmt: skip
    query = replace(query_for(samples[0], PAPER), handedness=handedness)
    (found,) = estimator.estimate([query])

    assert found is not None
    side = -1 if handedness == "left" else 1
    np.testing.assert_allclose(given[0][:, 0], side * found.joints_m[:, 0], rtol=1e-5)
    np.testing.assert_allclose(given[0][:, 1:], found.joints_m[:, 1:], rtol=1e-5)
    expected = found.joints_m[:5] + np.array([side * 0.01, 0, 0])
    np.testing.assert_allclose(found.vertices_m, expected, atol=1e-6)


@pytest.mark.parametrize("stage", ["heatmaps", "pose", "detector"])
def test_checkpoints_without_a_trained_mesh_are_refused(
    tiny_config: LightConfig, tmp_path: Path, stage: str
) -> None:
    path, topology = tmp_path / "checkpoint.pt", Topology.default()
    config = DetectorConfig() if stage == "detector" else tiny_config
    state = {
        **describe_network(config, "mesh"),
        "average": build_network(config, topology, "mesh").state_dict(),
        "stage": stage,
    }
    write_checkpoint(path, state)
    word = "evaluate-finding" if stage == "detector" else f"of the stage {stage}"
    with pytest.raises(InputError, match=word):
        checkpoint_estimator(path)
    if stage == "heatmaps":  # which the later ones begin with
        write_checkpoint(path, {**state, "stage": "weak"})
        assert checkpoint_estimator(path).description["kind"] == "checkpoint"


@pytest.mark.parametrize("what", ["joints", "vertices"])
def test_a_network_that_gives_no_numbers_is_told_with_the_hand(
    samples: list[Sample], what: str
) -> None:
    def broken(images: NDArray[np.uint8]) -> tuple[Any, Any]:
        made = {"vertices": np.full((3, 5, 3), 0.5), "joints": np.full((3, 21, 3), 0.5)}
        made[what][1, 4, 2] = np.nan
        return made["vertices"], made["joints"]

    estimator = NetworkEstimator(broken, SIDE, np.ones(20), {})
    queries = [query_for(replace(s, key=f"set/{s.key}"), PAPER) for s in samples]
    with pytest.raises(InputError, match="not finite for the hand set/1 in Box"):
        estimator.estimate(queries)
