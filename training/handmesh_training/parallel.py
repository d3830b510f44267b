"""Data-parallel training under ``torchrun``: own crops for each process, gradients averaged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.nn.parallel import DistributedDataParallel

from handmesh.errors import BackendUnavailable, InputError

# Process 0 cuts data sets and makes pseudo meshes while the others wait for it.
PATIENCE = timedelta(hours=24)


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Join the processes that ``torchrun`` started; nothing to do when it did not.

    Args:
        device: "cpu" or "cuda"; without torchrun also one GPU by its number, "cuda:1".

    Yields:
        This process's own device: under torchrun each has the GPU of its number on its machine.

    Raises:
        InputError: another device. BackendUnavailable: a GPU that is not there.
    """
    _check(device)
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        # Before the group is formed: kernels without a stated device go to the current one.
        torch.cuda.set_device(device)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def _check(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"there is no device {name!r}: give cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"training runs on cpu or cuda, not on {name!r}")
    if device.type == "cpu":
        return
    if not torch.cuda.is_available():
        raise BackendUnavailable(
            f"{name} was asked for, but torch {torch.__version__} finds no GPU: install a torch "
            "with CUDA and the driver, or give --device cpu"
        )
    under_torchrun = "WORLD_SIZE" in os.environ
    if under_torchrun and device.index is not None:
        raise InputError(
            f"under torchrun each process has a GPU of its own: give --device cuda, not {name}"
        )
    index = int(os.environ["LOCAL_RANK"]) if under_torchrun else (device.index or 0)
    if index >= torch.cuda.device_count():
        raise BackendUnavailable(
            f"GPU {index} was asked for, but there are {torch.cuda.device_count()}: start as many "
            "processes as there are GPUs, or name another"
        )


def rank() -> int:
    """Number of this process; 0 when there is only one. Process 0 writes files and evaluates."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def synchronized(network: nn.Module, device: torch.device, some_unused: bool = False) -> nn.Module:
    """The network such that ``backward`` averages gradients over the processes.

    Args:
        some_unused: some parameters that want a gradient do not get one from every batch.
    """
    if not dist.is_initialized():
        return network
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(
        network, devices, broadcast_buffers=False, find_unused_parameters=some_unused
    )


def agreed(flag: bool, device: torch.device) -> bool:
    """What process 0 says, so that all stop at the same batch."""
    if not dist.is_initialized():
        return flag
    value = torch.tensor([flag], dtype=torch.int32, device=device)
    dist.broadcast(value, 0)
    return bool(value.item())


def any_of(flag: torch.Tensor) -> torch.Tensor:
    """Whether any process says so: all learn it, and none goes on waiting for one that stopped.

    Args:
        flag: () bool.

    Returns:
        () float32 on the same device, above 0 if so; it is not waited for.
    """
    value = flag.float()
    if dist.is_initialized():
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def total(value: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, through which gradients flow back to all of them."""
    if not dist.is_initialized():
        return value
    summed: torch.Tensor = _TotalOverProcesses.apply(value)
    return summed


class _TotalOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        summed = value.detach().clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        # Every process's loss hangs on this process's summand.
        summed = gradient.clone()
        dist.all_reduce(summed)
        return summed


class _SynchronizedNorm(BatchNorm):
    """Batch norm whose statistics are those of the batch of all processes, on any device.

    `torch.nn.SyncBatchNorm` does the same, on GPUs only.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any shape (B, C, ...)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [0, *range(2, x.ndim)]
        shape = (1, -1, *([1] * (x.ndim - 2)))
        count = total(x.new_tensor([x.numel() / x.shape[1]]))
        mean = total(x.sum(dim=axes)) / count  # (C,)
        centred = x - mean.view(shape)
        variance = total(centred.square().sum(dim=axes)) / count  # (C,)
        if self.track_running_stats and self.running_mean is not None:
            with torch.no_grad():
                momentum = 0.1 if self.momentum is None else self.momentum
                unbiased = variance * count / (count - 1)
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(unbiased, momentum)  # type: ignore[union-attr]
                self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)


def synchronize_norms(network: nn.Module) -> None:
    """Give every batch norm the statistics of the batch of all processes. Weights stay.

    With it several processes compute what one would from their joint batch.
    """
    if not dist.is_initialized():
        return
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.__class__ = _SynchronizedNorm


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if dist.is_initialized():
        dist.barrier()
