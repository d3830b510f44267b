from __future__ import annotations

import pytest

import handmesh.errors as errors


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
    assert "pip install 'handmesh[training]'" in str(error)
    assert (error.package, error.extra) == ("torch", "training")
