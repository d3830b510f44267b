"""Forms of a folded Chebyshev convolution: how sum_k T_k(L) x theta_k becomes constant operators.

A form is a class with the members of `GraphForm`; nothing else knows how it computes.
"""

from __future__ import annotations

from handmesh.errors import InputError

from .explicit import Dense, Polynomials
from .recurrence import Recurrence
from .spec import ConvSpec, GraphForm

__all__ = ["FORMS", "ConvSpec", "Dense", "GraphForm", "Polynomials", "Recurrence", "form_named"]

# By the names that `handmesh export --graph` takes. "sparse" is the one that was measured fastest.
FORMS: dict[str, GraphForm] = {
    "sparse": Recurrence(),
    "polynomials": Polynomials(),
    "dense": Dense(),
}


def form_named(name: str) -> GraphForm:
    """The form of that name, with its usual parameters.

    Raises:
        InputError: there is none.
    """
    try:
        return FORMS[name]
    except KeyError:
        raise InputError(f"graph must be one of {', '.join(FORMS)}; not {name!r}") from None
