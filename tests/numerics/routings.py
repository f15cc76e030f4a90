"""Every routing beside its reference, alone and in the forms that compute something else."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from capsjax import Capsules, routing, testing
from capsjax.routing import dynamic, em, random_coupling, variational_bayes
from tests.numerics.case import Arrays, Case
from tests.reference import dynamic as dynamic_reference
from tests.reference import em as em_reference
from tests.reference import inverted_attention as inverted_attention_reference
from tests.reference import self_attention as self_attention_reference
from tests.reference import self_routing as self_routing_reference
from tests.reference import uniform as uniform_reference
from tests.reference import variational_bayes as variational_bayes_reference

# Parents, dim, children and the children's dim.
SMALL = (4, 6, 9, 5)
_CAPSNET = (10, 16, 1152, 8)
_EFFICIENT_CAPSNET = (10, 16, 16, 8)
# 3x3 windows of 32 types (matrix capsules, self-routing, inverted attention), and of 16.
_WINDOW, _NARROW_WINDOW = (32, 16, 288, 16), (16, 16, 144, 16)

_Refer = Callable[[Arrays, str], Any]


def of_routing(module: Any, config: Any, published: tuple[int, ...], refer: _Refer) -> Case:
    """A case of votes, what else of the children counts, and drawn parameters."""

    def draw(random: np.random.Generator, size: tuple[int, ...]) -> Arrays:
        parents, dim, children, child_dim = size
        seed = int(random.integers(2**31))
        kind = ("clustered", "uniform")[seed % 2]
        drawn: Arrays = {
            "votes": testing.draw_votes(kind, seed, parents=parents, dim=dim, children=children)
        }
        own = testing.draw_children(seed, children=children, child_dim=child_dim)
        drawn |= {name: getattr(own, name) for name in own._fields if name in module.USES}
        numbers = {"parents": parents, "dim": dim, "children": children, "child_dim": child_dim}
        for name, array in module.init(config, jax.random.key(0), **numbers).items():
            # A scale multiplies; whatever else is learned is added to something.
            drawn[name] = (name == "scale") + 0.3 * random.normal(size=array.shape)
        return drawn

    def library(given: Arrays, compete: Any = None) -> Arrays:
        return _named(module.route(*arguments(given), config, compete=compete))

    @functools.cache
    def exact(dtype: str) -> Callable[[Arrays], Arrays]:
        if module is not random_coupling:
            return library
        return lambda given: library(
            given, lambda logits: jnp.asarray(_shares(logits.shape, dtype))
        )

    def expected(given: Arrays, dtype: str) -> Arrays:
        return _named(refer(given, dtype))

    return Case(draw, {"small": SMALL, "published": published}, library, expected, exact)


def arguments(given: Arrays) -> tuple[Any, Capsules | None, Arrays]:
    """Votes, children and parameters, as ``route`` takes them."""
    params = dict(given)
    votes, poses, activations = (
        params.pop(name, None) for name in ("votes", "poses", "activations")
    )
    return votes, None if activations is None else Capsules(poses, activations), params


def _named(routed: Any) -> Arrays:
    """What both a ``Routed`` and a reference's iteration have."""
    names = ("poses", "activations", "coefficients")
    return {name: getattr(routed, name) for name in names if getattr(routed, name) is not None}


def _shares(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Random coupling's: exponential variables, drawn as in a dtype, over their sum."""
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        working = jnp.promote_types(jnp.dtype(dtype), jnp.float32)
        drawn = np.asarray(jax.random.exponential(jax.random.key(0), shape, working), np.float64)
    return drawn / drawn.sum(axis=-2)


def _params(given: Arrays, *names: str) -> Arrays:
    return {name: given[name] for name in names}


def _em(semantics: str, *names: str) -> _Refer:
    def refer(given: Arrays, _: str) -> Any:
        params = _params(given, *names)
        return em_reference.route(
            given["votes"], given["activations"], params, 3, semantics=semantics
        )[-1]

    return refer


def _variational(covariance: str) -> _Refer:
    def refer(given: Arrays, _: str) -> Any:
        params = _params(given, "beta_a", "beta_u")
        return variational_bayes_reference.route(
            given["votes"], given["activations"], params, 3, covariance=covariance
        )[-1]

    return refer


def _self_routing(given: Arrays, _: str) -> Any:
    params = _params(given, "kernel", "bias")
    return self_routing_reference.route(
        given["votes"], given["poses"], given["activations"], params
    )


def _inverted_attention(given: Arrays, _: str) -> Any:
    params = _params(given, "scale", "offset")
    return inverted_attention_reference.route(given["votes"], params, 2)[-1]


def _random_coupling(given: Arrays, dtype: str) -> Any:
    parents, _, children = given["votes"].shape
    return uniform_reference.route(given["votes"], _shares((parents, children), dtype))


_DEFAULT: dict[str, tuple[tuple[int, ...], _Refer]] = {
    "dynamic": (_CAPSNET, lambda given, _: dynamic_reference.route(given["votes"], 3)[-1]),
    "em": (_WINDOW, _em("paper", "beta_a", "beta_u")),
    "variational_bayes": (_NARROW_WINDOW, _variational("diagonal")),
    "self_attention": (
        _EFFICIENT_CAPSNET,
        lambda given, _: self_attention_reference.route(given["votes"], given["prior"]),
    ),
    "self_routing": (_WINDOW, _self_routing),
    "inverted_attention": (_WINDOW, _inverted_attention),
    "uniform": (_CAPSNET, lambda given, _: uniform_reference.route(given["votes"])),
    "random_coupling": (_CAPSNET, _random_coupling),
}

CASES = {
    name: of_routing(module, module.Config(), *_DEFAULT[name])
    for name, module in routing.ALGORITHMS.items()
} | {
    "dynamic, official and leaky": of_routing(
        dynamic,
        dynamic.Config(semantics="official", leaky=True),
        _CAPSNET,
        lambda given, _: dynamic_reference.route(given["votes"], 3, bias=given["bias"], leaky=True)[
            -1
        ],
    ),
    "em, official": of_routing(
        em,
        em.Config(semantics="official"),
        _WINDOW,
        _em("official", "activation_bias", "sigma_bias"),
    ),
    "variational_bayes, full": of_routing(
        variational_bayes,
        variational_bayes.Config(covariance="full"),
        _NARROW_WINDOW,
        _variational("full"),
    ),
}
