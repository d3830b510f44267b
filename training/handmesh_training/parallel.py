"""Data-parallel training under ``torchrun``: own crops for each process, gradients averaged."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Join the processes that ``torchrun`` started; nothing to do when it did not.

    Args:
        device: "cpu" or "cuda".

    Yields:
        This process's own device: under torchrun each has the GPU of its number on its machine.
    """
    if "WORLD_SIZE" not in os.environ:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        # Before the group is formed: kernels without a stated device go to the current one.
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process; 0 when there is only one. Process 0 writes files and evaluates."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def synchronized(network: nn.Module, device: torch.device) -> nn.Module:
    """The network such that ``backward`` averages gradients over the processes.

    Batch statistics stay each process's own: those of process 0 are saved.
    """
    if not dist.is_initialized():
        return network
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)


def agreed(flag: bool, device: torch.device) -> bool:
    """What process 0 says, so that all stop at the same batch."""
    if not dist.is_initialized():
        return flag
    value = torch.tensor([flag], dtype=torch.int32, device=device)
    dist.broadcast(value, 0)
    return bool(value.item())


def any_of(flag: bool, device: torch.device) -> bool:
    """Whether any process says so: all learn it, and none goes on waiting for one that stopped."""
    if not dist.is_initialized():
        return flag
    value = torch.tensor([flag], dtype=torch.int32, device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())
