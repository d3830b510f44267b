"""One network, or its decoder, in one runtime: what `network_peers` talks to, a process each.

Run by the interpreter of a peer's environment, or by ours, as ``-m handmesh_benchmarks.
network_child``; a runtime is imported where it is used. Reads one JSON object a line and answers
each with one. The clock is around one crop: arrays in, arrays out, whatever the runtime needs to
convert between them inside.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from handmesh import Bundle

Arrays = Mapping[str, NDArray[Any]]
# Inputs of one crop to (vertices, joints).
Run = Callable[[Arrays], tuple[NDArray[Any], NDArray[Any]]]
Request = Mapping[str, Any]
# In the order in which a head takes them; the second only where it is anchored.
HEAD_INPUTS = ("latent", "joints_uv")


def onnxruntime(request: Request) -> tuple[Run, str]:
    """The .onnx file as `handmesh` runs it: on the CPU, threads that do not spin."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = request["threads"], 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(request["model"], options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()[:2]]

    def run(inputs: Arrays) -> tuple[NDArray[Any], NDArray[Any]]:
        vertices, joints = session.run(names, dict(inputs))
        return vertices, joints

    return run, f"onnxruntime {onnxruntime.__version__}, CPU"


def openvino(request: Request) -> tuple[Run, str]:
    """The same .onnx file in OpenVINO on the CPU, in float32 like the others, tuned for latency."""
    import openvino

    core = openvino.Core()
    model = core.read_model(request["model"])
    shapes = {name: value.shape for name, value in request["shaped"].items()}
    model.reshape({name: list(shape) for name, shape in shapes.items()})
    # Where the processor has bfloat16 OpenVINO would compute in it unless told otherwise.
    options = {
        "INFERENCE_NUM_THREADS": request["threads"],
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(model, "CPU", options)
    asked = compiled.create_infer_request()
    outputs = [compiled.output(i) for i in range(2)]

    def run(inputs: Arrays) -> tuple[NDArray[Any], NDArray[Any]]:
        found = asked.infer(dict(inputs))
        return found[outputs[0]], found[outputs[1]]

    return run, f"openvino {openvino.__version__.split('-')[0]}, CPU"


def torch_eager(request: Request) -> tuple[Run, str]:
    """The network of the weights, as training runs it."""
    return _network(request, compiled=False)


def torch_compiled(request: Request) -> tuple[Run, str]:
    """The same through torch.compile, which needs a C++ compiler on a CPU."""
    compilers = [os.environ.get("CXX"), "g++", "clang++", "cl"]
    if not any(name and shutil.which(name) for name in compilers):
        raise RuntimeError("torch.compile needs a C++ compiler on a CPU and there is none: g++")
    return _network(request, compiled=True)


def _network(request: Request, compiled: bool) -> tuple[Run, str]:
    import torch

    torch.set_num_threads(request["threads"])
    network: Any = _loaded(_bundle(request)).to(memory_format=torch.channels_last)

    def forward(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = network(images.permute(0, 3, 1, 2).float() / 255 - 0.5)  # (N, 3, S, S)
        return output.vertices, output.joints

    called = torch.compile(forward, dynamic=False) if compiled else forward

    def run(inputs: Arrays) -> tuple[NDArray[Any], NDArray[Any]]:
        with torch.inference_mode():
            vertices, joints = called(torch.from_numpy(inputs["image"]))
        return vertices.numpy(), joints.numpy()

    return run, f"torch {torch.__version__}, CPU, {'torch.compile' if compiled else 'eager'}"


def decoder_torch(request: Request) -> tuple[Run, str]:
    """The graph decoder as training runs it."""
    import torch

    torch.set_num_threads(request["threads"])
    head = _loaded(_bundle(request)).head

    def run(inputs: Arrays) -> tuple[NDArray[Any], NDArray[Any]]:
        with torch.inference_mode():
            given = [torch.from_numpy(inputs[name]) for name in HEAD_INPUTS if name in inputs]
            vertices, joints = head(*given)
        return vertices.numpy(), joints.numpy()

    return run, f"torch {torch.__version__}, CPU, eager"


def decoder_chebconv(request: Request) -> tuple[Run, str]:
    """The graph decoder of PyTorch Geometric's ChebConv layers, with our weights in them."""
    import torch
    import torch_geometric

    from handmesh_kernels.constants import HeadConstants

    from .kernels_peers import make

    torch.set_num_threads(request["threads"])
    constants = HeadConstants.load(request["constants"])
    head = make("pyg", constants, _bundle(request).topology, "cpu", torch.float32)
    assert head is not None  # it was imported above

    def run(inputs: Arrays) -> tuple[NDArray[Any], NDArray[Any]]:
        with torch.inference_mode():
            latent, uv = (torch.from_numpy(inputs[name]) for name in HEAD_INPUTS)
            vertices, joints = head(latent, uv)
        return vertices.numpy(), joints.numpy()

    return run, f"torch_geometric {torch_geometric.__version__}, torch {torch.__version__}, CPU"


WAYS: Mapping[str, Callable[[Request], tuple[Run, str]]] = {
    "network onnxruntime": onnxruntime,
    "network openvino": openvino,
    "network torch": torch_eager,
    "network torch.compile": torch_compiled,
    "decoder onnxruntime": onnxruntime,
    "decoder openvino": openvino,
    "decoder torch": decoder_torch,
    "decoder chebconv": decoder_chebconv,
}


def _bundle(request: Request) -> Bundle:
    from handmesh import Bundle

    return Bundle.load(request["bundle"])


def _loaded(bundle: Bundle) -> Any:
    from handmesh.nn import build, load_weights, read_config

    path = bundle.artifact("torch")
    config = read_config(path)
    network = build(config, bundle.topology)
    load_weights(network, path, config, bundle.topology)
    return network.eval()


class _Served:
    """What is loaded, and the crop whose turn it is."""

    def __init__(self, request: Request) -> None:
        with np.load(request["inputs"]) as archive:
            arrays = {name: archive[name] for name in archive.files}
        count = len(next(iter(arrays.values())))
        self.inputs = [
            {name: np.ascontiguousarray(array[i : i + 1]) for name, array in arrays.items()}
            for i in range(count)
        ]
        start = time.perf_counter()
        self.run, self.words = WAYS[request["way"]]({**request, "shaped": self.inputs[0]})
        self.run(self.inputs[0])
        self.load_s = time.perf_counter() - start
        found = [self.run(inputs) for inputs in self.inputs]
        vertices, joints = (np.concatenate([np.array(each[i]) for each in found]) for i in (0, 1))
        np.savez(request["outputs"], vertices=vertices, joints=joints)
        self.turn = 0

    def one(self) -> float:
        """Milliseconds of the next crop."""
        inputs = self.inputs[self.turn % len(self.inputs)]
        self.turn += 1
        start = time.perf_counter()
        self.run(inputs)
        return (time.perf_counter() - start) * 1e3


def main() -> None:
    # What runtimes print would get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    served: _Served | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if served is not None and request["do"] == "run":
            answer: dict[str, Any] = {"ms": served.one()}
        else:
            try:
                served = _Served(request)
                answer = {"provider": served.words, "load_s": served.load_s}
            except Exception as error:  # whatever a runtime raises is told, and not measured
                answer = {"missing": f"{type(error).__name__}: {str(error).strip()}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
