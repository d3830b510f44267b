"""The launcher's Python, on a "device" that is the CPU: what goes where, on which stream, and what
is refused."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_shim import ShimBinding, compiled, error
from numpy.typing import NDArray

from handmesh_kernels import twin
from handmesh_kernels.constants import Convolution, HeadConstants
from handmesh_kernels.errors import ConstantsError
from handmesh_kernels.launcher import GraphHead
from handmesh_kernels.packing import pack
from handmesh_kernels.params import HEAD_PARAMS, Shape
from handmesh_kernels.plan import plan

Inputs = tuple[NDArray[np.float32], NDArray[np.float32]]
Shim = Callable[[HeadConstants], ShimBinding]


class OnDevice:
    """An array that says where it lies, as torch's and CuPy's do."""

    def __init__(self, array: NDArray[Any], **more: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = {**array.__array_interface__, "strides": None, **more}


@pytest.fixture
def head(shipped: HeadConstants, shim: Shim) -> GraphHead:
    return GraphHead(shipped, 4, shim(shipped), code=b"")


def test_the_struct_is_the_one_in_the_source(libraries: dict[str, Path]) -> None:
    library = ctypes.CDLL(str(libraries["fp32"]))
    library.hm_params_size.restype = library.hm_params_offset.restype = ctypes.c_int64
    assert library.hm_params_size(0) == HEAD_PARAMS.itemsize
    fields = HEAD_PARAMS.fields
    assert fields is not None
    names = ("latent", "maps4", "conv1", "conv4.rows", "blend", "joints", "batch", "points")
    for i, name in enumerate(names):
        outer, _, inner = name.partition(".")
        dtype, offset = fields[outer][:2]
        if inner:
            assert dtype.fields is not None
            offset += dtype.fields[inner][1]
        assert library.hm_params_offset(i) == offset, name


def test_five_launches_on_one_stream(head: GraphHead, make_inputs: Callable[[int], Inputs]) -> None:
    binding: Any = head.binding
    head.run(*make_inputs(2), stream=77)
    assert [launch.kernel for launch, _ in binding.launched] == [
        "hm_expand_4", "hm_conv1_8", "hm_conv2_8", "hm_conv3_8", "hm_finish_1"
    ]  # fmt: skip
    assert {stream for _, stream in binding.launched} == {77}


def test_only_arrays_of_the_host_are_waited_for(
    head: GraphHead, make_inputs: Callable[[int], Inputs]
) -> None:
    """A copy may still read them when the call returns, and then they are the caller's."""
    binding: Any = head.binding
    latent, uv = make_inputs(2)
    binding.waited.clear()
    head.run(OnDevice(latent), uv.ctypes.data, stream=77)
    assert binding.waited == []
    for given in ((latent, OnDevice(uv)), (OnDevice(latent), uv)):
        binding.waited.clear()
        before = len(binding.launched)
        head.run(*given, stream=77)
        assert binding.waited == [(77, before)]


def test_results_are_fetched_on_the_stream_that_filled_them(
    head: GraphHead, make_inputs: Callable[[int], Inputs]
) -> None:
    binding: Any = head.binding
    latent, uv = make_inputs(2)
    vertices, joints = head.run(latent, uv, stream=77)
    head.fetch(vertices)
    head.fetch(joints, 78)
    head.fetch_maps(2)
    assert binding.copied_out == [77, 78, *[77] * 4]
    replay = head.capture(latent.ctypes.data, uv.ctypes.data, 2)
    for stream, used in ((79, 79), (None, head.stream)):
        vertices, joints = replay(stream)
        binding.copied_out.clear()
        head.fetch(vertices)
        head.fetch(joints)
        head.fetch_maps(2)
        assert binding.copied_out == [used] * 6


def test_the_stream_of_a_producer_is_waited_for(
    head: GraphHead, make_inputs: Callable[[int], Inputs]
) -> None:
    """Before anything is launched; not where it is the stream of the run, or none is named."""
    binding: Any = head.binding
    latent, uv = make_inputs(2)
    given: list[tuple[dict[str, Any], list[int]]] = [
        ({}, []), ({"stream": None}, []), ({"stream": 77}, []), ({"stream": 1}, [1]),
        ({"stream": 2}, [2]), ({"stream": 4242}, [4242]),
    ]  # fmt: skip
    for named, waited in given:
        binding.waited.clear()
        before = len(binding.launched)
        head.run(OnDevice(latent, version=3, **named), OnDevice(uv, version=3), stream=77)
        assert binding.waited == [(stream, before) for stream in waited]
    binding.waited.clear()
    head.run(OnDevice(latent), OnDevice(uv, version=3, stream=5), stream=77)
    assert [stream for stream, _ in binding.waited] == [5]


def test_results_name_the_stream_that_filled_them(
    head: GraphHead, make_inputs: Callable[[int], Inputs]
) -> None:
    for stream, named in ((77, 77), (None, head.stream), (0, 1), (2, 2)):
        for result in head.run(*make_inputs(1), stream=stream):
            interface = result.__cuda_array_interface__
            assert (interface["version"], interface["stream"]) == (3, named)


@pytest.mark.parametrize("count", [0, 65536])
def test_batches_that_kernels_cannot_count(shipped: HeadConstants, shim: Shim, count: int) -> None:
    with pytest.raises(ConstantsError, match=r"max_batch must be in 1..65535 for this head"):
        GraphHead(shipped, count, shim(shipped), code=b"")


def test_inputs_may_be_arrays_addresses_or_on_the_device(
    head: GraphHead, shipped: HeadConstants, make_inputs: Callable[[int], Inputs]
) -> None:
    latent, uv = make_inputs(3)
    wanted = twin.run(shipped, latent, uv)
    for given in (
        (latent, uv),
        (OnDevice(latent), OnDevice(uv)),
        (latent.ctypes.data, uv.ctypes.data),
    ):
        vertices, joints = head.run(*given, batch=3)
        assert vertices.shape == (3, 1036, 3)
        assert error(head.fetch(vertices), wanted.vertices) < 1e-5
        assert error(head.fetch(joints), wanted.joints) < 1e-5
    interface = joints.__cuda_array_interface__
    assert interface["data"] == (joints.pointer, False)
    assert interface["shape"] == (3, 21, 3)


def test_a_smaller_batch_after_a_larger_one(
    head: GraphHead, shipped: HeadConstants, make_inputs: Callable[[int], Inputs]
) -> None:
    head.run(*make_inputs(4))
    inputs = make_inputs(1)
    vertices, _ = head.run(*inputs)
    assert error(head.fetch(vertices), twin.run(shipped, *inputs).vertices) < 1e-5


def test_a_graph_replays_with_what_lies_at_its_addresses_then(
    head: GraphHead, shipped: HeadConstants, make_inputs: Callable[..., Inputs]
) -> None:
    latent, uv = make_inputs(2)
    replay = head.capture(latent.ctypes.data, uv.ctypes.data, 2)
    other, other_uv = make_inputs(2, 5)
    latent[:], uv[:] = other, other_uv
    head.run(*make_inputs(1))  # another run in between does not change the recorded one
    vertices, joints = replay(None)
    wanted = twin.run(shipped, other, other_uv)
    assert error(head.fetch(vertices), wanted.vertices) < 1e-5
    assert error(head.fetch(joints), wanted.joints) < 1e-5


def test_a_head_without_anchors(
    shipped: HeadConstants, shim: Shim, make_inputs: Callable[[int], Inputs]
) -> None:
    free = replace(shipped, blend=None)
    head = GraphHead(free, 2, shim(free), code=b"")
    latent, uv = make_inputs(2)
    vertices, _ = head.run(latent)
    assert error(head.fetch(vertices), twin.run(free, latent).vertices) < 1e-5
    with pytest.raises(ConstantsError, match="does not take joints_uv"):
        head.run(latent, uv)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"latent": np.zeros((2, 5), np.float32)}, r"latent must be \(B, 298\), not \(2, 5\)"),
        ({"latent": np.zeros(298, np.float32)}, "latent must be"),
        ({"latent": np.zeros((5, 298), np.float32)}, "joints_uv must be"),
        ({"joints_uv": None}, "needs joints_uv"),
        ({"joints_uv": np.zeros((2, 20, 2), np.float32)}, "joints_uv must be"),
        ({"batch": 1}, "batch is 1, and latent has 2 rows"),
        ({"latent": 4096}, "say how many"),
        (
            {"latent": 4096, "joints_uv": 4096, "batch": 5},
            r"at most 4 samples \(max_batch\), not 5",
        ),
        (
            {"latent": OnDevice(np.zeros((2, 298), np.float16), typestr="<f2")},
            "must be float32 in C order",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    head: GraphHead, make_inputs: Callable[[int], Inputs], change: dict[str, Any], said: str
) -> None:
    latent, uv = make_inputs(2)
    given: dict[str, Any] = {"latent": latent, "joints_uv": uv, **change}
    with pytest.raises(ConstantsError, match=said):
        head.run(**given)
    assert head.binding.launched == []  # type: ignore[attr-defined]


def test_tensor_cores_where_they_are(
    halved: HeadConstants, shipped: HeadConstants, shim: Shim
) -> None:
    assert GraphHead(halved, 1, shim(halved), code=b"").tensor_cores
    assert not GraphHead(shipped, 1, shim(shipped), code=b"").tensor_cores
    old = shim(halved)
    old.architecture = 62
    assert not GraphHead(halved, 1, old, code=b"").tensor_cores
    with pytest.raises(ConstantsError, match="sm_62"):
        GraphHead(halved, 1, old, tensor_cores=True, code=b"")


def test_maps_stay_countable(
    shipped: HeadConstants, shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels count elements in int: a map, and the vertices, of all samples stay below 2^31."""
    packed = pack(shipped, Shape.of(shipped))
    largest = 10_000_000
    sizes = (*packed.map_sizes[:3], largest)
    monkeypatch.setattr(
        "handmesh_kernels.launcher.pack", lambda *_: replace(packed, map_sizes=sizes)
    )
    with pytest.raises(ConstantsError, match=r"max_batch must be in 1\.\.214 for this head"):
        GraphHead(shipped, 215, shim(shipped), code=b"")


@pytest.mark.parametrize("batch", [1, 2, 7, 8, 15, 16, 33, 64])
@pytest.mark.parametrize("tensor_cores", [False, True])
def test_blocks_cover_every_sample_and_node_once(
    halved: HeadConstants, batch: int, tensor_cores: bool
) -> None:
    packed = pack(halved, Shape())
    launches = plan(packed, batch, tensor_cores)
    assert [launch.kernel.split("_")[1] for launch in launches] == [
        "expand", "conv1", "conv2", "conv3", "finish"
    ]  # fmt: skip
    for launch in launches:
        kind, size = launch.kernel.split("_")[1:]
        tile = {"expand": 16, "conv1": 32, "conv2": 32}[kind] if size == "tensor" else int(size)
        if kind.startswith("conv"):
            rows = packed.numbers[f"{kind}.rows"]
            assert (launch.grid[0] - 1) * tile < rows <= launch.grid[0] * tile
            assert launch.grid[1] == batch
        else:
            assert (launch.grid[1] - 1) * tile < batch <= launch.grid[1] * tile


def narrowed(constants: HeadConstants) -> HeadConstants:
    """The same graph with widths that are no powers of two: 6, 10, 5, 3 and a latent of 21."""
    rng = np.random.default_rng(0)
    widths = (6, 10, 5, 3, 3)

    def random(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    convolutions: list[Convolution] = []
    for i, conv in enumerate(constants.convolutions):
        theta = random(3, widths[i], widths[i + 1])
        convolutions.append(replace(conv, theta=theta, bias=random(widths[i + 1])))
    return replace(
        constants,
        expand_weight=random(80 * 6, 21),
        expand_bias=random(80 * 6),
        convolutions=tuple(convolutions),
    )


def test_other_widths_are_filled_up(shipped: HeadConstants, tmp_path: Path) -> None:
    constants = narrowed(shipped)
    shape = Shape.of(constants)
    assert shape == Shape(3, (8, 16, 8, 8), 32, 1036)
    binding = ShimBinding(compiled(tmp_path, "fp32", shape))
    head = GraphHead(constants, 3, binding, code=b"")
    rng = np.random.default_rng(1)
    latent = rng.normal(size=(3, 21)).astype(np.float32)
    uv = rng.random((3, 21, 2), dtype=np.float32)
    vertices, joints = head.run(latent, uv)
    wanted = twin.run(constants, latent, uv)
    assert error(head.fetch(vertices), wanted.vertices) < 1e-5
    assert error(head.fetch(joints), wanted.joints) < 1e-5


def test_kernels_of_another_head_are_refused(shipped: HeadConstants) -> None:
    with pytest.raises(ConstantsError, match="compile them for it"):
        pack(narrowed(shipped), Shape())
    with pytest.raises(ConstantsError, match="304 and 1036"):
        pack(shipped, replace(Shape(), latent=256))


def test_weights_too_large_for_half_are_refused(halved: HeadConstants) -> None:
    weight = halved.expand_weight.copy()
    weight[0, 0] = 1e6
    with pytest.raises(ConstantsError, match="expand_weight has values too large for half"):
        pack(replace(halved, expand_weight=weight), Shape())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("blend", np.zeros((3, 21), np.float32), r"blend must have shape \(1036, 21\)"),
        ("conv2_theta", np.zeros((3, 64, 31), np.float32), "conv2_theta must have shape"),
        ("conv1_inputs", np.array(79), "expand_weight must have shape"),
        ("conv3_inputs", np.array(290), "conv3_inputs must be 291"),
        ("pose_bias", np.full(66, np.nan, np.float32), "pose_bias holds NaN"),
        ("pose_weight", np.ones((66, 3108), np.float32), "rows 63 and 64"),
        ("conv1_columns", None, "conv1_columns must lie in 0..239"),
    ],
)
def test_constants_are_checked(
    arrays: dict[str, NDArray[Any]], name: str, value: Any, said: str
) -> None:
    if value is None:
        value = arrays[name] + 1000
    with pytest.raises(ConstantsError, match=said):
        HeadConstants.from_arrays({**arrays, name: value})


def test_missing_and_damaged_files(arrays: dict[str, NDArray[Any]], tmp_path: Path) -> None:
    with pytest.raises(ConstantsError, match="no array 'pose_bias'"):
        HeadConstants.from_arrays({n: a for n, a in arrays.items() if n != "pose_bias"})
    path = tmp_path / "head.npz"
    with pytest.raises(ConstantsError, match="cannot read"):
        HeadConstants.load(path)
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ConstantsError, match="cannot read"):
        HeadConstants.load(path)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    whole = path.read_bytes()
    for place in range(60, 160, 4):  # the first array's bytes: zlib finds that they are none
        path.write_bytes(whole[:place] + bytes(8) + whole[place + 8 :])
        with pytest.raises(ConstantsError, match="cannot read"):
            HeadConstants.load(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))  # an array, and no archive of them
    with pytest.raises(ConstantsError, match="cannot read"):
        HeadConstants.load(path)
