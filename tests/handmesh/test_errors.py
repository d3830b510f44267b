from __future__ import annotations

import re
from pathlib import Path

import pytest

import handmesh.errors as errors
from handmesh.installing import pip_install

ROOT = Path(__file__).resolve().parents[2]


def test_everything_raised_is_one_tree() -> None:
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.HandMeshError)


@pytest.mark.parametrize(
    ("error", "parent"),
    [
        ("InputError", ValueError),
        ("ImageError", errors.InputError),
        ("BoxError", errors.InputError),
        ("CameraError", errors.InputError),
        ("IntegrityError", errors.BundleError),
        ("GraphMismatchError", errors.BundleError),
        ("BackendUnavailable", ImportError),
        ("MissingExtra", ImportError),
        ("ParityError", errors.ExportError),
        ("DivergedError", errors.TrainingError),
        ("CheckpointError", errors.TrainingError),
    ],
)
def test_errors_are_also_what_callers_catch_already(error: str, parent: type) -> None:
    assert issubclass(getattr(errors, error), parent)


def test_every_error_is_drawn_in_the_tree() -> None:
    drawing = errors.__doc__ or ""
    assert [name for name in errors.__all__ if name not in drawing] == []


def test_missing_extra_says_what_to_type() -> None:
    error = errors.MissingExtra("torch", "training")
    assert "pip install '.[training]'" in str(error)
    assert (error.package, error.extra) == ("torch", "training")


def test_remedies_install_what_the_readme_installs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    told = set(re.findall(r"pip install (?:-c constraints\.txt )?([^\s|]*\[\w+\]\S*)", readme))
    assert len(told) > 1
    for target in told:
        extra = target.partition("[")[2].partition("]")[0]
        assert pip_install(extra).startswith(f"pip install {target}".replace('"', "'"))


def test_nothing_else_is_told_to_be_installed() -> None:
    """A package of that name in an index is none of ours."""
    places = [ROOT / name for name in ("sdk", "training", "converters", "kernels", "benchmarks")]
    files = [path for place in places for path in place.rglob("*.py")]
    files += [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]
    assert len(files) > 200
    spelled = re.compile(r"handmesh\[|pip install (-\S+ )+['\"]?handmesh\b")
    found = [path.name for path in files if spelled.search(path.read_text(encoding="utf-8"))]
    assert found == []
