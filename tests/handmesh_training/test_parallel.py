"""Several processes average their gradients and stop together."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import multiprocessing, nn

from handmesh.errors import BackendUnavailable, HandMeshError
from handmesh_training import parallel


def test_alone_there_is_nothing_to_synchronise() -> None:
    network = nn.Linear(2, 1)
    assert parallel.rank() == 0
    assert parallel.world_size() == 1
    assert parallel.synchronized(network, torch.device("cpu")) is network
    assert parallel.agreed(True, torch.device("cpu"))
    assert not parallel.agreed(False, torch.device("cpu"))
    assert parallel.any_of(torch.tensor(True))
    assert not parallel.any_of(torch.tensor(False))


def test_each_process_of_a_machine_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str]] = []

    def init(backend: str, timeout: timedelta) -> None:
        # Others wait for process 0 while it cuts data sets; torch's own patience is half an hour.
        assert timeout > timedelta(hours=6)
        calls.append(("group", backend))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("gpu", device)))
    monkeypatch.setattr(parallel.dist, "init_process_group", init)
    monkeypatch.setattr(parallel.dist, "destroy_process_group", lambda: None)
    with parallel.process_group("cuda") as device:
        assert device == "cuda:3"
    assert calls == [("gpu", "cuda:3"), ("group", "nccl")]
    for local, name, words in (("3", "cuda:1", "give --device cuda"), ("4", "cuda", "there are 4")):
        monkeypatch.setenv("LOCAL_RANK", local)
        with pytest.raises(HandMeshError, match=words), parallel.process_group(name):
            pass
    monkeypatch.delenv("WORLD_SIZE")
    for name in ("cuda", "cuda:3"):
        with parallel.process_group(name) as device:
            assert device == name
    with pytest.raises(BackendUnavailable, match="there are 4"), parallel.process_group("cuda:4"):
        pass


def _gradient(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    network.zero_grad()
    network(inputs).square().mean().backward()
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def _statistics(
    inputs: torch.Tensor, prepare: Callable[[nn.Module], object]
) -> dict[str, torch.Tensor]:
    """What a batch norm keeps of one batch."""
    norm = nn.BatchNorm1d(3)
    prepare(norm)
    norm(inputs)
    return norm.state_dict()


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": (Path(folder) / "port").read_text(),
    }
    cpu = torch.device("cpu")
    with parallel.process_group("cpu"):
        torch.manual_seed(rank)  # different starts: process 0's is taken over
        network = nn.Linear(3, 2)
        both = parallel.synchronized(network, cpu)
        inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(10 + rank))
        result = {
            "gradient": _gradient(both, inputs),
            "weight": network.weight.detach(),
            "stop": parallel.agreed(rank == 0, cpu),
            "any": [
                bool(parallel.any_of(torch.tensor(flag)))
                for flag in (rank == 0, rank == 1, True, False)
            ],
            "norm": _statistics(inputs + 5 * rank, parallel.synchronize_norms),
            "rank": parallel.rank(),
            "world": parallel.world_size(),
        }
        torch.save(result, Path(folder) / f"{rank}.pt")


def test_two_processes_give_the_gradient_of_the_joint_batch(tmp_path: Path) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(probe.getsockname()[1]))
    multiprocessing.spawn(_work, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1))
    assert (first["rank"], second["rank"], first["world"]) == (0, 1, 2)
    torch.testing.assert_close(first["weight"], second["weight"])
    torch.testing.assert_close(first["gradient"], second["gradient"])
    assert first["stop"]
    assert second["stop"]  # process 0 said so
    assert first["any"] == second["any"] == [True, True, True, False]

    torch.manual_seed(0)
    alone = nn.Linear(3, 2)
    joint = torch.cat(
        [torch.randn(4, 3, generator=torch.Generator().manual_seed(10 + r)) for r in (0, 1)]
    )
    torch.testing.assert_close(first["gradient"], _gradient(alone, joint))
    shifted = torch.cat([joint[:4], joint[4:] + 5])
    for kept in (first["norm"], second["norm"]):
        torch.testing.assert_close(kept, _statistics(shifted, lambda norm: None))
