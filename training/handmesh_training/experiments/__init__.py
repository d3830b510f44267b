"""The paper's comparisons, each reproduced in kind by one command: `handmesh experiment NAME`.

`study` runs variants over seeds and says what the differences are worth; `tables` has the paper's
Table 1, Table 2 and Fig. 8, `weak` its Fig. 6, `recipes` the paper's optimiser beside a modern one.
"""

from .study import Result, Study, Variant

__all__ = ["Result", "Study", "Variant"]
