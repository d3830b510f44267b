"""3D hand meshes from one RGB photo.

    import handmesh as sdk

    for hand in sdk.predict("photo.jpg"):
        print(hand.handedness, hand.joints_m)
        hand.save("hand.glb")

Importing handmesh loads neither a runtime nor OpenCV; the first use does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle import Bundle
    from .calibration import BoneLength, bone_length_from_depth, bone_length_from_object
    from .errors import (
        BackendError,
        BackendUnavailable,
        BoxError,
        BundleError,
        CameraError,
        HandMeshError,
        ImageError,
        InputError,
        IntegrityError,
    )
    from .files import save_animation
    from .predictor import Predictor, load, predict
    from .rig import Pose
    from .tracker import TrackedFrame, TrackedHand, Tracker
    from .types import (
        BONES,
        FINGERS,
        JOINT_NAMES,
        JOINT_PARENTS,
        Box,
        Camera,
        Hand,
        Handedness,
    )
    from .video import open_video

__version__ = "0.1.0"

# Every public name, and the module that it comes from when first asked for.
_HOME = {
    **dict.fromkeys(("predict", "load", "Predictor"), "predictor"),
    **dict.fromkeys(("TrackedFrame", "TrackedHand", "Tracker"), "tracker"),
    "open_video": "video",
    "Bundle": "bundle",
    **dict.fromkeys(
        ("BoneLength", "bone_length_from_depth", "bone_length_from_object"), "calibration"
    ),
    "Pose": "rig",
    "save_animation": "files",
    **dict.fromkeys(
        (
            "BONES",
            "Box",
            "Camera",
            "FINGERS",
            "Hand",
            "Handedness",
            "JOINT_NAMES",
            "JOINT_PARENTS",
        ),
        "types",
    ),
    **dict.fromkeys(
        (
            "BackendError",
            "BackendUnavailable",
            "BoxError",
            "BundleError",
            "CameraError",
            "HandMeshError",
            "ImageError",
            "InputError",
            "IntegrityError",
        ),
        "errors",
    ),
}

__all__ = [
    "BONES",
    "BackendError",
    "BackendUnavailable",
    "BoneLength",
    "Box",
    "BoxError",
    "Bundle",
    "BundleError",
    "Camera",
    "CameraError",
    "FINGERS",
    "Hand",
    "HandMeshError",
    "Handedness",
    "ImageError",
    "InputError",
    "IntegrityError",
    "JOINT_NAMES",
    "JOINT_PARENTS",
    "Pose",
    "Predictor",
    "TrackedFrame",
    "TrackedHand",
    "Tracker",
    "__version__",
    "bone_length_from_depth",
    "bone_length_from_object",
    "load",
    "open_video",
    "predict",
    "save_animation",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
