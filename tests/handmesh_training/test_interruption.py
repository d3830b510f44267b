"""Runs that are killed, and runs of several processes, end where a single undisturbed one does."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import short_training
import torch
from torch import Tensor, multiprocessing

from handmesh.graph import Topology
from handmesh_training import parallel
from handmesh_training.heads import build_network
from handmesh_training.parallel import synchronize_norms, total

# A short training in a process of its own.
SCRIPT = [sys.executable, short_training.__file__]
# Loaders are spawned: they import this file, too.
COMMAND = """
import sys
from handmesh.cli import main
from handmesh_training.rendering import EnvironmentSet, SkinSet

environments, plain = EnvironmentSet.procedural(0, count=2, height=32), SkinSet.procedural
EnvironmentSet.procedural = lambda *_: environments
SkinSet.procedural = lambda seed, count, mesh, *_: plain(seed, 2, mesh, size=32)
if __name__ == "__main__":
    from handmesh_training import stages
    from handmesh_training.meshes import unseen_meshes

    stages.unseen_meshes = lambda seed: unseen_meshes(seed, 8)
    sys.exit(main(sys.argv[1:]))
"""


def state_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def finish(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_surroundings")
def test_a_run_that_was_killed_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    """SIGKILL in the middle of an epoch, checkpoints being written all the time."""
    steps = 24
    short_training.train(tmp_path / "whole", steps, lanes=1)
    killed = tmp_path / "killed"
    for _ in range(2):
        process = subprocess.Popen(
            [*SCRIPT, str(killed), str(steps), "1", "adamw"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        log, reached = killed / "log.jsonl", 0
        goal = (len(log.read_text().splitlines()) if log.exists() else 0) + 5
        deadline = time.monotonic() + 120
        while reached < goal and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
            reached = len(log.read_text().splitlines()) if log.exists() else 0
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL, "it was still running"
        assert 0 < state_of(killed)["step"] < steps
    short_training.train(killed, steps, lanes=1)

    one, two = state_of(tmp_path / "whole"), state_of(killed)
    assert one["step"] == two["step"] == steps
    for part in ("network", "average"):
        for name, value in one[part].items():
            assert torch.equal(value, two[part][name]), (part, name)
    leftovers = [path.name for path in killed.iterdir() if path.name.endswith(".tmp")]
    assert len(leftovers) <= 2, "one for each kill at most"


@pytest.mark.slow
@pytest.mark.usefixtures("quick_surroundings")
def test_two_processes_train_as_one_does_on_the_same_batches(tmp_path: Path) -> None:
    """Under torchrun, with two lanes: gradients and norms are those of the whole batch."""
    # Two batches: further on, kinks of the losses make more of what rounding began.
    short_training.train(tmp_path / "one", 2, lanes=2, recipe="sgd")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--master-port", str(free_port())]
    finish([*torchrun, *SCRIPT[1:], str(tmp_path / "two"), "2", "2", "sgd"])

    one, two = state_of(tmp_path / "one"), state_of(tmp_path / "two")
    assert one["images_seen"] == two["images_seen"] == 16
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    # Process 0 tells its own lane's terms; the gradient is that of the whole batch.
    for a, b in zip(*logs, strict=True):
        assert b["gradient"] == pytest.approx(a["gradient"], rel=1e-3)
    # Beside the way that training went, what rounding does in float32 is small.
    torch.manual_seed(0)
    start = build_network(short_training.TINY, Topology.default(), "mesh").state_dict()
    moved = 0
    for part in ("network", "average"):
        for name, value in one[part].items():
            if not value.is_floating_point():
                assert torch.equal(value, two[part][name]), (part, name)
                continue
            way, size = float((value - start[name]).norm()), math.sqrt(value.numel())
            moved += way > 1e-4 * size
            difference = float((value - two[part][name]).norm())
            assert difference <= 1e-3 * way + 1e-6 * size, (part, name)
    assert moved > 100


@pytest.mark.slow
def test_the_command_goes_on_after_a_kill(tmp_path: Path) -> None:
    """With a loader process: killed in the middle of a stage, and called again. The run that nobody
    disturbs has none."""
    script = tmp_path / "handmesh_with_few_skins.py"
    script.write_text(COMMAND)
    train = ["train", "full", "--smoke"]
    plain = [sys.executable, str(script), *train]
    command = [*plain, "--workers", "1"]
    # In a process of its own as well: with as many threads, which order sums.
    finish([*plain, "--workers", "0", "--out", str(tmp_path / "whole")])
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [*command, "--out", str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    log, deadline = killed / "full" / "log.jsonl", time.monotonic() + 200
    while not log.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "it was still running"
    assert not (killed / "full" / "checkpoint.pt").exists()
    finish([*command, "--out", str(killed), "--resume"])

    for stage in ("pose", "full"):
        one, two = state_of(tmp_path / "whole" / stage), state_of(killed / stage)
        assert one["step"] == two["step"]
        for name, value in one["network"].items():
            assert torch.equal(value, two["network"][name]), (stage, name)
        steps = [json.loads(line)["step"] for line in (killed / stage / "log.jsonl").open()]
        assert steps == sorted(steps)


def _norms(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": (Path(folder) / "port").read_text(),
    }
    with parallel.process_group("cpu"):
        network = _with_norms()
        synchronize_norms(network)
        inputs = _inputs()[rank * 3 : rank * 3 + 3].requires_grad_()
        output = network(inputs)
        loss = _loss(output)
        loss.backward()
        torch.save(
            {
                "output": output.detach(),
                "gradient": inputs.grad,
                "weights": [total(p.grad) for p in network.parameters()],
                "state": network.state_dict(),
            },
            Path(folder) / f"{rank}.pt",
        )


def _with_norms() -> torch.nn.Sequential:
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 5, 3, bias=False),
        torch.nn.BatchNorm2d(5),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(80, 4),
        torch.nn.BatchNorm1d(4),
    ).double()


def _inputs() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(6, 2, 6, 6, generator=generator, dtype=torch.float64)


def _loss(output: Tensor) -> Tensor:
    """A sum over samples, so that two halves add up to the whole."""
    return (output.sin() * torch.arange(1, 5)).sum()


def test_norms_of_two_processes_are_those_of_the_joint_batch(tmp_path: Path) -> None:
    (tmp_path / "port").write_text(str(free_port()))
    multiprocessing.spawn(_norms, args=(str(tmp_path),), nprocs=2)
    halves = [torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in (0, 1)]

    network, inputs = _with_norms(), _inputs().requires_grad_()
    output = network(inputs)
    _loss(output).backward()

    exact = {"rtol": 1e-10, "atol": 1e-12}
    assert inputs.grad is not None
    torch.testing.assert_close(torch.cat([h["output"] for h in halves]), output.detach(), **exact)
    torch.testing.assert_close(torch.cat([h["gradient"] for h in halves]), inputs.grad, **exact)
    for i, parameter in enumerate(network.parameters()):
        torch.testing.assert_close(halves[0]["weights"][i], parameter.grad, **exact)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(halves[0]["state"][name], value, **exact)
        torch.testing.assert_close(halves[1]["state"][name], value, **exact)


def test_alone_norms_stay_as_they_are() -> None:
    network = _with_norms()
    synchronize_norms(network)
    assert [type(m) for m in network][1] is torch.nn.BatchNorm2d
    value = torch.ones(3, requires_grad=True)
    assert total(value) is value
