"""The training sub-commands: errors that a user meets first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from handmesh.cli import main

WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = None; "
    "from handmesh.cli import main; sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.parametrize(
    "arguments",
    [["train", "--out", "run"], ["evaluate"], ["reference", "--photos", ".", "--out", "c.npz"]],
    ids=lambda a: a[0],
)
def test_without_torch_the_extra_is_named(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 3
    assert "pip install '.[training]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_evaluate_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--rendered", "0"]) == 2
    assert "--photos" in capsys.readouterr().err


def test_reference_writes_crops(tmp_path: Path) -> None:
    import numpy as np

    photos = Path(__file__).parents[2] / "examples" / "photos"
    out = tmp_path / "crops.npz"
    assert main(["reference", "--photos", str(photos), "--side", "32", "--out", str(out)]) == 0
    with np.load(out) as archive:
        assert archive["images"].shape[1:] == (32, 32, 3)
    assert main(["reference", "--photos", str(tmp_path), "--out", str(out)]) == 2


def _labelled_set(folder: Path) -> None:
    """Two noisy pictures with key points in COCO form."""
    import cv2
    import numpy as np

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    annotations, images = [], []
    for k in range(2):
        picture = rng.integers(0, 255, (120, 120, 3), dtype=np.uint8)
        assert cv2.imwrite(str(folder / f"{k}.png"), picture)
        points = np.column_stack([rng.uniform(20, 100, (21, 2)), np.ones(21)])
        images.append({"id": k, "file_name": f"{k}.png"})
        annotations.append({"id": k, "image_id": k, "keypoints": points.ravel().tolist()})
    labels = {"info": {"description": "FreiHand"}, "images": images, "annotations": annotations}
    (folder / "test_two.json").write_text(json.dumps(labels))


def test_labelled_sets_are_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _labelled_set(tmp_path / "sets" / "noise")
    out = tmp_path / "figures.json"
    named = f"coco:test:{tmp_path / 'sets' / 'noise'}"
    arguments = ["evaluate", "--labelled", str(tmp_path / "sets")]

    assert main([*arguments, "--dataset", named, "--limit", "1", "--out", str(out)]) == 0

    reports = json.loads(out.read_text())["reports"]
    by_name = {report["set"]: report for report in reports}
    assert set(by_name) == {"noise", named}
    assert json.loads(out.read_text())["estimator"]["looks"] == 2, "as predict's own"
    assert by_name["noise"]["figures"] == by_name[named]["figures"]
    assert by_name["noise"]["hands"] == 1
    assert by_name["noise"]["protocol"]["name"] == "in_the_wild"
    assert "noise (1 hands)" in capsys.readouterr().out

    assert main([*arguments, "--limit", "1", "--looks", "1", "--out", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert figures["estimator"]["looks"] == 1
    assert figures["reports"][0]["figures"] != by_name["noise"]["figures"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--dataset", "stb:test_sk"], "LAYOUT:SPLIT:FOLDER"),
        (["evaluate", "--dataset", "feet:test:."], "no layout 'feet'"),
        (["evaluate", "--labelled", "."], "holds no folder"),
        (["evaluate", "--limit", "0"], "--limit"),
        (["evaluate", "--looks", "9"], "looks must be from 1 to 5"),
        (["evaluate", "--boxes", "17"], "--boxes must be from 1 to 16"),
        (["evaluate", "--boxes", "2", "--search"], "--boxes goes with protocols that give the box"),
        (["evaluate", "--boxes", "2", "--protocol", "unaided"], "--boxes goes with protocols"),
        (["evaluate", "--looks", "1", "--checkpoint", "a.pt"], "--looks needs a bundle"),
        (["train", "--out", "run", "--dataset", "rhd:train:."], "anno_training.pickle"),
    ],
)
def test_wrong_sets_are_told_before_work_begins(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
