"""Routings: route and init of every algorithm, what measures them, how they compete and run."""

from functools import partial
from typing import Any

import jax
import numpy as np

from capsjax.routing import ALGORITHMS, competition, convergence, dynamic, measures
from capsjax.types import Capsules
from tests.fuzz.judge import OVERFLOW, Row
from tests.fuzz.tables.mathematics import normal, uniform

_PARENTS, _DIM, _CHILDREN, _CHILD_DIM = 3, 4, 6, 5
_SIZES = {"parents": _PARENTS, "dim": _DIM, "children": _CHILDREN, "child_dim": _CHILD_DIM}
_CHILDREN_GIVEN = Capsules(normal(_CHILDREN, _CHILD_DIM), uniform(_CHILDREN))
_SHARES, _VOTES, _POSES = (
    uniform(_PARENTS, _CHILDREN),
    normal(_PARENTS, _DIM, _CHILDREN),
    normal(_PARENTS, _DIM),
)
_ACTIVE = "a NaN of what the algorithm does not look at is not seen; of votes it always is"


def _route(module: Any, **arguments: Any) -> Any:
    """What a network goes on with."""
    routed = module.route(**arguments)
    return routed.poses, routed.activations, routed.coefficients


def _of(name: str, module: Any) -> list[Row]:
    config = module.Config()
    params = module.init(config, jax.random.key(0), **_SIZES)
    given = {
        "votes": _VOTES,
        "children": _CHILDREN_GIVEN,
        "params": params,
        "config": config,
        "compete": None,
        "initial": None,
        "trace": False,
    }
    start = partial(module.init, key=jax.random.key(0))
    route = partial(_route, module)
    return [
        Row(f"{name}.route", route, given, hides=_ACTIVE, makes=OVERFLOW),
        Row(f"{name}.votes", route, given, only=("votes",), makes=OVERFLOW),
        Row(f"{name}.init", start, {"config": config, **_SIZES}, compiled=False),
    ]


def _across(index: np.ndarray, over: Any, logits: jax.Array) -> jax.Array:
    return competition.across(index, over=over)(logits)


_INDEX = np.array([[0, 1], [1, -1]])
_TRACED = {"coefficients": uniform(2, _PARENTS, _CHILDREN)}
_EMPTY = "a parent without a share agrees with nothing"

ROWS = [
    *(row for name, module in ALGORITHMS.items() for row in _of(name, module)),
    Row("entropy", measures.entropy, {"coefficients": _SHARES}),
    Row("polarisation", measures.polarisation, {"coefficients": _SHARES}),
    Row("agreement", measures.agreement,
        {"coefficients": _SHARES, "votes": _VOTES, "poses": _POSES}, makes=OVERFLOW),
    Row("change", measures.change, _TRACED),
    Row("coefficient_variance", measures.coefficient_variance, _TRACED, makes=OVERFLOW),
    Row("strongest_share", measures.strongest_share, {"coefficients": _SHARES}),
    Row("dead_share", measures.dead_share,
        {"activations": uniform(4, _PARENTS), "threshold": 0.01}),
    Row("by_iteration", measures.by_iteration,
        {**_TRACED, "votes": _VOTES, "poses": normal(2, _PARENTS, _DIM)}, makes=OVERFLOW),
    Row("across", _across, {"index": _INDEX, "over": "all", "logits": normal(2, 3, 2)}, False,
        only=("index", "over")),
    Row("extrapolate", convergence.extrapolate,
        {"config": dynamic.Config(), "num_iterations": 4}, False),
]  # fmt: skip
