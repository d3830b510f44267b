"""MediaPipe's ``hand_landmark``, the network that sees one hand, out of its wheel and in LiteRT."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from handmesh.errors import BackendUnavailable
from handmesh.installing import pip_install

__all__ = ["PEERS", "LandmarkNetwork", "Landmarks", "landmark_files", "require_litert"]

PEERS = ("hand_landmark_full", "hand_landmark_lite")


def require_litert() -> None:
    """
    Raises:
        BackendUnavailable: LiteRT, which runs these networks, is not installed.
    """
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise BackendUnavailable(f"LiteRT is not installed: {pip_install('tflite')}")


class Landmarks(NamedTuple):
    """What the network says of one picture.

    Attributes:
        screen: (21, 3) float32, x and y in the picture's pixels from its top-left corner, z in a
            unit of its own. presence: 0..1.
        right: 0..1, how likely it is the person's right hand, if the picture is not mirrored.
            (MediaPipe calls such a hand "Left", as it takes pictures for mirrored ones.)
        world: (21, 3) float32, metres.
    """

    screen: NDArray[np.float32]
    presence: float
    right: float
    world: NDArray[np.float32]


class LandmarkNetwork:
    """One of `PEERS`.

    Args:
        path: its file. threads: of the CPU, with XNNPACK as in MediaPipe.

    Raises:
        BackendUnavailable: LiteRT is not installed.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        require_litert()
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        given = self._interpreter.get_input_details()[0]
        self._input: int = given["index"]
        self.shape: tuple[int, ...] = tuple(int(n) for n in given["shape"])  # (1, S, S, 3)
        # Their order in the file is that of MediaPipe's graph, hand_landmark_cpu.pbtxt.
        self._outputs = [one["index"] for one in self._interpreter.get_output_details()]

    def outputs(self, picture: NDArray[np.float32]) -> list[NDArray[Any]]:
        """All tensors that it gives for a picture (1, S, S, 3), RGB in 0..1."""
        self._interpreter.set_tensor(self._input, picture)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(output) for output in self._outputs]

    def __call__(self, crop: NDArray[np.uint8]) -> Landmarks:
        """What it says of a crop (S, S, 3) uint8 RGB."""
        picture = crop[None].astype(np.float32) / np.float32(255)  # (1, S, S, 3)
        screen, presence, right, world = self.outputs(picture)
        return Landmarks(
            screen.reshape(21, 3), float(presence.item()), float(right.item()), world.reshape(21, 3)
        )


def landmark_files(environment: Path) -> dict[str, Path]:
    """MediaPipe's networks for one hand, by name, out of an environment that holds it.

    Raises:
        BackendUnavailable: they are not there.
    """
    found = {}
    for name in PEERS:
        files = sorted(environment.rglob(f"hand_landmark/{name}.tflite"))
        if not files:
            raise BackendUnavailable(
                f"{environment} holds no {name}.tflite: expected MediaPipe's wheel in it, of a "
                "version that carries its models; remove the folder to have it installed anew"
            )
        found[name] = files[0]
    return found
