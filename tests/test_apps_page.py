"""The JavaScript of docs/apps.md, from photos to hands, beside what the SDK finds in them.

It runs in Node.js as it stands: with `onnxruntime-node` and `sharp` where NODE_PATH has them,
elsewhere with stand-ins that ask Python for a session's work and for the pixels of a file.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from handmesh import Bundle, Predictor
from handmesh.detector import Detector
from handmesh.imaging import Pyramid, decode
from handmesh.search import Sighting, View, is_near, next_box
from handmesh.types import Box

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "apps.md").read_text(encoding="utf-8")
# Mean distance in pixels of a hand's joints from the SDK's. In the examples it is 0.8 to 3.7, and
# 0.03 to 0.5 where the SDK cuts its crops as the page does; without the further look it is 38 and
# 42 in two of them.
MOST_OFF_PX = 8.0
# Answers a line of JSON: what a function of the page gives for a photo and further arguments.
ASK = """
const [name, width, height, path, more] = process.argv.slice(2);
const pixels = new Uint8Array(require("fs").readFileSync(path));
const photo = { width: Number(width), height: Number(height), pixels };
const functions = {
  cut, find, hands, near: (_, pairs) => pairs.map(([old, box]) => isNear(old, box)),
  next: (_, seen) => seen.map(nextBox),
};
Promise.resolve(functions[name](photo, ...JSON.parse(more)))
  .then((found) => console.log(JSON.stringify(ArrayBuffer.isView(found) ? [...found] : found)));
"""


class Page:
    """The page's program in a folder with the shipped networks."""

    def __init__(self, folder: Path, node: str) -> None:
        code, use = re.findall(r"```javascript\n(.*?)```", PAGE, re.DOTALL)
        (folder / "page.js").write_text(code + ASK, encoding="utf-8")
        (folder / "hands.js").write_text(code + use, encoding="utf-8")
        for name in ("detector", "light"):
            shutil.copy(Bundle.load(name).artifact("onnx"), folder / f"{name}.onnx")
        self._folder, self._node = folder, node
        stand_in = str(ROOT / "tests" / "helpers" / "node")
        paths = [os.environ["NODE_PATH"]] if "NODE_PATH" in os.environ else []
        self._environment = os.environ | {
            "NODE_PATH": os.pathsep.join([*paths, stand_in]),
            "HANDMESH_PYTHON": sys.executable,
        }

    def ask(self, name: str, photo: NDArray[np.uint8], *more: object) -> Any:
        (self._folder / "photo.rgb").write_bytes(photo.tobytes())
        height, width = photo.shape[:2]
        arguments = [name, str(width), str(height), "photo.rgb", json.dumps(more)]
        return json.loads(self.run("page.js", *arguments))

    def run(self, script: str, *arguments: str) -> str:
        """What it prints."""
        done = subprocess.run(
            [self._node, script, *arguments], cwd=self._folder, env=self._environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js to run the page's program in")
    return Page(tmp_path_factory.mktemp("page"), node)


@pytest.fixture(scope="module")
def two_hands(example_photos: dict[str, Path]) -> NDArray[np.uint8]:
    """A right hand and, mirrored, a left one side by side."""
    right, left = (decode(example_photos[name]) for name in ("open_turned", "open"))
    left = left[:, ::-1]
    photo = np.zeros((max(len(right), len(left)), right.shape[1] + left.shape[1], 3), np.uint8)
    photo[: len(right), : right.shape[1]] = right
    photo[: len(left), right.shape[1] :] = left
    return photo


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [70.0, 300.0])
def test_squares_are_cut_as_the_sdk_cuts_them(page: Page, size: float, mirrored: bool) -> None:
    rows, columns = np.mgrid[:90, :140]
    photo = np.stack([columns * 1.5 + 20, rows * 2 + 20, columns + rows], axis=2).astype(np.uint8)
    box = Box(66.0, 41.0, size, 0.7)
    # The page counts from the photo's outer corner, the SDK from the first pixel's centre.
    given = {"x": box.cx + 0.5, "y": box.cy + 0.5, "size": size, "angle": box.angle}
    crop = np.array(page.ask("cut", photo, given, 64, mirrored)).reshape(64, 64, 3)
    expected = Pyramid(photo).crop(box, 64).astype(int)
    expected = expected[:, ::-1] if mirrored else expected
    off = np.abs(crop - expected)
    assert off.mean() < 0.5
    assert np.percentile(off, 95) <= 2
    assert ((crop.sum(axis=2) == 0) == (expected.sum(axis=2) == 0)).mean() > 0.98


def test_the_detector_finds_what_the_sdks_finds(page: Page, two_hands: NDArray[np.uint8]) -> None:
    found = page.ask("find", two_hands)
    with Detector() as detector:
        expected = detector.find(two_hands, 0.3)
    assert len(expected) == 2
    for wanted in expected:
        near = min(found, key=lambda f: abs(f["box"]["x"] - 0.5 - wanted.box.cx))
        assert near["score"] == pytest.approx(wanted.presence, abs=0.1)
        off = [
            near["box"]["x"] - 0.5 - wanted.box.cx,
            near["box"]["y"] - 0.5 - wanted.box.cy,
            near["box"]["size"] - wanted.box.size,
        ]
        assert np.abs(off).max() < 0.05 * wanted.box.size
        assert near["box"]["angle"] == pytest.approx(wanted.box.angle, abs=0.15)


def test_squares_follow_the_joints_as_in_the_sdk(page: Page) -> None:
    rng, boxes, joints = np.random.default_rng(4), [], []
    for _ in range(60):
        box = Box(*rng.uniform(100, 500, 2), rng.uniform(50, 300), rng.uniform(-3, 3))
        uv = rng.uniform(0.5, 0.5 + rng.uniform(0, 0.4), (21, 2))  # some out of all proportion
        boxes.append(box)
        joints.append(np.column_stack([uv, np.zeros(21)]).astype(np.float32))
    ones = np.ones(21, np.float32)
    expected = [
        next_box(Sighting(View(box), uvd, uvd, ones, 1.0, 0.5))
        for box, uvd in zip(boxes, joints, strict=True)
    ]
    nothing = np.zeros((1, 1, 3), np.uint8)
    seen = [
        {"box": _square(box), "joints": box.to_image(uvd[:, :2]).tolist()}
        for box, uvd in zip(boxes, joints, strict=True)
    ]
    for found, wanted in zip(page.ask("next", nothing, seen), expected, strict=True):
        turned = math.remainder(found["angle"] - wanted.angle, math.tau)
        assert turned == pytest.approx(0, abs=1e-5)
        assert [found["x"], found["y"], found["size"]] == pytest.approx(
            [wanted.cx, wanted.cy, wanted.size], rel=1e-5
        )

    # Places, sizes and angles about the limits, and angles beyond a whole turn.
    pairs = []
    for old in boxes:
        dx, dy, grown = rng.uniform(-0.07, 0.07, 3) * old.size
        angle = old.angle + rng.uniform(-0.4, 0.4) + rng.choice([-math.tau, 0, math.tau])
        pairs.append((old, Box(old.cx + dx, old.cy + dy, old.size + grown, angle)))
    near = [is_near(old, new) for old, new in pairs]
    assert 10 < sum(near) < 50
    asked = [[_square(box) for box in pair] for pair in pairs]
    assert page.ask("near", nothing, asked) == near


def _square(box: Box) -> dict[str, float]:
    """As the page has it, but for the half pixel, which does not matter here."""
    return {"x": box.cx, "y": box.cy, "size": box.size, "angle": box.angle}


def _compare(found: list[Any], photo: NDArray[np.uint8], count: int) -> None:
    with Predictor(threads=1) as predictor:
        expected = predictor.predict(photo, max_hands=2, looks=1)  # as often as the page
    assert len(found) == len(expected) == count
    for wanted in expected:
        joints = [np.array(hand["joints"]) for hand in found]
        apart = [
            float(np.linalg.norm(each[:, :2] - 0.5 - wanted.joints_px, axis=1).mean())
            for each in joints
        ]
        hand = found[int(np.argmin(apart))]
        assert wanted.box is not None
        assert min(apart) < min(MOST_OFF_PX, 0.03 * wanted.box.size)
        assert (hand["right"] >= 0.5) == (wanted.handedness == "right")
        assert hand["mirrored"] == (wanted.handedness == "left")
        assert hand["presence"] > 0.5
        assert hand["presence"] == pytest.approx(wanted.presence, abs=0.01)
        assert np.shape(hand["vertices"]) == (1036, 3)


@pytest.mark.parametrize("name", ["open", "open_turned", "hooked", "pointing", "fist"])
def test_hands_of_a_photo(page: Page, example_photos: dict[str, Path], name: str) -> None:
    photo = decode(example_photos[name])
    _compare(page.ask("hands", photo), photo, 1)


def test_a_photo_from_a_file(page: Page, example_photos: dict[str, Path]) -> None:
    said = page.run("hands.js", str(example_photos["pointing"]))
    pattern = r"(left|right) hand, presence (.*), index finger's tip at \((.*), (.*)\)\n"
    found = re.fullmatch(pattern, said)
    assert found is not None, said
    with Predictor(threads=1) as predictor:
        (wanted,) = predictor.predict(example_photos["pointing"], looks=1)
    assert found[1] == wanted.handedness
    assert float(found[2]) == pytest.approx(wanted.presence, abs=0.01)
    tip = np.array([float(found[3]), float(found[4])]) - 0.5
    assert np.linalg.norm(tip - wanted.joints_px[8]) < MOST_OFF_PX


def test_a_right_and_a_left_hand(page: Page, two_hands: NDArray[np.uint8]) -> None:
    found = page.ask("hands", two_hands)
    _compare(found, two_hands, 2)
    assert sorted(hand["mirrored"] for hand in found) == [False, True]


def test_a_photo_without_hands(page: Page) -> None:
    assert page.ask("hands", np.full((60, 80, 3), 90, np.uint8)) == []
