"""An Android phone: LiteRT's own benchmark_model, driven over adb.

The program is not ours and not shipped: https://ai.google.dev/edge/litert/models/measurement tells
where to get the build for a phone's processor; it is given with --benchmark-model. It reports a
median and a 95th percentile where it is new enough, an average where it is not: some columns stay
empty.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from handmesh.errors import BackendUnavailable, DeviceError, InputError
from handmesh.installing import pip_install

from ..candidates import facts_of
from ..protocol import Measurement, Percentiles, Protocol, kind_for
from ..report import short
from ..results import Results
from ..variants import Variant

__all__ = ["DELEGATES", "Phone", "measure", "parse"]

FOLDER = "/data/local/tmp/handmesh"
# What runs the network, and the options by which benchmark_model is asked for it.
DELEGATES = {"cpu": (), "gpu": ("--use_gpu=true",), "nnapi": ("--use_nnapi=true",)}
_PROPERTIES = {
    "processor": "ro.soc.model",
    "maker": "ro.product.manufacturer",
    "machine": "ro.product.model",
    "system": "ro.build.version.release",
    "abi": "ro.product.cpu.abi",
}
_NUMBER = r"([\d.]+(?:e[+-]?\d+)?)"


class Phone:
    """A phone that adb reaches.

    Args:
        serial: as `adb devices` lists it; "" for the only one.
    """

    def __init__(self, serial: str = "") -> None:
        self.serial = serial
        self._command = ["adb", *(["-s", serial] if serial else [])]

    def run(self, *arguments: str) -> str:
        """An adb command's output.

        Raises:
            DeviceError: there is no adb, no such phone, or the command failed.
        """
        try:
            done = subprocess.run(
                [*self._command, *arguments], capture_output=True, text=True, errors="replace"
            )
        except OSError as cause:
            raise DeviceError(
                f"cannot start adb: {cause.strerror}; install Android's platform tools"
            ) from cause
        if done.returncode:
            output = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise DeviceError(
                f"adb {arguments[0]} failed on {self.serial or 'the phone'}: "
                f"{output[-1] if output else f'exit code {done.returncode}'}; see `adb devices`"
            )
        return done.stdout + done.stderr

    def describe(self) -> dict[str, str | int | float]:
        """What the phone says of itself."""
        found: dict[str, str | int | float] = {
            name: self.run("shell", "getprop", key).strip() or "unknown"
            for name, key in _PROPERTIES.items()
        }
        governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
        found["system"] = f"Android {found['system']}"
        try:
            found["power_mode"] = self.run("shell", "cat", governor).strip() or "unknown"
        except DeviceError:
            found["power_mode"] = "unknown"
        return found


def check(program: Path | None, delegates: Sequence[str]) -> Path:
    """The program, where there is one and the delegates are some.

    Raises:
        InputError: they are not.
    """
    if program is None or not program.is_file():
        raise InputError(
            "a phone needs LiteRT's benchmark_model, built for its processor: give its path with "
            "--benchmark-model (https://ai.google.dev/edge/litert/models/measurement)"
        )
    for name in delegates:
        if name not in DELEGATES:
            raise InputError(f"delegates are {', '.join(DELEGATES)}; not {name!r}")
    return program


def measure(
    phone: Phone,
    program: Path | None,
    variants: Sequence[Variant],
    threads: Sequence[int],
    protocol: Protocol,
    write: Callable[[Results], None],
    say: Callable[[str], None],
    delegates: Sequence[str] = ("cpu",),
    missing: Sequence[str] = (),
) -> Results:
    """Networks alone, on a phone.

    Args:
        phone: where. program: benchmark_model, built for it.
        variants: artifacts; only those for "tflite" are taken.
        threads: each artifact at each of them on the CPU. protocol: how long.
        write: keeps the results after every row. say: told of the progress.
        delegates: names of `DELEGATES`.
        missing: what is known beforehand not to be measured, and why.

    Raises:
        InputError: no program was given, or an unknown delegate.
        DeviceError: the phone cannot be reached.
        BackendUnavailable: none of the artifacts is for LiteRT, or none could be run.
        BundleError, IntegrityError: an artifact is not the one of its manifest.
    """
    sent = check(program, delegates)
    chosen = [variant for variant in variants if variant.backend == "tflite"]
    if not chosen:
        raise BackendUnavailable(
            "a phone runs .tflite files and there is none: make one with "
            "`handmesh export light --format tflite --out DIR`, for which "
            f"{pip_install('converters')}" + "".join(f"; {reason}" for reason in missing)
        )
    results = Results(phone.describe(), missing=list(missing), protocol=protocol)
    results.context["measured_on"] = f"adb:{phone.serial}" if phone.serial else "adb"
    write(results)
    phone.run("shell", "mkdir", "-p", FOLDER)
    try:
        phone.run("push", str(sent), f"{FOLDER}/benchmark_model")
        phone.run("shell", "chmod", "755", f"{FOLDER}/benchmark_model")
        rows: list[Measurement] = []
        for variant in chosen:
            file = f"{FOLDER}/{variant.name.replace(' ', '-')}.tflite"
            phone.run("push", str(variant.bundle.artifact("tflite")), file)
            for delegate in delegates:
                for count in threads if delegate == "cpu" else [1]:
                    say(f"{variant.name}, {delegate}, {count} threads")
                    try:
                        rows.append(_one(phone, file, variant, delegate, count, protocol))
                    except (DeviceError, BackendUnavailable) as error:
                        results.missing.append(f"{variant.name}, {delegate}, {count}: {error}")
                    results.measurements = rows
                    write(results)
    except BaseException as error:
        results.stopped_by = type(error).__name__
        write(results)
        raise
    finally:
        try:
            phone.run("shell", "rm", "-rf", FOLDER)
        except DeviceError as error:  # what was measured, or went wrong before, counts more
            say(f"the folder {FOLDER} stays on {phone.serial or 'the phone'}: {error}")
    if not results.measurements:
        raise BackendUnavailable("; ".join(map(short, results.missing)))
    results.state = "complete"
    write(results)
    return results


def _one(
    phone: Phone, file: str, variant: Variant, delegate: str, threads: int, protocol: Protocol
) -> Measurement:
    text = phone.run(
        "shell",
        f"{FOLDER}/benchmark_model",
        f"--graph={file}",
        f"--num_threads={threads}",
        f"--warmup_runs={max(1, protocol.warmup_runs)}",
        f"--num_runs={protocol.min_runs}",
        f"--min_secs={protocol.min_seconds:g}",
        "--max_secs=600",
        "--report_peak_memory_footprint=true",
        *DELEGATES[delegate],
    )
    facts: dict[str, Any] = facts_of("network", variant, threads)
    row = parse(text, f"network {variant.name} {delegate} {threads}", facts)
    # The CPU has XNNPACK, a delegate as well, which is told where it is.
    applied = _delegated(text)
    if delegate != "cpu" and delegate not in applied.lower():
        raise BackendUnavailable(
            f"benchmark_model does not say that it applied a {delegate.upper()} delegate, so that "
            f"the CPU may have run it: {applied or text.strip().splitlines()[-1]}"
        )
    facts["provider"] = ", ".join(
        part
        for part in ("benchmark_model", delegate.upper(), applied, facts["statistic"])
        if part and part != "median"
    )
    return row


def parse(text: str, name: str, facts: dict[str, Any]) -> Measurement:
    """What benchmark_model printed, as a row. Its times are microseconds.

    Raises:
        DeviceError: it printed no timings; the message has its last line.
    """
    timings = re.search(
        rf"Init: {_NUMBER}, First inference: {_NUMBER}, Warmup \(avg\): {_NUMBER}, "
        rf"Inference \(avg\): {_NUMBER}",
        text,
    )
    # The last statistics are those of the steady state; those before, of the warm-up.
    counts = re.findall(r"count=(\d+)[^\n]*", text)
    lines = [line for line in text.splitlines() if "count=" in line]
    if timings is None or not counts:
        last = text.strip().splitlines()[-1:] or ["it printed nothing"]
        raise DeviceError(f"benchmark_model gave no timings: {last[0]}")
    init, first, _, average = (float(value) / 1e3 for value in timings.groups())
    runs, steady = int(counts[-1]), lines[-1]
    median = re.search(rf"median={_NUMBER}", steady)
    facts["mean_ms"] = average
    facts["statistic"] = "median" if median else "p50 is the mean: it gives no median"
    p95 = re.search(rf"p95={_NUMBER}", steady)
    if p95:
        facts["p95_ms"] = float(p95.group(1)) / 1e3
    grown = re.search(rf"[Oo]verall(?: memory)?[^=\n]*={_NUMBER}", text)
    if grown:  # since the program began, which is not the peak that other rows have
        facts["memory_grown_mib"] = float(grown.group(1))
    seconds = runs * average / 1e3
    middle = float(median.group(1)) / 1e3 if median else average
    return Measurement(
        name=name,
        facts=facts,
        load_ms=init,
        first_ms=first,
        total=Percentiles(middle, None, None),
        stages={},
        runs=runs,
        seconds=seconds,
        kind=kind_for(runs, seconds),
    )


def _delegated(text: str) -> str:
    """What the program says that delegates took."""
    found = re.findall(r"(?:explicitly applied|Applied)[^\n]*delegate[^\n]*", text, re.IGNORECASE)
    return "; ".join(line.strip()[:120] for line in found)
