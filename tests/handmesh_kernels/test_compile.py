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
        # A block of any kernel fits the register file of the smallest: 32 K on sm_53 and sm_62.
        assert usage.registers * 256 <= 32 * 1024
    reference = compiling.build(compiler, int(architecture), "fp32", program="reference.cu")
    assert [usage.kernel for usage in reference.usage] == ["hm_combine", "hm_recurrence"]
