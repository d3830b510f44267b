"""Compiling for GPUs that are not there, and keeping the result."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from handmesh_kernels import bindings, cache, nvrtc, sources
from handmesh_kernels import compile as compiling
from handmesh_kernels.errors import CompileError, NoDevice
from handmesh_kernels.params import Shape

JETSON = Path(__file__).parents[2] / "docs" / "jetson.md"
LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'hm_two' for 'sm_87'
ptxas info    : Function properties for hm_two
ptxas         .     8 bytes stack frame, {spills} bytes spill stores, {spills} bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 14848 bytes smem, 672 bytes cmem[0]
ptxas info    : Compiling entry function 'hm_one' for 'sm_87'
ptxas info    : Function properties for hm_one
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 18 registers, 384 bytes cmem[0]
"""


@dataclass
class FakeCompiler:
    """Says what it is told to say."""

    log: str = LOG.format(spills=0)
    name: str = "NVRTC 12.6"
    makes_cubin: bool = True
    known: tuple[int, ...] = (53, 87, 90)
    asked: list[list[str]] = field(default_factory=list)

    def architectures(self) -> list[int]:
        return list(self.known)

    def compile(
        self, name: str, source: str, headers: Any, options: list[str], cubin: bool
    ) -> tuple[bytes, str]:
        self.asked.append([name, *options])
        return b"machine code" if cubin else b"ptx", self.log


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCompiler:
    fake = FakeCompiler()
    monkeypatch.setattr(nvrtc, "load", lambda: fake)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HANDMESH_KERNELS", raising=False)
    return fake


def test_resources_are_read(compiler: FakeCompiler) -> None:
    built = compiling.build(compiler, 87, "fp16")  # type: ignore[arg-type]
    assert built.usage == (
        compiling.Usage("hm_one", 18, 0, 0, 0),
        compiling.Usage("hm_two", 40, 14848, 0, 8),
    )
    (asked,) = compiler.asked
    assert asked[:3] == ["decoder.cu", "--gpu-architecture=sm_87", "--std=c++14"]
    assert {"-DHM_HALF=1", "-DHM_WIDTH2=32", "-DHM_LATENT=512"} <= set(asked)


def test_a_spill_fails(compiler: FakeCompiler, tmp_path: Path, capsys: Any) -> None:
    compiler.log = LOG.format(spills=4)
    with pytest.raises(CompileError, match="sm_87, fp32: hm_two spill"):
        compiling.build(compiler, 87, "fp32")  # type: ignore[arg-type]
    assert compiling.main(["--arch", "87", "--out", str(tmp_path / "out")]) == 1
    assert "spill" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_more_shared_memory_than_a_block_may_have_fails(
    compiler: FakeCompiler, tmp_path: Path, capsys: Any
) -> None:
    fits, more = (LOG.format(spills=0).replace("14848", str(size)) for size in (49152, 49153))
    compiler.log = fits
    compiling.build(compiler, 87, "fp32")  # type: ignore[arg-type]
    compiler.log = more
    said = "sm_87, fp32: hm_two takes 49,153 bytes of shared memory, and a block may have 49,152"
    with pytest.raises(CompileError, match=said):
        compiling.build(compiler, 87, "fp32")  # type: ignore[arg-type]
    assert compiling.main(["--arch", "87", "--out", str(tmp_path / "out")]) == 1
    assert "hm_two takes 49,153" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (Shape(latent=2048), "kernel hm_expand_8 would take 67,584 bytes"),
        (Shape(vertices=2560), "kernel hm_finish_2 would take"),
        (Shape(widths=(64, 512, 32, 32)), "kernel hm_conv1_32 would take 66,048 bytes"),
        (Shape(widths=(1024, 64, 32, 32)), "layers of 1024 channels .* the kernels take 512"),
    ],
)
def test_heads_that_no_device_takes_are_refused_before_they_are_compiled(
    compiler: FakeCompiler, shape: Shape, said: str
) -> None:
    with pytest.raises(CompileError, match=said):
        compiling.build(compiler, 53, "fp32", shape, cubin=False)  # type: ignore[arg-type]
    assert compiler.asked == []


def test_shared_memory_is_counted_as_the_assembler_does() -> None:
    """Against the documented table, which is the assembler's."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in JETSON.read_text(encoding="utf-8").splitlines()
        if line.startswith("| hm_")
    ]
    counted = Shape().scalar_bytes() | Shape().tensor_bytes()
    assert {row[0] for row in cells} == set(counted)
    for row in cells:
        assert counted[row[0]] / 1024 == pytest.approx(float(row[-1]), abs=0.06), row[0]


def test_tensor_cores_are_left_out_where_their_tiles_do_not_fit() -> None:
    wide = Shape(widths=(64, 128, 128, 32))
    assert wide.tensor_bytes()["hm_conv1_tensor"] == 57856
    assert not wide.tensor_cores
    assert not wide.refused()
    assert "-DHM_TENSOR_CORES=0" in wide.defines("fp16")
    assert "-DHM_TENSOR_CORES=1" in Shape().defines("fp16")


def test_an_assembler_that_reports_nothing_is_no_proof(
    compiler: FakeCompiler, tmp_path: Path, capsys: Any
) -> None:
    compiler.log = ""
    assert compiling.build(compiler, 87, "fp32").usage == ()  # type: ignore[arg-type]
    assert compiling.main(["--arch", "87", "--out", str(tmp_path / "out")]) == 1
    assert "spills would go unseen" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_architectures_are_named(compiler: FakeCompiler) -> None:
    with pytest.raises(CompileError, match="does not compile for sm_110; it knows 53, 87, 90"):
        compiling.build(compiler, 110, "fp32")  # type: ignore[arg-type]
    with pytest.raises(CompileError, match="does not know Thor"):
        compiling.architectures("53,thor", compiler.known)
    with pytest.raises(CompileError, match="'orin'"):
        compiling.architectures("orin", compiler.known)
    assert compiling.architectures("53, thor", (53, 101)) == [53, 101]
    assert compiling.architectures("thor", (101, 110)) == [110]


def test_the_command_writes_code_and_an_index(
    compiler: FakeCompiler, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    assert compiling.main(["--arch", "53,87", "--ptx", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        *(f"handmesh_sm{a}_{s}.{k}" for a in (53, 87) for s in ("fp16", "fp32")
          for k in ("cubin", "ptx")),
        "kernels.json",
    ]  # fmt: skip
    index = json.loads((out / "kernels.json").read_text())
    assert index["sources_sha256"] == sources.sha256()
    printed = capsys.readouterr().out
    assert "| hm_two | 40 / 14.5 | 40 / 14.5 | 40 / 14.5 | 40 / 14.5 |" in printed


def test_compiled_once(compiler: FakeCompiler) -> None:
    for _ in range(2):
        assert cache.kernel_code(87, "fp16", Shape()) == b"machine code"
    assert len(compiler.asked) == 1
    cache.kernel_code(90, "fp16", Shape())
    cache.kernel_code(87, "fp32", Shape())
    cache.kernel_code(87, "fp16", Shape(latent=1024))
    compiler.name = "NVRTC 12.9"
    cache.kernel_code(87, "fp16", Shape())
    assert len(compiler.asked) == 5
    assert [path.suffix for path in cache.folder().iterdir()] == [".bin"] * 5, "and nothing half"


def test_other_sources_are_other_code(
    compiler: FakeCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.kernel_code(87, "fp16", Shape())
    monkeypatch.setattr(sources, "sha256", lambda: "changed")
    cache.kernel_code(87, "fp16", Shape())
    assert len(compiler.asked) == 2


def test_an_old_compiler_makes_ptx(compiler: FakeCompiler) -> None:
    compiler.makes_cubin, compiler.known = False, ()
    assert cache.kernel_code(53, "fp32", Shape()) == b"ptx"
    assert "--gpu-architecture=compute_53" in compiler.asked[0]


def test_a_folder_of_compiled_kernels(
    compiler: FakeCompiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    compiling.main(["--arch", "87", "--out", str(out)])
    monkeypatch.setenv("HANDMESH_KERNELS", str(out))
    monkeypatch.setattr(nvrtc, "load", lambda: pytest.fail("no compiler is needed"))
    assert cache.kernel_code(87, "fp16", Shape()) == b"machine code"
    with pytest.raises(CompileError, match=r"no .*handmesh_sm90_fp16\.cubin"):
        cache.kernel_code(90, "fp16", Shape())
    with pytest.raises(CompileError, match="compiled for a head of"):
        cache.kernel_code(87, "fp16", Shape(latent=1024))
    monkeypatch.setattr(sources, "sha256", lambda: "changed")
    with pytest.raises(CompileError, match="from other sources"):
        cache.kernel_code(87, "fp16", Shape())
    monkeypatch.setenv("HANDMESH_KERNELS", str(tmp_path / "nowhere"))
    with pytest.raises(CompileError, match="cannot read"):
        cache.kernel_code(87, "fp16", Shape())


def test_code_that_the_index_does_not_list_is_refused(
    compiler: FakeCompiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    compiling.main(["--arch", "87", "--out", str(out)])
    compiling.main(["--arch", "90", "--out", str(out)])
    monkeypatch.setenv("HANDMESH_KERNELS", str(out))
    for architecture in (87, 90):  # a later run adds to what was there
        assert cache.kernel_code(architecture, "fp16", Shape()) == b"machine code"
    (out / "handmesh_sm53_fp16.cubin").write_bytes(b"machine code")
    with pytest.raises(CompileError, match=r"sm53_fp16\.cubin is not the file that kernels\.json"):
        cache.kernel_code(53, "fp16", Shape())
    (out / "handmesh_sm87_fp16.cubin").write_bytes(b"older code")
    with pytest.raises(CompileError, match=r"sm87_fp16\.cubin is not the file .* make it again"):
        cache.kernel_code(87, "fp16", Shape())
    index = json.loads((out / "kernels.json").read_text())
    assert index["files"]["handmesh_sm90_fp16.cubin"]["compiler"] == "NVRTC 12.6"
    for broken in ({**index, "files": {}, "shape": 3}, {**index, "files": [1]}, [], {}):
        (out / "kernels.json").write_text(json.dumps(broken))
        with pytest.raises(CompileError, match="cannot read"):
            cache.kernel_code(87, "fp16", Shape())


def test_other_sources_begin_a_new_index(
    compiler: FakeCompiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiling.main(["--arch", "87", "--out", str(tmp_path)])
    monkeypatch.setattr(sources, "sha256", lambda: "changed")
    compiling.main(["--arch", "90", "--out", str(tmp_path)])
    monkeypatch.setenv("HANDMESH_KERNELS", str(tmp_path))
    assert cache.kernel_code(90, "fp16", Shape()) == b"machine code"
    with pytest.raises(CompileError, match="is not the file"):
        cache.kernel_code(87, "fp16", Shape())


def test_a_folder_of_an_old_compiler_has_ptx(
    compiler: FakeCompiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler.makes_cubin, compiler.known = False, ()
    assert compiling.main(["--arch", "53", "--out", str(tmp_path)]) == 0
    monkeypatch.setenv("HANDMESH_KERNELS", str(tmp_path))
    assert cache.kernel_code(53, "fp32", Shape()) == b"ptx"


def test_a_place_that_cannot_be_written_to_is_told(
    compiler: FakeCompiler, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for out, said in (
        (tmp_path / "file", "--out must be a folder"),
        (tmp_path / "file" / "below", "cannot write to"),
    ):
        compiler.asked.clear()
        assert compiling.main(["--arch", "87", "--out", str(out)]) == 1
        assert said in capsys.readouterr().err
        assert not compiler.asked or out.parent.is_file()
    assert compiling.main(["--arch", " ,", "--out", str(tmp_path / "out")]) == 1
    assert "' ,' has none" in capsys.readouterr().err


def test_a_library_that_fails_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def __init__(self, path: str) -> None:
            if path == "bad":
                raise CompileError("NVRTC (bad) failed: internal error")
            self.path = path

    monkeypatch.setattr(nvrtc, "Compiler", Library)
    monkeypatch.setattr(nvrtc, "_candidates", lambda: iter(["bad", "good"]))
    nvrtc.load.cache_clear()
    try:
        assert nvrtc.load().path == "good"
        monkeypatch.setattr(nvrtc, "_candidates", lambda: iter(["bad"]))
        nvrtc.load.cache_clear()
        with pytest.raises(CompileError, match=r"Tried: bad \(NVRTC \(bad\) failed: internal"):
            nvrtc.load()
    finally:
        nvrtc.load.cache_clear()


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HANDMESH_NVRTC", str(tmp_path / "libnvrtc.so"))
    nvrtc.load.cache_clear()
    try:
        with pytest.raises(CompileError, match="pip install nvidia-cuda-nvrtc-cu12"):
            nvrtc.load()
    finally:
        nvrtc.load.cache_clear()


def test_no_way_to_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NoDevice, match="pycuda or cupy"):
        bindings.open_binding()
    with pytest.raises(NoDevice, match=r"cupy.*not installed"):
        bindings.open_binding("cupy")
    with pytest.raises(NoDevice, match="'metal'"):
        bindings.open_binding("metal")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [53, 61, 62, 72, 87, 90, "thor"])
@pytest.mark.parametrize("storage", ["fp32", "fp16"])
def test_the_sources_compile_without_spills(architecture: int | str, storage: Any) -> None:
    try:
        compiler = nvrtc.load()
    except CompileError as missing:
        pytest.skip(str(missing))
    known = compiler.architectures()
    if architecture == "thor":
        architecture = next((each for each in compiling.THOR if each in known), 0)
    if architecture not in known:
        pytest.skip(f"{compiler.name} knows {known}")
    built = compiling.build(compiler, int(architecture), storage)
    kernels = {usage.kernel for usage in built.usage}
    tensor = {"hm_expand_tensor", "hm_conv1_tensor", "hm_conv2_tensor"}
    assert (tensor <= kernels) == (storage == "fp16" and int(architecture) >= 70)
    assert len(kernels - tensor) == 11
    for usage in built.usage:
        assert usage.spill_bytes == usage.stack_bytes == 0
        assert usage.shared_bytes <= 48 * 1024
        counted = (Shape().scalar_bytes() | Shape().tensor_bytes())[usage.kernel]
        assert 0 <= counted - usage.shared_bytes < 32, "the last array may end unaligned"
        # A block of any kernel fits the register file of the smallest: 32 K on sm_53 and sm_62.
        assert usage.registers * 256 <= 32 * 1024
    reference = compiling.build(compiler, int(architecture), "fp32", program="reference.cu")
    assert [usage.kernel for usage in reference.usage] == ["hm_combine", "hm_recurrence"]
