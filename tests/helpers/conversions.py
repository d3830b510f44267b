"""Converters take many seconds for a network, and tests ask for the same one again and again."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Result = TypeVar("Result")


class Remembering(Generic[Result]):
    """A converter that converts the same network once.

    The same to the last bit: weights, constants, what the parts are and their order, and the
    example that it is traced with. One that is equal but was put together in another way may count
    as another; that costs time, and nothing else.
    """

    def __init__(self, plain: Callable[[nn.Module, Tensor], Result]) -> None:
        self.plain = plain
        self._known: dict[bytes, Result] = {}

    def __call__(self, module: nn.Module, example: Tensor) -> Result:
        stream = io.BytesIO()
        torch.save((module, example), stream)
        key = hashlib.sha256(stream.getbuffer()).digest()
        if key not in self._known:
            self._known[key] = self.plain(module, example)
        return self._known[key]
