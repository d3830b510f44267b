"""What can be asked of an export: defaults, refusals, suggestions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from handmesh.errors import InputError
from handmesh_converters import formats
from handmesh_converters.request import Abilities, Precision, Request

ABLE = Abilities(
    ("dense", "sparse"),
    ("fp16", "int8"),
    {"palette": (("fp16",), "clusters"), "static": (("int8",), "calibrates")},
)


def test_defaults_are_the_first_of_each() -> None:
    assert Request().resolve("some", ABLE) == ("dense", "fp16")
    assert Request("sparse", "int8", ("static",)).resolve("some", ABLE) == ("sparse", "int8")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(graph="spares"), "did you mean 'sparse'"),
        (Request(graph="polynomials"), "'some' has no graph 'polynomials'; it has dense, sparse"),
        (Request(precision="fp32"), "'some' has no precision 'fp32'; it has fp16, int8"),
        (Request(precision="fp8"), "must be one of fp32, fp16, int8"),  # type: ignore[arg-type]
        (Request(optimize=("pallete",)), "did you mean 'palette'"),
        (Request(optimize=("static",)), "goes with precision int8, not fp16"),
    ],
)
def test_what_a_format_cannot_do_is_refused(request_: Request, message: str) -> None:
    with pytest.raises(InputError, match=message):
        request_.resolve("some", ABLE)


def test_a_format_without_optimizations_says_so() -> None:
    with pytest.raises(InputError, match="has no optimizations, 'static'"):
        Request(optimize=("static",)).resolve("plain", Abilities(("sparse",), ("fp32",)))


def test_alternatives_exclude_each_other() -> None:
    able = Abilities(
        ("sparse",), ("int8",), dict.fromkeys("abc", (("int8",), "")), alternatives=("a", "b")
    )
    assert Request(optimize=("a", "c")).resolve("some", able) == ("sparse", "int8")
    with pytest.raises(InputError, match="a and b of format 'some' exclude each other: give one"):
        Request(optimize=("b", "a")).resolve("some", able)


def test_tflite_has_one_kind_of_8_bit_products() -> None:
    request = Request(precision="int8", optimize=("static", "dynamic"))
    with pytest.raises(InputError, match="dynamic and static of format 'tflite' exclude"):
        request.resolve("tflite", formats.abilities()["tflite"])


def test_detectors_have_precisions_of_their_own() -> None:
    exact = Abilities(("dense",), ("fp16", "fp32"), detector_precisions=("fp32",))
    none = Abilities(("dense",), ("fp16",), detector_precisions=())
    table = {"some": ABLE, "exact": exact, "none": none}
    assert Request().resolve("exact", exact, table) == ("dense", "fp16")
    assert Request().resolve("exact", exact, table, detector=True) == ("dense", "fp32")
    assert Request().resolve("some", ABLE, table, detector=True) == ("dense", "fp16")
    said = "'exact' has no precision of detectors 'fp16'; it has fp32; some can"
    with pytest.raises(InputError, match=said):
        Request(precision="fp16").resolve("exact", exact, table, detector=True)
    with pytest.raises(InputError, match="this one finds hands: export some, exact"):
        Request().resolve("none", none, table, detector=True)


def test_optimizations_of_detectors_are_named_one_by_one() -> None:
    able = Abilities(
        ("dense",),
        ("fp16", "fp32", "int8"),
        {"palette": (("int8",), ""), "both": (("int8", "fp32"), "")},
        detector_precisions=("fp32",),
        detector_optimizations=("palette", "both"),
    )
    for_mesh = replace(able, detector_optimizations=("both",))
    one, both = Request(optimize=("palette",)), Request(optimize=("both",))
    assert both.resolve("some", for_mesh, detector=True) == ("dense", "fp32")
    with pytest.raises(InputError, match=r"'palette' .* without a mesh does not have: leave out"):
        one.resolve("some", for_mesh, detector=True)
    with pytest.raises(
        InputError, match="goes with precision int8, not fp16: give --precision int8"
    ):
        one.resolve("some", able)
    # What is advised is not refused in its turn.
    with pytest.raises(
        InputError, match="goes with precision int8, not fp32: leave out --optimize"
    ):
        one.resolve("some", able, detector=True)
    able = replace(able, detector_precisions=("fp16", "fp32"))
    with pytest.raises(InputError, match="int8 or fp32, not fp16: give --precision fp32"):
        both.resolve("some", able, detector=True)


@pytest.mark.parametrize(
    ("name", "precision", "optimization"),
    [
        ("coreml", None, "sparse-constants"),
        ("coreml", None, "palettes"),
        ("tflite", "int8", "static"),
        ("tflite", "int8", "dynamic"),
    ],
)
def test_no_format_optimizes_detectors(
    name: str, precision: Precision | None, optimization: str
) -> None:
    request = Request(precision=precision, optimize=(optimization,))
    with pytest.raises(InputError, match="a network without a mesh does not have: leave out"):
        request.resolve(name, formats.abilities()[name], formats.abilities(), detector=True)


def test_every_format_is_in_the_table() -> None:
    table = formats.abilities()
    assert set(table) == set(formats.names())
    for name, able in table.items():
        assert Request().resolve(name, able)
