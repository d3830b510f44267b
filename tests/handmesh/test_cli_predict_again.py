"""What `handmesh predict` leaves of an earlier run's results when a photo is done again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

import handmesh.atomic
import handmesh.cli as cli
import handmesh.predictor
from handmesh.bundle import Bundle
from handmesh.cli_photos import find_photos
from handmesh.predictor import Predictor
from handmesh.types import Camera, Hand

pytestmark = pytest.mark.usefixtures("found_by_windows")

CAMERA = Camera.default(640, 480)
Make = Callable[..., Any]
ONE = {"two_hand.png", "two_side.png", "two_hand.glb", "two_hand.json"}
TWO = ONE | {"two_side2.png", "two_hand2.glb", "two_hand2.json"}
NONE_SURE = ("--min-presence", "1")


@pytest.fixture
def photo(tmp_path: Path, make_hand: Make, paint: Make) -> Path:
    """Two hands, side by side."""
    pixels = paint(CAMERA, *(make_hand(wrist_m=(x, 0.05, 0.5)) for x in (-0.12, 0.12)))
    path = tmp_path / "photos" / "two.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), pixels[..., ::-1])
    os.utime(path, (1e9, 1e9))  # older than any result
    return path


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, make_hand: Make, reading_backend: Make
) -> Callable[..., int]:
    """The command with a network that reads painted joints; its exit code."""
    seen: dict[str, list[Hand]] = {}

    class Remembering(Predictor):
        """All of a test is about one photo, which is looked at once in each way."""

        def predict(self, image: Any, *arguments: Any, **options: Any) -> Any:
            asked = repr((arguments, sorted(options.items())))
            if asked not in seen:
                seen[asked] = super().predict(image, *arguments, **options)
            return seen[asked]

    def make(*arguments: Any, **options: Any) -> Predictor:
        return Remembering(bundle, reading_backend(make_hand()))

    monkeypatch.setattr(handmesh.predictor, "Predictor", make)
    return lambda *arguments: cli.main(["predict", "-q", *map(str, arguments)])


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_fewer_hands_leave_fewer_files(run: Make, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(photo, "--out", out, "--max-hands", 2) == 0
    assert _names(out) == TWO
    (out / "two_hand3.glb").touch()  # of a third hand, whose run was stopped
    others = {"two_hand5.json", "twofold_hand.json", "two_hand2.png"}
    for name in others:
        (out / name).touch()
    assert run(photo, "--out", out) == 0
    assert _names(out) == ONE | others
    assert run(photo, "--out", out, *NONE_SURE) == 1
    assert _names(out) == others
    assert run(photo, "--out", out) == 0
    assert _names(out) == ONE | others


def test_a_photo_without_a_hand_is_remembered_as_one(
    run: Make, photo: Path, tmp_path: Path
) -> None:
    out, skip = tmp_path / "out", "--skip-existing"
    run(photo, "--out", out)
    os.utime(photo, (2e10, 2e10))  # newer than the results: looked at again
    assert run(photo, "--out", out, skip, *NONE_SURE) == 1
    assert _names(out) == {".two_no_hand"}
    os.utime(photo, (1e9, 1e9))
    assert run(photo, "--out", out, skip) == 1, "as it was when it was done"


def test_photos_of_somebody_s_are_no_results(run: Make, photo: Path) -> None:
    pictures = {name: photo.with_name(name) for name in ("two_side.png", "two_hand.png")}
    for path in pictures.values():
        path.write_bytes(photo.read_bytes())
    assert run(photo, "--out", photo.parent, *NONE_SURE) == 1
    assert _names(photo.parent) == {"two.png", *pictures}


@pytest.mark.parametrize("name", ["two_side.png", "two_hand.png", "two_side2.png"])
def test_photos_of_somebody_s_are_not_replaced(
    run: Make, photo: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is anything else of that photo written: it is as if it had not been there."""
    somebody_s = photo.with_name(name)
    somebody_s.write_bytes(photo.read_bytes())
    both = () if name == "two_side.png" else ("--max-hands", "2")
    assert run(photo, "--out", photo.parent, *both) == 2
    assert f"{name} is there and is no result" in capsys.readouterr().err
    assert _names(photo.parent) == {"two.png", name}
    assert somebody_s.read_bytes() == photo.read_bytes()
    somebody_s.unlink()
    assert run(photo, "--out", photo.parent, *both) == 0
    assert run(photo, "--out", photo.parent, *both) == 0, "our own are replaced"


def test_pictures_of_a_run_that_was_stopped_are_no_photos(photo: Path) -> None:
    for name in ("two_hand.glb", "two_hand.png", "two_side.png", "two_hand2.glb", "two_side2.png"):
        photo.with_name(name).touch()
    photo.with_name("two_side3.png").touch()  # somebody's
    found = [str(source.stem) for source in find_photos([str(photo.parent)])]
    assert found == ["two", "two_side3"]


@pytest.mark.parametrize("again", [(), NONE_SURE], ids=["one hand", "none"])
def test_stopped_anywhere_it_is_looked_at_again(
    run: Make,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    again: tuple[str, ...],
) -> None:
    """Stopped before each file that is put in place or removed, of a run after another one."""
    unlink, put_in_place = Path.unlink, handmesh.atomic.put_in_place
    left = 10**9

    def stopping(change: Callable[..., None]) -> Callable[..., None]:
        def changed(path: Path, *rest: Any, **options: Any) -> None:
            nonlocal left
            if path.suffix != ".tmp" or rest:  # not what clears up behind a file in its place
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt
            change(path, *rest, **options)

        return changed

    monkeypatch.setattr(Path, "unlink", stopping(unlink))
    monkeypatch.setattr(handmesh.atomic, "put_in_place", stopping(put_in_place))
    stops = 0
    while True:
        out, left = tmp_path / f"out{stops}", 10**9
        assert run(photo, "--out", out, "--max-hands", 2) == 0
        left = stops
        code = run(photo, "--out", out, *again)
        left = 10**9
        if code != 130:
            break
        assert "two_hand.json" not in _names(out) or _names(out) >= TWO
        before = "two_hand.json" in _names(out)
        run(photo, "--out", out, "--skip-existing", *again)
        wanted = ONE if again == () else {".two_no_hand"}
        assert _names(out) == (TWO if before else wanted)
        stops += 1
    assert stops == 2 + 3 + (4 if again == () else 3)  # what is told, the second hand, the first


def test_what_cannot_be_removed_is_told(
    run: Make, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "two_hand2.glb").mkdir(parents=True)
    assert run(photo, "--out", tmp_path / "out") == 2
    assert "two_hand2.glb, the result of an earlier run: " in capsys.readouterr().err
