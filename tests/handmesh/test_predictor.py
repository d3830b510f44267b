"""From pixels to hands through a network that reads painted joints: see conftest.py."""

from __future__ import annotations

import gc
import inspect
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from handmesh import predictor as predictor_module
from handmesh.bundle import Bundle
from handmesh.errors import (
    BackendError,
    BoxError,
    BundleError,
    CameraError,
    ImageError,
    InputError,
)
from handmesh.geometry import ADULT_BONE_LENGTH_M
from handmesh.graph import Topology
from handmesh.predictor import Predictor
from handmesh.types import Box, Camera, Hand

pytestmark = pytest.mark.usefixtures("found_by_windows")

CAMERA = Camera.default(640, 480)
Make = Callable[..., Any]


@pytest.fixture
def predict(
    bundle: Bundle, make_hand: Make, paint: Make, reading_backend: Make
) -> Callable[..., list[Hand]]:
    """Paint one hand, read it with a perfect network, and return what the SDK makes of it."""

    def run(
        hand: Any = None, taken_with: Camera = CAMERA, doubt: float = 0.02, **options: Any
    ) -> list[Hand]:
        hand = make_hand() if hand is None else hand
        with Predictor(bundle, reading_backend(hand, doubt)) as predictor:
            return predictor.predict(paint(taken_with, hand), **options)

    return run


def _worst(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth, axis=-1).max())


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(
    "wrist_m",
    [
        (0.0, 0.05, 0.40),  # half of the photo
        (0.12, 0.10, 0.70),  # a quarter, off the middle
        (-0.33, -0.08, 0.90),  # a fifth, at the edge
        (0.0, 0.09, 0.26),  # as high as the photo
    ],
)
def test_hand_is_found_wherever_it_is(
    predict: Make, make_hand: Make, wrist_m: tuple[float, float, float], left: bool
) -> None:
    truth = make_hand(wrist_m, left=left)
    (hand,) = predict(truth)
    points = CAMERA.project(truth.joints_m)
    assert hand.handedness == ("left" if left else "right")
    assert _worst(hand.joints_px, points) < 0.02 * hand.box.size
    assert hand.presence > 0.9
    # The last crop is what the network was trained on: 1.5 times the tight box, centred.
    assert hand.box.size == pytest.approx(1.5 * np.ptp(points, axis=0).max(), rel=0.1)


@pytest.mark.parametrize("left", [False, True])
def test_camera_and_bone_length_make_it_metric(predict: Make, make_hand: Make, left: bool) -> None:
    truth = make_hand((0.05, 0.06, 0.45), left=left)
    camera = Camera.from_fov(640, 480, 50)
    (hand,) = predict(truth, camera, camera=camera, bone_length_m=truth.bone_length_m)
    assert hand.depth == "metric"
    assert _worst(hand.joints_m, truth.joints_m) < 0.012
    np.testing.assert_allclose(camera.project(hand.joints_m), hand.joints_px, atol=0.01)
    np.testing.assert_allclose(camera.project(hand.vertices_m), hand.vertices_px, atol=0.01)


def test_known_root_depth_gives_the_size(predict: Make, make_hand: Make) -> None:
    truth = make_hand((0.05, 0.06, 0.9))
    (hand,) = predict(truth, camera=CAMERA, root_depth_m=0.9)
    assert hand.depth == "metric"
    assert hand.joints_m[0, 2] == pytest.approx(0.9, rel=1e-5)
    assert _worst(hand.joints_m, truth.joints_m) < 0.02


@pytest.mark.parametrize(
    "options", [{}, {"camera": CAMERA}, {"bone_length_m": 0.04}, {"root_depth_m": 0.5}]
)
def test_half_the_knowledge_is_not_metric(predict: Make, options: dict[str, Any]) -> None:
    assert predict(**options)[0].depth == "assumed"


def test_assumptions_are_an_adult_and_a_common_camera(predict: Make, make_hand: Make) -> None:
    (hand,) = predict(make_hand())
    assert hand.camera == Camera.default(640, 480)
    bone = np.linalg.norm(hand.joints_m[10] - hand.joints_m[9])
    assert bone == pytest.approx(ADULT_BONE_LENGTH_M, rel=0.1)


def test_left_hands_are_right_hands_in_a_mirror(
    predict: Make, make_hand: Make, topology: Topology
) -> None:
    (right,) = predict(make_hand((0.1, 0.05, 0.5), left=False))
    (left,) = predict(make_hand((-0.1, 0.05, 0.5), left=True))
    np.testing.assert_allclose(left.joints_px, right.joints_px * (-1, 1) + (639, 0), atol=1.0)
    np.testing.assert_allclose(left.vertices_m, right.vertices_m * (-1, 1, 1), atol=3e-3)
    np.testing.assert_array_equal(right.faces, topology.faces)
    np.testing.assert_array_equal(left.faces, topology.faces[:, ::-1])
    for hand in (right, left):
        assert not hand.faces.flags.writeable
        (again,) = predict(make_hand((0.1, 0.05, 0.5), left=hand is left))
        assert again.faces is hand.faces, "constant, and most of a hand's memory"


@pytest.mark.parametrize("left", [False, True])
def test_in_a_mirrored_photo_only_the_name_changes(
    predict: Make, make_hand: Make, left: bool
) -> None:
    truth = make_hand(left=left)
    (plain,), (selfie,) = predict(truth), predict(truth, mirrored=True)
    assert plain.handedness != selfie.handedness
    np.testing.assert_array_equal(plain.vertices_m, selfie.vertices_m)
    np.testing.assert_array_equal(plain.faces, selfie.faces)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_stated_handedness_is_obeyed(
    predict: Make, make_hand: Make, left: bool, mirrored: bool
) -> None:
    # The network is sure of the opposite, and is not asked.
    truth = make_hand(left=left)
    name = "left" if left != mirrored else "right"
    (hand,) = predict(truth, doubt=0.98, handedness=name, mirrored=mirrored)
    assert hand.handedness == name
    assert _worst(hand.joints_px, CAMERA.project(truth.joints_m)) < 0.02 * hand.box.size


def test_mirrored_may_be_numpy_s(predict: Make, make_hand: Make) -> None:
    (hand,) = predict(make_hand(), mirrored=np.True_)
    assert hand.handedness == "left"


@pytest.mark.parametrize("left", [False, True])
def test_in_doubt_both_sides_are_shown(predict: Make, make_hand: Make, left: bool) -> None:
    truth = make_hand(left=left)
    box = Box.from_points(CAMERA.project(truth.joints_m))
    (sure,), (unsure,) = predict(truth, box=box), predict(truth, box=box, doubt=0.4)
    assert unsure.handedness == sure.handedness == ("left" if left else "right")
    assert unsure.crops_seen > sure.crops_seen


def test_given_box_is_refined(predict: Make, make_hand: Make) -> None:
    truth = make_hand()
    points = CAMERA.project(truth.joints_m)
    good = Box.from_points(points)
    rough = Box(good.cx + 0.1 * good.size, good.cy - 0.1 * good.size, good.size * 1.2)
    (hand,) = predict(truth, box=rough)
    assert hand.box.size == pytest.approx(good.size, rel=0.05)
    assert [hand.box.cx, hand.box.cy] == pytest.approx([good.cx, good.cy], abs=0.05 * good.size)


def test_good_box_needs_one_run_of_one_crop(predict: Make, make_hand: Make) -> None:
    truth = make_hand()
    (hand,) = predict(truth, box=Box.from_points(CAMERA.project(truth.joints_m)), looks=1)
    assert hand.crops_seen == 1
    assert _worst(hand.joints_px, CAMERA.project(truth.joints_m)) < 0.02 * hand.box.size


def test_turned_box_gives_the_same_hand(predict: Make, make_hand: Make) -> None:
    truth = make_hand()
    points = CAMERA.project(truth.joints_m)
    for left in (False, True):
        truth = make_hand(left=left)
        points = CAMERA.project(truth.joints_m)
        (hand,) = predict(truth, box=Box.from_points(points, angle=0.5))
        assert abs(hand.box.angle) < 0.3  # and it was turned upright
        assert _worst(hand.joints_px, points) < 0.02 * hand.box.size


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("degrees", [-150, -60, 80, 180])
def test_hands_that_do_not_point_up_are_turned(
    bundle: Bundle, make_hand: Make, paint: Make, reading_backend: Make, degrees: int, left: bool
) -> None:
    upright = make_hand((0, 0, 0), left=left)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    roll = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    truth = replace(upright, joints_m=upright.joints_m @ roll.T + (0.02, 0, 0.6))
    backend = reading_backend(truth)
    (hand,) = Predictor(bundle, backend).predict(paint(CAMERA, truth))
    assert _worst(hand.joints_px, CAMERA.project(truth.joints_m)) < 0.02 * hand.box.size
    assert hand.handedness == ("left" if left else "right")
    seen = hand.box.to_crop(hand.joints_px)
    knuckles = seen[[5, 9, 13, 17]].mean(axis=0) - seen[0]
    assert abs(np.degrees(np.arctan2(knuckles[0], -knuckles[1]))) < 20


def test_rectangle_around_the_hand_will_do(predict: Make, make_hand: Make) -> None:
    truth = make_hand()
    points = CAMERA.project(truth.joints_m)
    rectangle = (*(points.min(axis=0) - 10), *(points.max(axis=0) + 10))
    (hand,) = predict(truth, box=rectangle)
    assert _worst(hand.joints_px, points) < 0.02 * hand.box.size


def test_rectangle_is_the_box_that_from_xyxy_makes(predict: Make, make_hand: Make) -> None:
    points = CAMERA.project(make_hand().joints_m)
    rectangle = (*(points.min(axis=0) - 10), *(points.max(axis=0) + 10))
    (given,), (made,) = predict(box=rectangle), predict(box=Box.from_xyxy(*rectangle))
    assert given.box == made.box
    np.testing.assert_array_equal(given.vertices_m, made.vertices_m)
    # And it is close to the box around the joints, which the network was trained on.
    assert Box.from_xyxy(*rectangle).size == pytest.approx(Box.from_points(points).size, rel=0.1)


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("output", ["vertices", "joints", "presence"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_no_numbers_are_blamed_on_the_backend(
    bundle: Bundle, make_hand: Make, reading_backend: Make, output: str, boxed: bool, value: float
) -> None:
    class Broken:
        name, description, threads = "broken", "a broken runtime", 1
        works = reading_backend(make_hand())

        def run(self, images: np.ndarray) -> Any:
            raw = self.works.run(images)
            array = getattr(raw, output).copy()
            array.flat[-1] = value
            return raw._replace(**{output: array})

    photo = np.full((480, 640, 3), 90, dtype=np.uint8)
    with pytest.raises(BackendError, match=f"a broken runtime: output '{output}'"):
        Predictor(bundle, Broken()).predict(photo, box=(100, 100, 300, 300) if boxed else None)


def test_no_hand_is_an_empty_list(bundle: Bundle, make_hand: Make, reading_backend: Make) -> None:
    backend = reading_backend(make_hand())
    grey = np.full((480, 640, 3), 90, dtype=np.uint8)
    predictor = Predictor(bundle, backend)
    assert predictor.predict(grey) == []
    assert max(backend.batches) <= 16
    # Whoever insists gets the likeliest place, with a presence that says what it is worth.
    (hand,) = predictor.predict(grey, min_presence=0.0)
    assert hand.presence < 0.1
    (hand,) = predictor.predict(grey, box=(100, 100, 300, 300))
    assert hand.presence < 0.1


def test_two_hands_are_found_once_each(
    bundle: Bundle, make_hand: Make, paint: Make, reading_backend: Make
) -> None:
    near, far = make_hand((-0.15, 0.05, 0.5)), make_hand((0.15, 0.05, 0.5))
    image = paint(CAMERA, near)
    other = paint(CAMERA, far)
    image[:, 320:] = other[:, 320:]
    predictor = Predictor(bundle, reading_backend(near))
    hands = sorted(predictor.predict(image, max_hands=3), key=lambda hand: hand.box.cx)
    assert len(hands) == 2
    for hand, truth in zip(hands, (near, far), strict=True):
        assert _worst(hand.joints_px, CAMERA.project(truth.joints_m)) < 0.02 * hand.box.size
    assert len(predictor.predict(image)) == 1


def test_timings_tell_stages_apart(predict: Make) -> None:
    (hand,) = predict()
    assert {"decode", "crop", "network", "geometry"} == set(hand.timings_ms)
    assert hand.crops_seen > 1
    assert min(hand.timings_ms.values()) > 0
    assert hand.backend == "reads painted joints"


def test_large_photos_give_the_same_answer(predict: Make, make_hand: Make) -> None:
    # The same view at 640 x 480 and at 12 megapixels.
    truth = make_hand((0.1, 0.05, 0.6))
    (small,) = predict(truth)
    (large,) = predict(truth, taken_with=Camera.default(4000, 3000))
    assert _worst(large.joints_m, small.joints_m) < 0.01
    np.testing.assert_allclose(large.joints_px / 6.25, small.joints_px, atol=1.0)


def test_files_bytes_and_arrays_are_predicted_alike(
    bundle: Bundle, make_hand: Make, paint: Make, reading_backend: Make, tmp_path: Path
) -> None:
    truth = make_hand()
    image = paint(CAMERA, truth)
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), image[..., ::-1])
    predictor = Predictor(bundle, reading_backend(truth))
    results = [predictor.predict(source)[0] for source in (image, path, path.read_bytes())]
    for result in results[1:]:
        np.testing.assert_array_equal(result.vertices_m, results[0].vertices_m)


@pytest.mark.parametrize(
    "box",
    [
        (700, 10, 900, 200),  # beside the image
        (-300, -300, -100, -100),
        (10, 10, 10, 200),  # empty
        (200, 10, 100, 200),  # inside out
        (1, 2, 3),
        (0, 0, float("nan"), 5),
        (100, 100, 100.5, 100.5),  # a dot
        "everywhere",
        Box(-50, 100, 30),
        Box(320, 240, 1e6),
    ],
)
def test_boxes_that_do_not_fit_the_image_are_refused(predict: Make, box: Any) -> None:
    with pytest.raises(BoxError):
        predict(box=box)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"camera": Camera.default(1280, 960)}, CameraError, "scale with the image"),
        ({"camera": np.eye(3)}, CameraError, "Camera.from_matrix"),
        ({"handedness": "Left"}, InputError, "handedness"),
        ({"max_hands": 0}, InputError, "max_hands"),
        ({"max_hands": None}, InputError, "max_hands"),
        ({"max_hands": float("nan")}, InputError, "max_hands"),
        ({"min_presence": None}, InputError, "min_presence"),
        ({"min_presence": float("nan")}, InputError, "min_presence"),
        ({"min_presence": 50}, InputError, "min_presence"),
        ({"min_presence": -0.1}, InputError, "min_presence"),
        ({"looks": 0}, InputError, "looks"),
        ({"looks": -1}, InputError, "looks must be from 1 to 5, not -1"),
        ({"looks": 6}, InputError, "looks must be from 1 to 5, not 6"),
        ({"looks": 2.5}, InputError, "looks must be a whole number"),
        ({"looks": True}, InputError, "looks must be a whole number, not True"),
        ({"mirrored": "no"}, InputError, "mirrored must be True or False, not 'no'"),
        ({"mirrored": None}, InputError, "mirrored must be True or False, not None"),
        ({"bone_length_m": "x"}, InputError, "bone_length_m"),
        ({"bone_length_m": float("inf")}, InputError, "bone_length_m"),
        ({"bone_length_m": -1}, InputError, "bone_length_m"),
        ({"bone_length_m": 47}, InputError, "bone_length_m .* millimetres"),
        ({"root_depth_m": 0}, InputError, "root_depth_m"),
        ({"root_depth_m": 500}, InputError, "root_depth_m .* millimetres"),
    ],
)
def test_bad_arguments_are_refused(
    predict: Make, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        predict(**options)


@pytest.mark.parametrize("image", [b"text", np.zeros((1, 1, 3), np.uint8), np.zeros((64, 64, 3))])
def test_bad_photos_are_refused(
    bundle: Bundle, make_hand: Make, reading_backend: Make, image: Any
) -> None:
    with pytest.raises(ImageError):
        Predictor(bundle, reading_backend(make_hand())).predict(image)


@pytest.mark.parametrize("backend", [None, 5, np.zeros(3)])
def test_what_is_no_backend_is_refused(bundle: Bundle, backend: Any) -> None:
    with pytest.raises(InputError, match="backend is 'auto'"):
        Predictor(bundle, backend)


def test_what_cannot_search_is_refused_at_once(
    bundle: Bundle, make_hand: Make, reading_backend: Make
) -> None:
    with pytest.raises(InputError, match=r"find is a function .* not str"):
        Predictor(bundle, reading_backend(make_hand()), find="detector")  # type: ignore[arg-type]


def test_closing_lets_the_network_and_the_search_go(
    bundle: Bundle, make_hand: Make, reading_backend: Make
) -> None:
    class Search:
        def __call__(self, *_: Any) -> list[Any]:
            return []

    held: list[Any] = [reading_backend(make_hand()), Search()]
    predictor = Predictor(bundle, held[0], find=held[1])
    left = [weakref.ref(one) for one in held]
    held.clear()
    gc.collect()
    assert all(one() is not None for one in left)
    predictor.close()
    gc.collect()
    assert [one() for one in left] == [None, None]
    with pytest.raises(BackendError, match="closed"):
        _ = predictor.find


def test_closed_predictor_says_so(bundle: Bundle, make_hand: Make, reading_backend: Make) -> None:
    with Predictor(bundle, reading_backend(make_hand())) as predictor:
        pass
    with pytest.raises(BackendError, match="closed"):
        predictor.predict(np.zeros((64, 64, 3), np.uint8))


def test_threads_share_a_predictor(
    bundle: Bundle, make_hand: Make, paint: Make, reading_backend: Make
) -> None:
    hands = [make_hand((x, 0.05, 0.5)) for x in (-0.1, -0.05, 0.0, 0.05, 0.1)]
    predictor = Predictor(bundle, reading_backend(hands[0]))
    found: dict[int, Hand] = {}

    def work(n: int) -> None:
        (found[n],) = predictor.predict(paint(CAMERA, hands[n]))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(hands))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, hand in found.items():
        assert _worst(hand.joints_px, CAMERA.project(hands[n].joints_m)) < 0.02 * hand.box.size
    assert len(found) == len(hands)


def test_missing_bundle_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle"):
        Predictor(tmp_path)


def test_module_level_predict_loads_once(
    monkeypatch: pytest.MonkeyPatch,
    bundle: Bundle,
    make_hand: Make,
    paint: Make,
    reading_backend: Make,
) -> None:
    made: list[Predictor] = []
    truth = make_hand()

    def default() -> Predictor:
        made.append(Predictor(bundle, reading_backend(truth)))
        return made[-1]

    monkeypatch.setattr(predictor_module, "Predictor", default)
    monkeypatch.setattr(predictor_module, "_default", None)
    for _ in range(2):
        assert len(predictor_module.predict(paint(CAMERA, truth), max_hands=1)) == 1
    assert len(made) == 1


def test_module_level_predict_takes_and_passes_on_every_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = dict(inspect.signature(Predictor.predict).parameters)
    del method["self"]
    assert dict(inspect.signature(predictor_module.predict).parameters) == method
    received: dict[str, Any] = {}

    class Recorder:
        def predict(self, image: Any, **options: Any) -> list[Hand]:
            received.update(options, image=image)
            return []

    monkeypatch.setattr(predictor_module, "_default", Recorder())
    sent = {name: object() for name in method}
    predictor_module.predict(**sent)  # type: ignore[arg-type]
    assert received == sent


def test_wrist_depth_of_the_network_is_taken_off(
    bundle: Bundle, make_hand: Make, paint: Make, reading_backend: Make
) -> None:
    # A network whose depths are all off by the same amount means the same hand.
    truth = make_hand()
    box = Box.from_points(CAMERA.project(truth.joints_m))
    exact, shifted = reading_backend(truth), reading_backend(truth)
    shifted.depths = shifted.depths + 0.4
    results = [Predictor(bundle, b).predict(paint(CAMERA, truth), box)[0] for b in (exact, shifted)]
    np.testing.assert_allclose(results[0].vertices_m, results[1].vertices_m, atol=1e-6)
