"""What an estimator is told of a hand before it looks: a figure means nothing without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from handmesh.errors import InputError


@dataclass(frozen=True)
class Protocol:
    """Which of a hand's labels an estimator is given. What is not given, it finds or assumes.

    How predictions are aligned to the truth afterwards is not part of it: each figure says that.

    Attributes:
        box: the square around the known joints, `handmesh.types.CROP_MARGIN` times as large as
            their tight box. Otherwise the hand is searched for in the whole picture.
        handedness: whether it is a right or a left hand.
        camera: the picture's intrinsics. Otherwise a usual camera is assumed.
        scale: length of the middle finger's bone from MCP to PIP, in metres. Otherwise it follows
            from a given root, or an adult's is assumed.
        root: the wrist's depth in metres. Otherwise it is solved from what is seen.
    """

    box: bool
    handedness: bool
    camera: bool
    scale: bool
    root: bool

    def __post_init__(self) -> None:
        if self.root and not self.camera:
            raise InputError("a root's depth is of use with a camera only: give both or neither")

    def given(self) -> tuple[str, ...]:
        """Names of what is given, in the order of the attributes."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name))


# The paper's condition (section 5.1), "that the global hand scale and the absolute depth of root
# joint are provided at test time", as STB and RHD are evaluated by it and those before it.
PAPER = Protocol(box=True, handedness=True, camera=True, scale=True, root=True)
# FreiHAND tells the camera and the scale at test time, and shows right hands in the middle.
FREIHAND = Protocol(box=True, handedness=True, camera=True, scale=True, root=False)
# What an app knows that has a detector and nothing else.
IN_THE_WILD = Protocol(box=True, handedness=False, camera=False, scale=False, root=False)
# What an app knows that has nothing.
UNAIDED = Protocol(box=False, handedness=False, camera=False, scale=False, root=False)

STANDARD: Mapping[str, Protocol] = MappingProxyType(
    {"paper": PAPER, "freihand": FREIHAND, "in_the_wild": IN_THE_WILD, "unaided": UNAIDED}
)
