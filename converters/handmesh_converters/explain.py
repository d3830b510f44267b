"""What an export twin holds and what it costs, counted by running it once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from .fold import ExportTwin, FoldedHead

__all__ = ["Explanation", "PartCost", "explain", "graph_constants"]

_HEAD = "network.head"


@dataclass(frozen=True)
class PartCost:
    """One part of an export twin.

    Attributes:
        name: what it does.
        macs: multiply-accumulates of convolutions and matrix products, for one crop, with those
            on filler entries. Gathers, activations and additions are not counted.
        constant_bytes: weights and other constants; what several parts share counts in the first.
        ops: operators that compute, as torch runs them; changes of shape are not counted.
    """

    name: str
    macs: int
    constant_bytes: int
    ops: int


@dataclass(frozen=True)
class Explanation:
    """The form of an export twin and its cost.

    Attributes:
        network: "light" or "paper".
        image_size: side of its crops in pixels.
        form: of the graph convolutions, in words.
        parts: in order of execution.
        polynomial_bytes: of the constants of all T_k(L) or of the L that they are made from, in
            float32; index_bytes: of the indices into them, int64. Both are in ``parts``, too.
    """

    network: str
    image_size: int
    form: str
    parts: tuple[PartCost, ...]
    polynomial_bytes: int
    index_bytes: int

    @property
    def macs(self) -> int:
        """All multiply-accumulates of one crop."""
        return sum(part.macs for part in self.parts)

    @property
    def constant_bytes(self) -> int:
        """Bytes of all constants."""
        return sum(part.constant_bytes for part in self.parts)

    @property
    def ops(self) -> int:
        """All operators."""
        return sum(part.ops for part in self.parts)

    def render(self) -> str:
        """A table as text."""
        total = PartCost("total", self.macs, self.constant_bytes, self.ops)
        lines = [f"{'part':40}{'M MAC':>10}{'KB fp32':>12}{'ops':>8}"]
        lines += [
            f"{part.name:40}{part.macs / 1e6:10.3f}{part.constant_bytes / 1024:12.1f}{part.ops:8}"
            for part in (*self.parts, total)
        ]
        title = f"{self.network}, {self.image_size} x {self.image_size} crops; graph: {self.form}"
        constants = (
            f"constants of all T_k: {self.polynomial_bytes / 1024:.1f} KB fp32, "
            f"and {self.index_bytes / 1024:.1f} KB of indices"
        )
        return "\n".join([title, *lines, constants])


def explain(twin: ExportTwin) -> Explanation:
    """Count the cost of every part of a twin; runs it once on a blank crop."""
    size = twin.image_size
    counter = FlopCounterMode(display=False)
    operators = _Operators(twin)
    with torch.no_grad(), counter, operators:
        twin(torch.zeros(1, size, size, 3, dtype=torch.uint8))
    counts = counter.get_flop_counts()

    def macs(module: str) -> int:
        return sum(counts.get(f"{type(twin).__name__}.{module}", {}).values()) // 2

    seen: set[bytes] = set()

    def constants(module: nn.Module) -> int:
        # By content: a runtime's file holds equal constants once.
        fresh = {_content(tensor): tensor.nbytes for tensor in _tensors(module)}
        total = sum(size for content, size in fresh.items() if content not in seen)
        seen.update(fresh)
        return total

    head = twin.head
    whole = macs("network")
    inside = {
        "latent vector to coarse nodes": ("expand", head.expand),
        **{
            f"graph convolution {i + 1}": (f"convolutions.{i}", module)
            for i, module in enumerate(head.convolutions)
        },
        "vertices to joints": ("joints", head.joints),
    }
    parts = [
        PartCost(name, macs(f"{_HEAD}.{path}"), constants(module), operators.inside(module))
        for name, (path, module) in inside.items()
    ]
    rest = macs(_HEAD) - sum(part.macs for part in parts)
    glue = operators.inside(head) - sum(part.ops for part in parts)
    parts.insert(-1, PartCost("anchors and vertex order", rest, constants(head), glue))
    before = operators.inside(twin) - operators.inside(head)
    trunk = PartCost("trunk", whole - macs(_HEAD), constants(twin.network), before)
    form = twin.form.describe()
    name = twin.network.config.name
    return Explanation(name, size, form, (trunk, *parts), *graph_constants(head))


def graph_constants(head: FoldedHead) -> tuple[int, int]:
    """Bytes of all T_k(L) or of L, float32, and of indices into them, int64, in a decoder.

    Equal constants count once, as in an artifact.
    """
    different = {
        _content(buffer): buffer
        for convolution in head.convolutions
        for buffer in convolution.buffers()
    }
    weights = sum(b.nbytes for b in different.values() if b.is_floating_point())
    return weights, sum(b.nbytes for b in different.values()) - weights


class _Operators(TorchDispatchMode):
    """Counts the operators that run inside each module of a network, those of its children too."""

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self._root, self._open = root, [root]
        self._counts: Counter[nn.Module] = Counter()
        self._hooks: list[RemovableHandle] = []

    def inside(self, module: nn.Module) -> int:
        return self._counts[module]

    def __enter__(self) -> _Operators:
        for module in self._root.modules():
            if module is not self._root:
                self._hooks.append(module.register_forward_pre_hook(self._enter))
                self._hooks.append(module.register_forward_hook(self._leave))
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        for hook in self._hooks:
            hook.remove()

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        self._open.append(module)

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._open.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not func.is_view:
            self._counts.update(self._open)
        return func(*args, **(kwargs or {}))


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _content(tensor: torch.Tensor) -> bytes:
    return hashlib.sha256(repr(tensor.shape).encode() + tensor.numpy().tobytes()).digest()
