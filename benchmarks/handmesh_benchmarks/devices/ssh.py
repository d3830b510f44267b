"""A board on the network: artifacts and a small runner go over ssh, the figures come back.

The far side needs Python 3.8, NumPy, and ONNX Runtime or LiteRT; nothing of ours. Everything lies
in one temporary folder there, which is removed in the end. What has been measured is printed there
after every round and kept here, so that a connection that ends takes nothing with it.
"""

from __future__ import annotations

import contextlib
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
from handmesh.errors import BackendUnavailable, DeviceError, InputError

from ..candidates import facts_of, parts_facts
from ..device import UNKNOWN
from ..protocol import Protocol
from ..report import short
from ..results import SCHEMA, Results, parse
from ..runner import MARK, NOTHING_RAN, YARDSTICK, sha256
from ..variants import Variant, sha256_of

__all__ = ["Host", "job_of", "check_python", "measure", "runner_archive"]

# ssh's own exit code where it could not connect or log in.
UNREACHABLE = 255
OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15")
RUNNER, JOB, RESULTS = "runner.pyz", "job.json", "results.json"
_MODULES = ("protocol", "device", "runtimes", "runner")
_MAIN = """import sys
from handmesh_benchmarks.runner import main
raise SystemExit(main(sys.argv[1:]))
"""


class Host:
    """A host that ssh reaches without a password.

    Args:
        name: as ssh takes it: HOST, USER@HOST, or an alias of ~/.ssh/config.
        options: further options of ssh, as "-p 2222".

    Raises:
        DeviceError: that is no name. InputError: options with a quote that does not end.
    """

    def __init__(self, name: str, options: str = "") -> None:
        if not name or name.startswith("-"):
            raise DeviceError(f"expected ssh:HOST or ssh:USER@HOST, not {f'ssh:{name}'!r}")
        self.name = name
        try:
            further = shlex.split(options)
        except ValueError as cause:
            raise InputError(
                f"--ssh-options {options!r} cannot be split into words ({cause}): write it as in a "
                'shell, as "-p 2222"'
            ) from cause
        self._command = ["ssh", *OPTIONS, *further, name]

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

    def follow(self, command: str, heard: Callable[[str], None]) -> int:
        """Run a command and hand over its lines as it prints them; returns its exit code."""
        process = subprocess.Popen(
            [*self._command, f"{command} 2>&1"],  # there, so that no line gets into another
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                heard(line.rstrip())
            return process.wait()
        finally:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def folder(self, say: Callable[[str], None]) -> Iterator[str]:
        """A temporary folder there, removed in the end; where that fails it is told."""
        path = self.run("mktemp -d").decode().strip()
        try:
            yield path
        finally:
            try:
                self.run(f"rm -rf {shlex.quote(path)}")
            except DeviceError as error:
                say(f"the folder {path} stays on {self.name}, with {RESULTS} in it: {error}")


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
    missing: Sequence[str] = (),
) -> Results:
    """Networks alone, and in their parts, on another host.

    Args:
        host: where. variants: artifacts for ONNX Runtime or LiteRT.
        parts: by network, its ONNX files by part.
        threads: each artifact at each of them. protocol: how long.
        write: keeps the results: empty ones at once, then after every round.
        say: told of the progress. python: the far side's interpreter.
        provider: of ONNX Runtime; "auto" for all of TensorRT, CUDA and CPU that it has there.
        missing: what is known beforehand not to be measured, and why.

    Returns:
        The results; "partial", and why, where the run or the connection ended early.

    Raises:
        InputError: the results cannot be written.
        DeviceError: the host cannot be reached, has no such Python, or ended without a figure.
        BackendUnavailable: no runtime there for any of the artifacts.
        BundleError, IntegrityError: an artifact is not the one of its manifest.
    """
    rows, files = job_of(variants, parts, threads, provider)
    job = {"protocol": asdict(protocol), "rows": rows}
    results = Results({"processor": UNKNOWN}, missing=list(missing), protocol=protocol)
    results.context["measured_on"] = f"ssh:{host.name}"
    write(results)
    printed = [""]

    def take(document: Mapping[str, Any]) -> None:
        _take(results, document, missing, f"what came from {host.name}")

    def heard(line: str) -> None:
        if not line.startswith(MARK):
            printed.append(line)
            say(f"{host.name}: {line}")
            return
        try:
            take(json.loads(line[len(MARK) :]))
        except ValueError:
            return  # the connection ended in the middle of it
        write(results)

    code = 0
    with host.folder(say) as folder:
        place = shlex.quote(folder)
        try:
            say(f"copying {sum(path.stat().st_size for path in files.values()) / 1e6:.1f} MB")
            host.run(f"tar -xf - -C {place}", _tar(files, job))
            check_python(host, python)
            code = host.follow(
                f"cd {place} && {shlex.quote(python)} {RUNNER} {JOB} {RESULTS}", heard
            )
        except BaseException as error:
            results.stopped_by = type(error).__name__
            raise
        finally:
            # What came line by line holds as well where this fails.
            with contextlib.suppress(DeviceError, ValueError):
                take(json.loads(host.run(f"cat {place}/{RESULTS}")))
            if results.state == "partial" and not results.stopped_by:
                results.stopped_by = _why(code)
            write(results)
    if all(row.facts["task"] == YARDSTICK for row in results.measurements):
        if code in (0, NOTHING_RAN):
            reasons = "; ".join(map(short, results.missing)) or printed[-1]
            raise BackendUnavailable(f"nothing could be measured on {host.name}: {reasons}")
        raise DeviceError(
            f"{host.name} measured nothing, {results.stopped_by}: "
            f"{printed[-1] or 'it printed nothing'}"
        )
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
        for count in threads:
            facts = facts_of("network", variant, count)
            rows.append(_row(f"network {variant.name}", facts, provider, [entry]))
    for network, chain in parts.items():
        bundle = next(v.bundle for v in variants if v.bundle.name == network)
        names = {part: f"{network}-{part}.onnx" for part in chain}
        files |= {names[part]: path for part, path in chain.items()}
        entries = [
            {"path": names[part], "sha256": sha256([path]), "stage": part}
            for part, path in chain.items()
        ]
        for count in threads:
            facts = parts_facts(bundle, chain, count)
            rows.append(_row(f"parts {network} onnx", facts, provider, entries))
    return rows, files


def _row(
    name: str, facts: Mapping[str, Any], provider: str, files: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    return {
        "name": f"{name} {facts['threads']}",
        "facts": facts,
        "runtime": facts["backend"],
        "provider": provider if facts["backend"] == "onnx" else "",
        "threads": facts["threads"],
        "files": files,
    }


def runner_archive() -> bytes:
    """The far side's program: the protocol and what it imports, as one zip that Python runs."""
    here = Path(__file__).resolve().parents[1]
    sdk = Path(handmesh.__file__).parent
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__main__.py", _MAIN)
        archive.writestr("handmesh/__init__.py", "")
        for name in ("errors", "installing", "ort"):
            text = (sdk / f"{name}.py").read_text(encoding="utf-8")
            archive.writestr(f"handmesh/{name}.py", text)
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


def check_python(host: Host, python: str) -> None:
    """Whether the far side can run what `measure` sends.

    Raises:
        DeviceError: it cannot be reached, or has no such Python.
    """
    check = "import sys, numpy; sys.exit(sys.version_info < (3, 8))"
    try:
        host.run(f"{shlex.quote(python)} -c {shlex.quote(check)}")
    except DeviceError as cause:
        raise DeviceError(
            f"{host.name} needs Python 3.8 or newer with NumPy as {python!r} (choose another one "
            f"with --python): {cause}"
        ) from cause


def _take(
    results: Results, document: Mapping[str, Any], missing: Sequence[str], where: str
) -> None:
    """Put into the results what the far side says.

    Raises:
        InputError: it is no such document.
    """
    try:
        fresh = {key: document[key] for key in ("state", "measurements", "device")}
        reasons = [*document["missing"], *missing]
        stopped_by = results.stopped_by or document["stopped_by"]
    except (KeyError, TypeError) as cause:
        raise InputError(f"{where} is none of a runner's: {cause!r}") from cause
    whole = results.to_dict() | fresh | {"schema": SCHEMA, "missing": reasons}
    read = parse(whole | {"stopped_by": stopped_by}, where)
    results.device, results.measurements = read.device, read.measurements
    results.missing, results.state = read.missing, read.state
    results.stopped_by = "" if read.state == "complete" else read.stopped_by


def _why(code: int) -> str:
    if code == UNREACHABLE:
        return "the connection ended"
    return f"exit code {code} there" if code else "it ended early there"


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it printed nothing"
