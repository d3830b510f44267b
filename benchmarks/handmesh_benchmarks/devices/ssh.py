"""A board on the network: artifacts and a small runner go over ssh, the figures come back.

The far side needs Python 3.8, NumPy, and ONNX Runtime or LiteRT; nothing of ours. Everything lies
in one temporary folder there, which is removed in the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shlex
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import handmesh
from handmesh.errors import BackendUnavailable, DeviceError

from ..candidates import facts_of
from ..protocol import Protocol
from ..results import SCHEMA, Results, parse
from ..variants import Variant, sha256_of

__all__ = ["Host", "job_of", "measure", "runner_archive"]

# ssh's own exit code where it could not connect or log in.
UNREACHABLE = 255
OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15")
RUNNER, JOB, RESULTS = "runner.pyz", "job.json", "results.json"
_MODULES = ("protocol", "device", "runner")
_MAIN = """import sys
from handmesh_benchmarks.runner import main
raise SystemExit(main(sys.argv[1:]))
"""


class Host:
    """A host that ssh reaches without a password.

    Args:
        name: as ssh takes it: HOST, USER@HOST, or an alias of ~/.ssh/config.
        options: further options of ssh, as "-p 2222".
    """

    def __init__(self, name: str, options: str = "") -> None:
        if not name or name.startswith("-"):
            raise DeviceError(f"expected ssh:HOST or ssh:USER@HOST, not {f'ssh:{name}'!r}")
        self.name = name
        self._command = ["ssh", *OPTIONS, *shlex.split(options), name]

    def run(self, command: str, data: bytes = b"") -> bytes:
        """Run a shell command there and give it data; returns what it printed.

        Raises:
            DeviceError: the host cannot be reached, or the command failed.
        """
        done = self._start(command, data)
        if done.returncode:
            raise DeviceError(
                f"on {self.name}, {command.split()[0]!r} ended with code {done.returncode}: "
                f"{_last_line(done.stderr)}"
            )
        return bytes(done.stdout)

    def _start(self, command: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        try:
            done = subprocess.run([*self._command, command], input=data, capture_output=True)
        except OSError as cause:
            raise DeviceError(f"cannot start ssh: {cause.strerror}; install OpenSSH") from cause
        if done.returncode == UNREACHABLE:
            raise DeviceError(
                f"cannot reach {self.name}: {_last_line(done.stderr)}; try `ssh {self.name} true`, "
                "which must work without a password"
            )
        return done

    def follow(self, command: str, say: Callable[[str], None]) -> int:
        """Run a command that tells its progress on stderr; returns its exit code."""
        process = subprocess.Popen(
            [*self._command, command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        try:
            assert process.stderr is not None
            for line in process.stderr:
                say(line.rstrip())
            return process.wait()
        finally:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def folder(self) -> Iterator[str]:
        """A temporary folder there, removed in the end."""
        path = self.run("mktemp -d").decode().strip()
        try:
            yield path
        finally:
            with contextlib.suppress(DeviceError):  # a host that is gone keeps it
                self.run(f"rm -rf {shlex.quote(path)}")


def measure(
    host: Host,
    variants: Sequence[Variant],
    parts: Mapping[str, Mapping[str, Path]],
    threads: Sequence[int],
    protocol: Protocol,
    write: Callable[[Results], None],
    say: Callable[[str], None],
    *,
    python: str = "python3",
    provider: str = "auto",
) -> Results:
    """Networks alone, and in their parts, on another host.

    Args:
        host: where. variants: artifacts for ONNX Runtime or LiteRT.
        parts: by network, its ONNX files by part.
        threads: each artifact at each of them. protocol: how long.
        write: keeps the results; also of a run that was interrupted here or there.
        say: told of the progress. python: the far side's interpreter.
        provider: of ONNX Runtime; "auto" for all of TensorRT, CUDA and CPU that it has there.

    Raises:
        DeviceError: the host cannot be reached, or has no such Python.
        BackendUnavailable: no runtime there for any of the artifacts.
        BundleError, IntegrityError: an artifact is not the one of its manifest.
    """
    rows, files = job_of(variants, parts, threads, provider)
    job = {"protocol": asdict(protocol), "rows": rows}
    with host.folder() as folder:
        say(f"copying {sum(path.stat().st_size for path in files.values()) / 1e6:.1f} MB")
        place = shlex.quote(folder)
        host.run(f"tar -xf - -C {place}", _tar(files, job))
        _check_python(host, python)
        command = f"cd {place} && {shlex.quote(python)} {RUNNER} {JOB} {RESULTS}"
        stopped_by, code = "", 0
        printed: list[str] = []

        def heard(line: str) -> None:
            printed.append(line)
            say(f"{host.name}: {line}")

        try:
            code = host.follow(command, heard)
        except BaseException as error:
            stopped_by = type(error).__name__
            raise
        finally:
            results = None
            with contextlib.suppress(DeviceError):
                results = _fetched(host, place, protocol, stopped_by or _words(code))
            if results is not None:
                write(results)
    if results is None:
        raise DeviceError(f"{host.name} left no results: {printed[-1] if printed else 'no output'}")
    if not results.measurements:
        reasons = "; ".join(results.missing) or (printed[-1] if printed else "no output")
        raise BackendUnavailable(f"nothing could be measured on {host.name}: {reasons}")
    return results


def job_of(
    variants: Sequence[Variant],
    parts: Mapping[str, Mapping[str, Path]],
    threads: Sequence[int],
    provider: str,
) -> tuple[list[dict[str, Any]], dict[str, Path]]:
    """The rows of a job, and the files that it needs by the names that it knows them by.

    Raises:
        BundleError, IntegrityError: an artifact is missing, or not the one of its manifest.
    """
    rows: list[dict[str, Any]] = []
    files: dict[str, Path] = {}
    for variant in variants:
        name = f"{variant.name.replace(' ', '-')}.{variant.backend}"
        files[name] = variant.bundle.artifact(variant.backend)  # verified
        entry = {
            "path": name,
            "sha256": sha256_of(variant.bundle, variant.backend),
            "stage": "network",
        }
        rows += [
            _row("network", variant, count, provider, [entry], variant.name) for count in threads
        ]
    for network, chain in parts.items():
        variant = next(v for v in variants if v.bundle.name == network)
        for part, path in chain.items():
            files[f"{network}-{part}.onnx"] = path
        entries = [
            {"path": f"{network}-{part}.onnx", "sha256": _sha256(path), "stage": part}
            for part, path in chain.items()
        ]
        whole = Variant(variant.bundle, "onnx", "fp32")
        rows += [
            _row("parts", whole, count, provider, entries, f"{network} onnx") for count in threads
        ]
    return rows, files


def _row(
    task: str, variant: Variant, threads: int, provider: str, files: list[Any], name: str
) -> dict[str, Any]:
    return {
        "name": f"{task} {name} {threads}",
        "facts": facts_of(task, variant, threads),
        "runtime": variant.backend,
        "provider": provider if variant.backend == "onnx" else "",
        "threads": threads,
        "files": files,
    }


def runner_archive() -> bytes:
    """The far side's program: the protocol and what it imports, as one zip that Python runs."""
    here = Path(__file__).resolve().parents[1]
    errors = Path(handmesh.__file__).with_name("errors.py")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__main__.py", _MAIN)
        archive.writestr("handmesh/__init__.py", "")
        archive.writestr("handmesh/errors.py", errors.read_text(encoding="utf-8"))
        archive.writestr("handmesh_benchmarks/__init__.py", "")
        for name in _MODULES:
            text = (here / f"{name}.py").read_text(encoding="utf-8")
            archive.writestr(f"handmesh_benchmarks/{name}.py", text)
    return data.getvalue()


def _tar(files: Mapping[str, Path], job: Mapping[str, Any]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, path in files.items():
            archive.add(path, name)
        for name, content in ((RUNNER, runner_archive()), (JOB, json.dumps(job).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


def _check_python(host: Host, python: str) -> None:
    check = "import sys, numpy; sys.exit(sys.version_info < (3, 8))"
    try:
        host.run(f"{shlex.quote(python)} -c {shlex.quote(check)}")
    except DeviceError as cause:
        raise DeviceError(
            f"{host.name} needs Python 3.8 or newer with NumPy as {python!r} (choose another one "
            f"with --python): {cause}"
        ) from cause


def _fetched(host: Host, place: str, protocol: Protocol, stopped_by: str) -> Results:
    document = json.loads(host.run(f"cat {place}/{RESULTS}"))
    whole = Results(device=document["device"], protocol=protocol).to_dict()
    whole |= {key: document[key] for key in ("state", "stopped_by", "measurements", "missing")}
    results = parse({**whole, "schema": SCHEMA}, f"what came from {host.name}")
    results.context["measured_on"] = f"ssh:{host.name}"
    if results.state == "partial" and not results.stopped_by:
        results.stopped_by = stopped_by or "the connection ended"
    return results


def _words(code: int) -> str:
    return "" if code == 0 else f"exit code {code} there"


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
