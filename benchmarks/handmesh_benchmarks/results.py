"""A run's results as a JSON document: written whole after every round, read back with care.

`results.schema.json` beside this file describes the document; a test holds both to each other.
A run that was interrupted leaves what it had measured, with ``state`` "partial".
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handmesh import __version__
from handmesh.atomic import write_atomic
from handmesh.errors import InputError

from .protocol import Measurement, Percentiles, Protocol

__all__ = ["SCHEMA", "Results", "kind_of", "load", "read_document", "parse", "schema"]

SCHEMA = 2
STATES = ("complete", "partial")
KINDS = ("headline", "smoke")


@dataclass
class Results:
    """What one run measured on one device.

    Attributes:
        device: as `device.describe` gives it.
        measurements: rows, in the order of the table.
        missing: what was not measured, and why; a sentence each.
        protocol: how long it was meant to go on; None where another tool decided.
        context: what else the figures depend on, as the photo.
        state: "complete", or "partial" for a run that was interrupted.
        stopped_by: what interrupted it, "" if nothing did.
        began, ended: times in UTC.
        handmesh: its version.
    """

    device: Mapping[str, str | int | float]
    measurements: Sequence[Measurement] = ()
    missing: list[str] = field(default_factory=list)
    protocol: Protocol | None = None
    context: dict[str, str | int | float] = field(default_factory=dict)
    state: str = "partial"
    stopped_by: str = ""
    began: str = field(default_factory=lambda: _now())
    ended: str = ""
    handmesh: str = __version__

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON. Times are milliseconds unless the name says otherwise."""
        return {
            "schema": SCHEMA,
            "kind": kind_of(self.measurements),
            "state": self.state,
            "stopped_by": self.stopped_by,
            "handmesh": self.handmesh,
            "began": self.began,
            "ended": self.ended,
            "device": dict(self.device),
            "context": dict(self.context),
            "protocol": None if self.protocol is None else dataclasses.asdict(self.protocol),
            "measurements": [dataclasses.asdict(row) for row in self.measurements],
            "missing": list(self.missing),
        }

    def write(self, path: Path) -> Path:
        """As JSON, whole or not at all.

        Raises:
            InputError: it cannot be written there.
        """
        self.ended = _now()
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        return write_atomic(path, (text + "\n").encode())


def kind_of(measurements: Sequence[Measurement]) -> str:
    """ "headline" if all of at least one are."""
    headline = measurements and all(row.kind == "headline" for row in measurements)
    return "headline" if headline else "smoke"


def schema() -> dict[str, Any]:
    """The JSON Schema of the documents."""
    path = Path(__file__).with_name("results.schema.json")
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def load(path: Path) -> Results:
    """Results from a file.

    Raises:
        InputError: it cannot be read, is no JSON, or not such a document; the message says where.
    """
    return parse(read_document(path, "`handmesh bench --out`"), str(path))


def read_document(path: Path, writer: str) -> Any:
    """A file's JSON.

    Args:
        path: of the file. writer: what should have written it, for messages.

    Raises:
        InputError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as cause:
        raise InputError(f"cannot read {path}: {cause.strerror or cause}") from cause
    except ValueError as cause:
        raise InputError(f"{path} is no JSON ({cause}): give a file that {writer} wrote") from cause


def parse(document: Any, where: str) -> Results:
    """Results from a parsed document.

    Args:
        document: as `Results.to_dict` makes it. where: what messages call it.

    Raises:
        InputError: it is none.
    """
    found = document.get("schema") if isinstance(document, dict) else None
    if found != SCHEMA:
        raise InputError(
            f"{where} holds no results of schema {SCHEMA} (schema: {found!r}): "
            "measure again with this version of handmesh"
        )
    read = _Reader(document, where)
    protocol = document.get("protocol")
    for name in {"load_1min", "cores_busy", "cores_usable"} & read.scalars("device").keys():
        read.inner("device").number(name, least=-1)  # -1: the system does not tell
    return Results(
        device=read.scalars("device"),
        measurements=[
            _measurement(_Reader(row, f"{where}: measurements[{i}]"))
            for i, row in enumerate(read.of("measurements", list))
        ],
        missing=[str(reason) for reason in read.of("missing", list)],
        protocol=None if protocol is None else _protocol(read.of("protocol", dict), where),
        context=dict(read.scalars("context")),
        state=read.one_of("state", STATES),
        stopped_by=read.of("stopped_by", str),
        began=read.of("began", str),
        ended=read.of("ended", str),
        handmesh=read.of("handmesh", str),
    )


class _Reader:
    """One object of a document, whose entries are checked as they are taken."""

    def __init__(self, entries: Any, where: str) -> None:
        if not isinstance(entries, dict):
            raise InputError(f"{where} must be an object, not {_short(entries)}")
        self.entries, self.where = entries, where

    def of(self, name: str, kind: type) -> Any:
        value = self.entries.get(name)
        if not isinstance(value, kind):
            raise InputError(
                f"{self.where}: {name!r} must be of type {kind.__name__}, not {_short(value)}: "
                "the file was changed, or is of another program"
            )
        return value

    def one_of(self, name: str, allowed: tuple[str, ...]) -> str:
        value = self.of(name, str)
        if value not in allowed:
            raise InputError(f"{self.where}: {name!r} must be one of {', '.join(allowed)}")
        return str(value)

    def number(self, name: str, least: float = 0.0) -> float:
        value = self.entries.get(name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise InputError(f"{self.where}: {name!r} must be a number, not {_short(value)}")
        if value < least:
            raise InputError(f"{self.where}: {name!r} must not be below {least:g}, not {value}")
        return float(value)

    def numbers(self, name: str) -> list[float]:
        values = enumerate(self.of(name, list))
        inside = f"{self.where}: {name!r}"
        return [_Reader({f"[{i}]": value}, inside).number(f"[{i}]") for i, value in values]

    def inner(self, name: str) -> _Reader:
        return _Reader(self.of(name, dict), f"{self.where}: {name}")

    def optional(self, name: str) -> float | None:
        return None if self.entries.get(name, 0) is None else self.number(name)

    def scalars(self, name: str) -> dict[str, Any]:
        entries: dict[str, Any] = self.of(name, dict)
        for key, value in entries.items():
            if not isinstance(value, str | int | float) or value in (math.inf, -math.inf):
                raise InputError(f"{self.where}: {name}[{key!r}] must be text or a number")
        return entries


def _measurement(read: _Reader) -> Measurement:
    facts, rounds = read.inner("facts"), read.inner("rounds")
    for name in ("task", "network", "backend", "precision", "provider"):
        facts.of(name, str)
    facts.number("threads")
    facts.number("batch")
    _facts(facts)
    row = Measurement(
        name=read.of("name", str),
        facts=facts.entries,
        load_ms=read.optional("load_ms"),
        first_ms=read.optional("first_ms"),
        total=_percentiles(read.inner("total")),
        stages={
            name: _percentiles(_Reader(value, f"{read.where}: stages[{name!r}]"))
            for name, value in read.of("stages", dict).items()
        },
        runs=int(read.number("runs")),
        seconds=read.number("seconds"),
        kind=read.one_of("kind", KINDS),  # type: ignore[arg-type]
        rounds={name: rounds.numbers(name) for name in rounds.entries},
    )
    _of_its_task(read, facts, row)
    return row


def _facts(facts: _Reader) -> None:
    """What tables and charts take from a row, where it has it."""
    if facts.entries.get("memory") is not None:
        facts.inner("memory").number("peak_mib", least=-1)  # -1: the system does not tell
    if facts.entries.get("artifact") is None:
        return
    artifact = facts.inner("artifact")
    artifact.number("bytes")
    artifact.of("sha256", str)
    artifact.of("weights", str)
    if artifact.entries.get("accuracy") is not None:
        accuracy = artifact.inner("accuracy")
        for name in ("crops", "mm", "px", "network_mm"):
            accuracy.number(name)


def _of_its_task(read: _Reader, facts: _Reader, row: Measurement) -> None:
    """What rows of some tasks must have besides."""
    task = str(row.facts["task"])
    if task.startswith("peer "):
        read.inner("stages").inner("inside")
        rounds = read.inner("rounds").numbers("inside")
        if not rounds or min(rounds) <= 0:  # a ratio is made of them
            raise InputError(f"{read.where}: rounds 'inside' must be positive, not {rounds}")
        facts.number("load_and_first_s")
        if task != "peer photos":  # what is found in whole photos may differ
            facts.number("off_by")
    elif task.startswith("scaling "):
        facts.number("x")
        if not (row.facts["x"] > 0 and row.total.p50 > 0):
            raise InputError(
                f"{read.where}: 'x' and 'p50' of a scaling row must be positive, not "
                f"{row.facts['x']} and {row.total.p50}"
            )


def _percentiles(read: _Reader) -> Percentiles:
    found = Percentiles(read.number("p50"), read.optional("p90"), read.optional("p99"))
    known = [value for value in (found.p50, found.p90, found.p99) if value is not None]
    if known != sorted(known):
        raise InputError(f"{read.where}: p50, p90 and p99 must not fall, not {known}")
    return found


def _protocol(entries: Mapping[str, Any], where: str) -> Protocol:
    try:
        return Protocol(**entries)
    except (TypeError, InputError) as cause:
        raise InputError(f"{where}: 'protocol' is not as expected: {cause}") from cause


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
