"""Compile the kernels: `python -m handmesh_kernels.compile --arch 53,61,62,72,87,90 --out DIR`.

No GPU is needed. Writes machine code (.cubin), with --ptx also PTX, for each architecture and each
way of storing numbers, and `kernels.json`, which says from what, how much each kernel takes of a
multiprocessor, and what bytes each file has: a file that is not in it, or differs, is not taken. A
folder made for other devices of the same sources is added to. A kernel that spills registers to
memory, or that needs more shared memory than a block may have, is refused.

Point HANDMESH_KERNELS at the folder and the launcher takes its kernels from there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import nvrtc, sources
from .constants import Storage
from .errors import CompileError, KernelError
from .params import SHARED_BYTES, Shape

__all__ = [
    "INDEX",
    "Built",
    "Usage",
    "build",
    "file_name",
    "index_of",
    "main",
    "shape_facts",
    "write_whole",
]

INDEX = "kernels.json"
STORAGES: tuple[Storage, ...] = ("fp32", "fp16")
# Its number changed with the compiler: 10.1 up to CUDA 12, 11.0 from CUDA 13 on.
THOR = (110, 101)


@dataclass(frozen=True)
class Usage:
    """What a kernel takes.

    Attributes:
        kernel: name. registers: a thread. shared_bytes: a block. spill_bytes, stack_bytes: a
            thread; what does not fit into registers, and arrays that are no registers.
    """

    kernel: str
    registers: int
    shared_bytes: int
    spill_bytes: int
    stack_bytes: int


@dataclass(frozen=True)
class Built:
    """Compiled sources.

    Attributes:
        architecture: as 87. storage: of numbers.
        code: machine code of decoder.cu or, if `kind` is "ptx", PTX.
        usage: by kernel, in alphabetical order; empty with PTX.
    """

    architecture: int
    storage: Storage
    kind: str
    code: bytes
    usage: tuple[Usage, ...]


def build(
    compiler: nvrtc.Compiler,
    architecture: int,
    storage: Storage,
    shape: Shape | None = None,
    program: str = "decoder.cu",
    cubin: bool | None = None,
) -> Built:
    """Compile one of the sources for one architecture.

    Args:
        cubin: machine code or PTX; by default machine code where the compiler makes it.

    Raises:
        CompileError: the compiler does not know the architecture, refuses the source, or spills;
            or a kernel takes more shared memory than a block may have.
    """
    known = compiler.architectures()
    if known and architecture not in known:
        raise CompileError(
            f"{compiler.name} does not compile for sm_{architecture}; it knows "
            f"{', '.join(map(str, known))}"
        )
    shape = Shape() if shape is None else shape
    # Before the work, and of PTX, of which nothing is reported.
    refused = shape.refused() if program == "decoder.cu" else ""
    if refused:
        raise CompileError(f"sm_{architecture}, {storage}: {refused}")
    cubin = compiler.makes_cubin if cubin is None else cubin
    options = [
        f"--gpu-architecture={'sm' if cubin else 'compute'}_{architecture}",
        "--std=c++14",
        *shape.defines(storage),
        *(["--ptxas-options=-v"] if cubin else []),
    ]
    code, log = compiler.compile(program, sources.text(program), sources.headers(), options, cubin)
    usage = parse_usage(log) if cubin else ()
    spilled = [each.kernel for each in usage if each.spill_bytes]
    if spilled:
        raise CompileError(
            f"sm_{architecture}, {storage}: {', '.join(spilled)} spill registers to memory"
        )
    large = [each for each in usage if each.shared_bytes > SHARED_BYTES]
    if large:
        raise CompileError(
            f"sm_{architecture}, {storage}: {large[0].kernel} takes {large[0].shared_bytes:,} "
            f"bytes of shared memory, and a block may have {SHARED_BYTES:,}: no device loads it"
        )
    return Built(architecture, storage, "cubin" if cubin else "ptx", code, usage)


def parse_usage(log: str) -> tuple[Usage, ...]:
    """What `ptxas -v` says of each kernel."""
    found = []
    for part in log.split("Compiling entry function")[1:]:
        named = re.search(r"'(\w+)'", part)
        registers = re.search(r"Used (\d+) registers", part)
        spills = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+)", part)
        if named is None or registers is None or spills is None:
            raise CompileError(f"cannot read the assembler's report of resources: {part[:200]}")
        shared = re.search(r"(\d+) bytes smem", part)
        stack, stores, loads = map(int, spills.groups())
        found.append(
            Usage(
                named.group(1),
                int(registers.group(1)),
                int(shared.group(1)) if shared else 0,
                stores + loads,
                stack,
            )
        )
    return tuple(sorted(found, key=lambda usage: usage.kernel))


def file_name(built: Built) -> str:
    """As "handmesh_sm87_fp16.cubin"."""
    return f"handmesh_sm{built.architecture}_{built.storage}.{built.kind}"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name first, so that nobody ever reads half of it.

    `handmesh.atomic` in few words: this package imports nothing of ours. What is written here can
    be compiled again, so it is not waited for the disk.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def table(builds: Sequence[Built]) -> str:
    """Registers / shared KB by kernel (rows) and architecture (columns), for a reader."""
    columns = [(each.architecture, each.storage) for each in builds]
    cells = {
        (usage.kernel, each.architecture, each.storage): usage
        for each in builds
        for usage in each.usage
    }
    lines = [
        "| kernel | " + " | ".join(f"sm_{arch} {storage}" for arch, storage in columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for kernel in sorted({name for name, _, _ in cells}):
        row = []
        for column in columns:
            usage = cells.get((kernel, *column))
            row.append(
                "" if usage is None else f"{usage.registers} / {usage.shared_bytes / 1024:.1f}"
            )
        lines.append(f"| {kernel} | {' | '.join(row)} |")
    spills = sum(usage.spill_bytes for each in builds for usage in each.usage)
    stack = sum(usage.stack_bytes for each in builds for usage in each.usage)
    lines.append(f"\nregisters a thread / KB of shared memory a block; {spills} bytes spilled, "
                 f"{stack} bytes of stack")  # fmt: skip
    return "\n".join(lines)


def architectures(text: str, known: Sequence[int]) -> list[int]:
    """Of "53,87,thor"; Thor by the number that the compiler has for it.

    Raises:
        CompileError: not numbers, or the compiler knows no Thor.
    """
    found = []
    for name in filter(None, (part.strip().lower() for part in text.split(","))):
        if name == "thor":
            number = next((each for each in THOR if each in known), None)
            if number is None:
                raise CompileError(
                    "this compiler does not know Thor (sm_110, sm_101 before CUDA 13); take NVRTC "
                    f"12.8 or newer. It knows {', '.join(map(str, known))}"
                )
            found.append(number)
        elif name.isdigit():
            found.append(int(name))
        else:
            raise CompileError(f"--arch takes numbers as 87, and 'thor'; not {name!r}")
    if not found:
        raise CompileError(f"--arch takes numbers as 87, and 'thor'; {text!r} has none")
    return found


def index_of(where: Path) -> dict[str, Any]:
    """What `kernels.json` of a folder says; "files" are by name, each with its "sha256".

    Raises:
        OSError, ValueError: there is none, or it is not one.
    """
    index = json.loads((where / INDEX).read_bytes())
    try:
        files, shape = index["files"], dict(index["shape"])
        hashes = {str(name): str(entry["sha256"]) for name, entry in files.items()}
        kernels = {name: list(index["kernels"][name]) for name in hashes}
        return index | {"shape": shape, "files": files, "kernels": kernels}
    except (AttributeError, KeyError, TypeError) as cause:
        raise ValueError(f"{INDEX} lacks {cause}") from cause


def shape_facts(shape: Shape) -> dict[str, Any]:
    """As `kernels.json` states it."""
    facts: dict[str, Any] = json.loads(json.dumps(asdict(shape)))
    return facts


def _write(out: Path, built: Sequence[Built], compiler: str) -> None:
    """Code first, then the index, with what it says of other files that are still as they were."""
    out.mkdir(parents=True, exist_ok=True)
    made = {"sources_sha256": sources.sha256(), "shape": shape_facts(Shape())}
    try:
        before = index_of(out)
    except (OSError, ValueError):
        before = {}
    same = all(before.get(name) == value for name, value in made.items())
    files, kernels = (before["files"], before["kernels"]) if same else ({}, {})
    for each in built:
        name = file_name(each)
        write_whole(out / name, each.code)
        digest = hashlib.sha256(each.code).hexdigest()
        files[name] = {"sha256": digest, "compiler": compiler}
        kernels[name] = [asdict(usage) for usage in each.usage]
    index = {**made, "files": files, "kernels": kernels}
    write_whole(out / INDEX, (json.dumps(index, indent=2) + "\n").encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m handmesh_kernels.compile", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--arch", required=True, metavar="A,B", help="as 53,87,thor")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--ptx", action="store_true", help="write PTX as well")
    options = parser.parse_args(arguments)
    try:
        if options.out.exists() and not options.out.is_dir():
            raise CompileError(f"--out must be a folder, and {options.out} is a file: name another")
        compiler = nvrtc.load()
        wanted = architectures(options.arch, compiler.architectures())
        builds = [build(compiler, arch, each) for arch in wanted for each in STORAGES]
        silent = [each for each in builds if each.kind == "cubin" and not each.usage]
        if silent:
            raise CompileError(
                f"{compiler.name} does not report what kernels take for sm_"
                f"{silent[0].architecture}, so that spills would go unseen: take a newer one"
            )
        written = list(builds)
        if options.ptx:
            written += [
                build(compiler, arch, each, cubin=False) for arch in wanted for each in STORAGES
            ]
        _write(options.out, written, compiler.name)
    except OSError as error:
        print(
            f"handmesh_kernels: cannot write to {options.out}: {error.strerror}; give --out "
            "another folder",
            file=sys.stderr,
        )
        return 1
    except KernelError as error:
        print(f"handmesh_kernels: {error}", file=sys.stderr)
        return 1
    print(f"{compiler.name}, {len(written)} files in {options.out}")
    print(table(builds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
