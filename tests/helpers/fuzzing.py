"""What the fuzz tests share: how many cases, damaged bytes, and the rule that all of them check."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from handmesh.errors import HandMeshError

# Cases of each test in the usual suite; FUZZ_CASES asks for more, by new luck each time.
FEW = 12
CASES = int(os.environ.get("FUZZ_CASES", FEW))
# What a case takes beyond this is an error, before the machine runs out of memory.
MOST_BYTES = 8 * 2**30
# A case that takes longer hangs: the process ends, and tells where it was.
HANGS_AFTER_S = 120.0

if CASES > FEW and sys.platform == "linux":
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, resource.RLIM_INFINITY))

# What has been run, and what of it was refused, for the report at the end.
counts = {"cases": 0, "refused": 0}


def fuzz(share: float = 1.0) -> Callable[[Any], Any]:
    """Settings of a fuzz test that gets that share of the cases: less for what takes longer."""
    return settings(
        max_examples=max(1, round(CASES * share)),
        deadline=None,
        derandomize="FUZZ_CASES" not in os.environ,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def only_our_errors() -> Iterator[None]:
    """Errors of handmesh's tree are an answer; any other leaves, and fails the test."""
    counts["cases"] += 1
    message = "nothing was refused"
    if CASES > FEW:  # its stderr is lost where pytest captures it
        faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True, file=sys.__stderr__)
    try:
        yield
    except HandMeshError as error:
        counts["refused"] += 1
        message = str(error)
    finally:
        if CASES > FEW:
            faulthandler.cancel_dump_traceback_later()
    assert message, "an error says what was expected, what came and what to do"


def _damage(data: bytes, kind: str, at: float, length: int, value: bytes) -> bytes:
    place = int(at * len(data))
    if kind == "flip" and data:
        place = min(place, len(data) - 1)
        return data[:place] + bytes([data[place] ^ (value or b"\1")[0]]) + data[place + 1 :]
    if kind == "write":
        return data[:place] + value + data[place + len(value) :]
    if kind == "insert":
        return data[:place] + value + data[place:]
    if kind == "delete":
        return data[:place] + data[place + length :]
    if kind == "repeat":
        return data[: place + length] + data[place:]
    return data[:place]  # "cut"


# Numbers that parsers count with, little and big endian.
_TELLING = [b"\xff", b"\0", b"\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"]
_TELLING += [b"\xff\xff\xff\x7f", b"\x80\0\0\0", b"\0\0\0\x80", b"\xff" * 8, b"\0\1", b"\1\0"]


def damaged(
    seeds: list[bytes], most: int = 4, header: int = 200, times: int = 1
) -> st.SearchStrategy[bytes]:
    """One of the seeds with up to `most` damages, half of them within its first `header` bytes.

    Args:
        times: at least so many damages.
    """

    def apply(seed: bytes, damages: list[tuple[str, bool, float, int, bytes]]) -> bytes:
        for kind, early, at, length, value in damages:
            share = min(1.0, header / max(len(seed), 1)) if early else 1.0
            seed = _damage(seed, kind, at * share, length, value)
        return seed

    kinds = st.sampled_from(["flip", "flip", "flip", "write", "insert", "delete", "repeat", "cut"])
    values = st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(_TELLING))
    damage = st.tuples(kinds, st.booleans(), st.floats(0, 1), st.integers(1, 64), values)
    return st.builds(apply, st.sampled_from(seeds), st.lists(damage, min_size=times, max_size=most))


# Whatever a caller may hand over for a number.
ANY_NUMBER: st.SearchStrategy[Any] = st.one_of(
    st.floats(width=64),
    st.integers(-5, 5000),
    st.integers(),
    st.sampled_from(
        [float("nan"), float("inf"), -float("inf"), 0, -0.0, 5e-324, 1e308, -1e308, 1e-160]
        + [10**400, -(10**400), 2**31, 2**63, True, 1j]
    ),
    st.sampled_from([None, "", "1", "wide", b"1", [], [1], {}, (), object(), float, 1 + 0j]),
    st.just(5000).map(lambda digits: 10**digits),  # which Python, and Hypothesis, cannot write
)
# Whatever JSON may hold.
JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
        st.sampled_from([-1, 0, 2**31, 2**63, 10**30, 10**400, 1e308]),
        st.sampled_from(["..", "../x", "\0", "\ud800"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)  # fmt: skip


def paths_in(document: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of a JSON document, outer ones first; of long lists a few entries."""
    if place:
        yield place
    if isinstance(document, dict):
        for key, value in document.items():
            yield from paths_in(value, (*place, key))
    elif isinstance(document, list):
        for index in sorted({0, 1, len(document) - 1} & set(range(len(document)))):
            yield from paths_in(document[index], (*place, index))


def changed(document: Any, place: tuple[Any, ...], change: str, value: Any) -> Any:
    """A copy of a JSON document with one place replaced, removed, or given a sibling."""
    key, *rest = place
    copy = dict(document) if isinstance(document, dict) else list(document)
    if rest:
        copy[key] = changed(document[key], tuple(rest), change, value)
    elif change == "remove":
        del copy[key]
    elif change == "add":
        if isinstance(copy, dict):
            copy[f"{key}x" if not isinstance(value, str) else value] = value
        else:
            copy.append(value)
    elif change == "nest":
        for _ in range(80):
            copy[key] = [copy[key]]
    else:
        copy[key] = value
    return copy


def changes(document: Any, most: int = 2) -> st.SearchStrategy[Any]:
    """The document with one or more of its places changed."""
    places = sorted(paths_in(document), key=len)
    kinds = st.sampled_from(["replace", "replace", "replace", "remove", "add", "nest"])
    change = st.tuples(st.sampled_from(places), kinds, JSON)

    def apply(wanted: list[tuple[tuple[Any, ...], str, Any]]) -> Any:
        result = document
        for place, kind, value in wanted:
            # An earlier change may have taken the place away.
            with contextlib.suppress(KeyError, IndexError, TypeError, ValueError):
                result = changed(result, place, kind, value)
        return result

    return st.lists(change, min_size=1, max_size=most).map(apply)
