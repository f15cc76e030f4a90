"""The properties that the kit checks, each a function of the routing under test.

A check returns None if the property holds, or why it does not apply to this routing; it raises
AssertionError if it does not hold.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from capsjax.testing.drawing import (
    CHILD_DIM,
    CHILDREN,
    DIM,
    KINDS,
    PARENTS,
    draw_children,
    draw_votes,
)
from capsjax.testing.subject import (
    Outcome,
    Subject,
    all_finite,
    mapped,
    outcome,
    same,
    same_outcome,
    traces,
)
from capsjax.types import Capsules, Routed

_ORDINARY = ("clustered", "uniform", "duplicated", "zeros")
_VARIED = ("clustered", "uniform")


def _shapes(subject: Subject) -> None:
    for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
        found = subject(draw_votes("uniform", 0), draw_children(0), dtype)
        expected: dict[str, tuple[int, ...]] = {
            "poses": (PARENTS, DIM),
            "coefficients": (PARENTS, CHILDREN),
        }
        if subject.module.READOUT == "own":
            assert found.activations is not None, "READOUT is 'own' but activations are None"
        if found.activations is not None:
            expected["activations"] = (PARENTS,)
        for name, shape in expected.items():
            array = getattr(found, name)
            assert array.shape == shape, f"{name} have shape {array.shape}, expected {shape}"
            assert array.dtype == dtype, f"{name} are {array.dtype} for {jnp.dtype(dtype)} votes"


def _eager(subject: Subject) -> None:
    votes, children, params = subject.inputs(
        draw_votes("clustered", 0), draw_children(0), jnp.float64
    )
    routed = subject.route(votes, children, params)
    compiled = subject(draw_votes("clustered", 0), draw_children(0))
    same_outcome(outcome(routed), compiled, "eagerly and compiled")
    same(routed.votes, votes, "votes as they went in and came back", tolerance=0)


def _finite(subject: Subject) -> None:
    def check(votes: np.ndarray, children: Capsules, *, dtype: Any) -> None:
        what = f"for votes up to {np.abs(votes).max():.3g} in {jnp.dtype(dtype)}"
        all_finite(subject.with_gradient(votes, children, dtype), what)

    for dtype in (jnp.float32, jnp.bfloat16, jnp.float64):
        subject.on_drawn(check, dtype=dtype)
    alone: tuple[dict[str, int], ...] = ({"children": 1}, {"parents": 1})
    for sizes in alone:
        for seed, kind in enumerate(KINDS):
            one = draw_votes(kind, seed, huge=subject.huge, **sizes)
            children = draw_children(seed, children=one.shape[-1])
            what = f"for one of {', '.join(sizes)} and {kind} votes"
            all_finite(subject.with_gradient(one, children, jnp.float32), what)
    off: Any = np.zeros(CHILDREN)
    for kind in KINDS:
        children = draw_children(0)._replace(activations=off)
        votes = draw_votes(kind, 0, huge=subject.huge)
        what = f"for children that are all off and {kind} votes"
        all_finite(subject.with_gradient(votes, children, jnp.float32), what)


def _shares(subject: Subject) -> None:
    def check(votes: np.ndarray, children: Capsules, *, dtype: Any, tolerance: float) -> None:
        found = np.asarray(subject(votes, children, dtype).coefficients, np.float64)
        assert found.min() >= 0, f"a coefficient is {found.min():.3g}"
        sums = found.sum(axis=0)
        worst = sums[np.abs(sums - 1).argmax()]
        assert abs(worst - 1) < tolerance, f"a child's coefficients sum to {worst:.6g}"

    subject.on_drawn(check, dtype=jnp.float32, tolerance=1e-5)
    subject.on_drawn(check, dtype=jnp.bfloat16, tolerance=2e-2)


def _children_permuted(subject: Subject) -> None:
    def check(votes: np.ndarray, children: Capsules) -> None:
        order = np.random.default_rng(0).permutation(CHILDREN)
        plain = subject(votes, children)
        moved = subject(votes[..., order], Capsules(*(x[order] for x in children)))
        expected = plain._replace(coefficients=plain.coefficients[:, order])
        same_outcome(moved, expected, "with the children permuted")

    subject.on_drawn(check, *_ORDINARY)


def _parents_permuted(subject: Subject) -> None:
    def check(votes: np.ndarray, children: Capsules) -> None:
        order = np.random.default_rng(1).permutation(PARENTS)
        expected = mapped(subject(votes, children), lambda x: x[order])
        same_outcome(subject(votes[order], children), expected, "with the parents permuted")

    subject.on_drawn(check, *_ORDINARY)


def _batch() -> tuple[Any, Any]:
    seeds = range(4)
    votes = [draw_votes(KINDS[seed], seed) for seed in seeds]
    children: Any = zip(*(draw_children(seed) for seed in seeds), strict=True)
    stacked: Any = map(np.stack, children)
    return np.stack(votes), Capsules(*stacked)


def _alone(subject: Subject) -> None:
    votes, children, _ = subject.inputs(*_batch(), jnp.float64)
    params = subject.inputs(votes[0], children, jnp.float64)[2]
    together = jax.jit(
        jax.vmap(lambda votes, children: outcome(subject.route(votes, children, params)))
    )(votes, children)
    for index in range(len(votes)):
        alone = subject(votes[index], Capsules(*(x[index] for x in children)))
        found = mapped(together, lambda x, index=index: x[index])
        same_outcome(found, alone, "in a batch and alone")


def _windows(subject: Subject) -> None:
    votes, children = _batch()
    grid = [x.reshape(2, 2, *x.shape[1:]) for x in (votes, *children)]
    together = subject(grid[0], Capsules(*grid[1:]))
    for index in range(4):
        alone = subject(votes[index], Capsules(*(x[index] for x in children)))
        found = mapped(together, lambda x, index=index: x[divmod(index, 2)])
        same_outcome(found, alone, "in a grid of windows and alone")


def _compiles_once(subject: Subject) -> None:
    route, traced = traces(lambda *inputs: outcome(subject.route(*inputs)))
    for seed in range(2):
        route(*subject.inputs(draw_votes("uniform", seed), draw_children(seed), jnp.float32))
    assert len(traced) == 1, "a second batch of the same shape compiled again"


def _trace(subject: Subject) -> None:
    votes, children = draw_votes("clustered", 0), draw_children(0)
    inputs = subject.inputs(votes, children, jnp.float64)
    traced = jax.jit(lambda *inputs: subject.route(*inputs, trace=True))(*inputs)
    assert traced.trace is not None, "trace=True gives no trace"
    same_outcome(outcome(traced), subject(votes, children), "with and without a trace")
    for name in Outcome._fields:
        entries, last = getattr(traced.trace, name), getattr(traced, name)
        assert (entries is None) == (last is None), f"{name} are None in one of result and trace"
        if last is not None:
            assert entries.shape[1:] == last.shape, f"{name} of the trace: {entries.shape}"
            same(entries[-1], last, f"the trace's last {name} and the result's")


def _softmax_over_parents(logits: jax.Array) -> jax.Array:
    return jax.nn.softmax(logits, axis=-2)


def _all_to_the_first(logits: jax.Array) -> jax.Array:
    return jnp.zeros_like(logits).at[..., 0, :].set(1)


def _competes(subject: Subject) -> None:
    votes, children = draw_votes("clustered", 0), draw_children(0)
    inputs = subject.inputs(votes, children, jnp.float64)

    def route(compete: Callable) -> Outcome:
        return jax.jit(lambda *inputs: outcome(subject.route(*inputs, compete=compete)))(*inputs)

    softmax, plain = route(_softmax_over_parents), subject(votes, children)
    same_outcome(softmax, plain, "with compete=softmax over parents and by default")
    expected = np.zeros((PARENTS, CHILDREN))
    expected[0] = 1
    same(route(_all_to_the_first).coefficients, expected, "coefficients and what compete gave")


def _continues(subject: Subject) -> str | None:
    if not subject.iterative:
        return "it is not iterative"
    inputs = subject.inputs(draw_votes("clustered", 0), draw_children(0), jnp.float64)

    def route(count: int, initial: Routed | None = None) -> Routed:
        config = dataclasses.replace(subject.config, num_iterations=count)
        run = lambda *inputs: subject.module.route(*inputs, config, initial=initial)  # noqa: E731
        return jax.jit(run)(*inputs)

    twice, once = outcome(route(2)), route(1)
    same_outcome(outcome(route(1, once)), twice, "of 1 iteration continued by 1, and 2 at once")
    return None


def _loop(subject: Subject) -> str | None:
    if not hasattr(subject.config, "loop"):
        return "it has no loop to choose"
    inputs = subject.inputs(draw_votes("clustered", 0), draw_children(0), jnp.float64)

    def differentiated(**loop: Any) -> list:
        loop_config = dataclasses.replace(subject.config.loop, **loop)
        config = dataclasses.replace(subject.config, num_iterations=4, loop=loop_config)
        return jax.tree.leaves(Subject(subject.module, config, 1).differentiated(*inputs))

    unrolled = differentiated(unroll=1000)
    for what, loop in (("scanned", {"unroll": 0}), ("with checkpoints", {"checkpoint": True})):
        for ours, theirs in zip(differentiated(**loop), unrolled, strict=True):
            same(ours, theirs, f"values and gradients {what} and unrolled")
    return None


def _off_child(subject: Subject) -> None:
    def check(votes: np.ndarray, children: Capsules) -> None:
        activations: Any = np.array(children.activations)
        activations[0] = 0
        children = children._replace(activations=activations)
        other = votes.copy()
        other[..., 0] = 7
        plain, changed = subject(votes, children), subject(other, children)
        coefficients = plain.coefficients
        same_outcome(
            changed._replace(coefficients=coefficients), plain, "when a child that is off moves"
        )

    subject.on_drawn(check, *_VARIED)


def _identical(subject: Subject) -> None:
    def check(votes: np.ndarray, children: Capsules) -> None:
        found = np.asarray(
            subject(np.array(np.broadcast_to(votes[:1, :, :1], votes.shape)), children).coefficients
        )
        same(found, np.full_like(found, found.mean()), "coefficients of identical votes")

    subject.on_drawn(check, "uniform")


def _two_groups(subject: Subject) -> None:
    """Each half of the children agrees about one of two parents and is scattered for the other."""
    config = subject.config
    if hasattr(config, "num_iterations"):
        config = dataclasses.replace(config, num_iterations=5)
    dim, half = 16, 8
    other = Subject(subject.module, config, subject.examples)
    for seed in range(subject.examples):
        random = np.random.default_rng(seed)
        votes = random.normal(size=(2, dim, 2 * half))
        votes[0, :, :half] = random.normal(size=(dim, 1))
        votes[1, :, half:] = random.normal(size=(dim, 1))
        votes *= random.uniform(1, 2) / np.linalg.norm(votes, axis=1, keepdims=True)
        activations: Any = np.full(2 * half, 0.9)
        poses: Any = random.normal(size=(2 * half, CHILD_DIM))
        found = np.asarray(other(votes, Capsules(poses, activations)).coefficients)
        right = min(found[0, :half].min(), found[1, half:].min())
        assert right > 0.8, f"a child couples {right:.3f} to the parent that its group agrees about"


def _sign_blind(subject: Subject) -> None:
    def check(votes: np.ndarray, children: Capsules) -> None:
        plain = subject(votes, children)
        turned = subject(-votes, children._replace(poses=-children.poses))
        same_outcome(turned, plain._replace(poses=-plain.poses), "of mirrored votes")

    subject.on_drawn(check, *_VARIED)


def _rotation(subject: Subject) -> None:
    def check(votes: np.ndarray, children: Capsules) -> None:
        turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(DIM, DIM)))
        plain = subject(votes, children)
        turned = subject(np.einsum("de,jei->jdi", turn, votes), children)
        same_outcome(turned, plain._replace(poses=plain.poses @ turn.T), "with all votes rotated")

    subject.on_drawn(check, *_VARIED)


def _translation(subject: Subject) -> None:
    def check(votes: np.ndarray, children: Capsules) -> None:
        shift = np.random.default_rng(3).normal(size=DIM)
        plain, moved = subject(votes, children), subject(votes + shift[:, None], children)
        expected = plain._replace(poses=np.asarray(plain.poses) + shift)
        same_outcome(moved, expected, "with all votes translated")

    subject.on_drawn(check, *_VARIED)


PROPERTIES: dict[str, Callable[[Subject], str | None]] = {
    "shapes and dtypes": _shapes,
    "eager as compiled": _eager,
    "finite": _finite,
    "shares": _shares,
    "children permuted": _children_permuted,
    "parents permuted": _parents_permuted,
    "alone as in a batch": _alone,
    "windows alone": _windows,
    "compiles once": _compiles_once,
    "trace": _trace,
    "compete": _competes,
    "initial": _continues,
    "scan and checkpoint": _loop,
    "off child": _off_child,
    "uniform if identical": _identical,
    "two groups": _two_groups,
    "sign-blind": _sign_blind,
    "rotation": _rotation,
    "translation": _translation,
}
# What each one says, for the table in CONTRIBUTING.
MEANING = {
    "shapes and dtypes": "poses, activations and coefficients have the contract's shapes and the "
    "votes' dtype: bfloat16, float32, float64",
    "eager as compiled": "`jit` changes nothing; votes come back as they went in",
    "finite": "values and gradients are finite for clustered, uniform, tiny, huge, duplicated and "
    "zero votes, one child, one parent, and children that are all off",
    "shares": "coefficients are at least 0 and a child's sum to 1 over its parents",
    "children permuted": "another order of the children gives the same parents",
    "parents permuted": "another order of the parents gives the same parents in that order",
    "alone as in a batch": "an example gives alone what it gives in a batch (`vmap`)",
    "windows alone": "a window gives alone what it gives in a grid of windows",
    "compiles once": "a second batch of the same shape does not compile again",
    "trace": "a trace changes nothing and ends in the result",
    "compete": "`compete` takes the place of the softmax over parents",
    "initial": "one iteration continued by one more equals two",
    "scan and checkpoint": "scanned and rematerialised iterations give the unrolled ones' values "
    "and gradients",
    "off child": "the votes of a child with activation 0 change no pose and no activation",
    "uniform if identical": "votes that are the same for all children and parents leave the "
    "coefficients uniform",
    "two groups": "of two groups of children that agree about one parent each, votes of length 1 "
    "to 2, every child couples more than 0.8 to its group's parent within 5 iterations",
    "sign-blind": "mirrored votes give mirrored poses and the same coefficients",
    "rotation": "rotated votes give rotated poses and the same coefficients",
    "translation": "translated votes give translated poses and the same coefficients",
}
