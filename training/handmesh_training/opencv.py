"""OpenCV, imported when it is first used: rendering and augmenting on a GPU run without it."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    import cv2
else:

    class _OnUse:
        _module: ModuleType | None = None

        def __getattr__(self, name: str) -> Any:
            # Drawing calls it tens of thousands of times: the import system is asked once.
            if self._module is None:
                self._module = importlib.import_module("cv2")
            return getattr(self._module, name)

    cv2 = _OnUse()

__all__ = ["cv2", "use_one_thread"]


def use_one_thread() -> None:
    """Keep torch and OpenCV, where there is one, from starting threads in this process."""
    torch.set_num_threads(1)
    if importlib.util.find_spec("cv2") is not None:
        cv2.setNumThreads(0)
