"""Protocols say what is given."""

from __future__ import annotations

import dataclasses

import pytest

from handmesh.errors import InputError
from handmesh_training.protocols import FREIHAND, IN_THE_WILD, PAPER, STANDARD, UNAIDED, Protocol


def test_what_each_gives() -> None:
    assert PAPER.given() == ("box", "handedness", "camera", "scale", "root")
    assert FREIHAND.given() == ("box", "handedness", "camera", "scale")
    assert IN_THE_WILD.given() == ("box",)
    assert UNAIDED.given() == ()
    assert list(STANDARD.values()) == [PAPER, FREIHAND, IN_THE_WILD, UNAIDED]


def test_they_cannot_be_changed_nor_contradict_themselves() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PAPER.root = False  # type: ignore[misc]
    with pytest.raises(InputError, match="with a camera"):
        Protocol(box=True, handedness=True, camera=False, scale=True, root=True)
