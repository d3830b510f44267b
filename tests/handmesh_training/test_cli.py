"""The training sub-commands: errors that a user meets first."""

from __future__ import annotations

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
    assert "handmesh[training]" in done.stderr
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
