"""Properties of the contract: what any routing must do, whatever its mathematics."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from capsjax.testing.drawing import CHILDREN, DIM, KINDS, PARENTS, draw_children, draw_votes
from capsjax.testing.subject import (
    TOLERANCE,
    Outcome,
    Subject,
    all_finite,
    mapped,
    outcome,
    same,
    same_outcome,
    same_state,
)
from capsjax.types import Capsules, Routed

_GRID = (2, 3)  # of windows, one for each kind


def shapes(subject: Subject) -> None:
    """Shapes and dtypes, by tracing alone: three dtypes, nothing compiled."""
    for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
        inputs = subject.inputs(draw_votes("uniform", 0), draw_children(0), dtype)
        found = jax.eval_shape(subject.route, *inputs)
        expected: dict[str, tuple[int, ...]] = {
            "poses": (PARENTS, DIM),
            "coefficients": (PARENTS, CHILDREN),
            "votes": (PARENTS, DIM, CHILDREN),
        }
        assert found.trace is None, "there is a trace that was not asked for"
        if subject.module.READOUT == "own":
            assert found.activations is not None, "READOUT is 'own' but activations are None"
        if found.activations is not None:
            expected["activations"] = (PARENTS,)
        for name, shape in expected.items():
            array = getattr(found, name)
            assert array.shape == shape, f"{name} have shape {array.shape}, expected {shape}"
            assert array.dtype == dtype, f"{name} are {array.dtype} for {jnp.dtype(dtype)} votes"


def eager(subject: Subject) -> None:
    """Eager and compiled results, states included; the votes that come back."""
    inputs = subject.inputs(draw_votes("clustered", 0), draw_children(0), jnp.float64)
    routed = subject.route(*inputs)
    (_, (compiled, state)), _ = subject.differentiated(*inputs)
    same_outcome(outcome(routed), compiled, "eagerly and compiled")
    same_state(routed.state, state, "eagerly and compiled")
    same(routed.votes, inputs[0], "votes as they went in and came back", tolerance=0.0)


def finite(subject: Subject) -> None:
    """NaN and Inf in values, states and gradients, at the ends of the range."""

    def check(votes: np.ndarray, children: Capsules, *, dtype: Any) -> None:
        what = f"for votes up to {np.abs(votes).max():.3g} in {jnp.dtype(dtype)}"
        all_finite(subject.differentiated(*subject.inputs(votes, children, dtype)), what)

    for dtype in (jnp.float32, jnp.bfloat16, jnp.float64):
        subject.on_drawn(check, dtype=dtype)
    one_of: tuple[dict[str, int], ...] = ({"children": 1}, {"parents": 1})
    for sizes in one_of:
        for seed, kind in enumerate(KINDS):
            one = draw_votes(kind, seed, huge=subject.huge, **sizes)
            children = draw_children(seed, children=one.shape[-1])
            what = f"for one of {', '.join(sizes)} and {kind} votes"
            all_finite(subject.differentiated(*subject.inputs(one, children, jnp.float32)), what)
    off: Any = np.zeros(CHILDREN)
    for kind in KINDS:
        children = draw_children(0)._replace(activations=off)
        votes = draw_votes(kind, 0, huge=subject.huge)
        what = f"for children that are all off and {kind} votes"
        all_finite(subject.differentiated(*subject.inputs(votes, children, jnp.float32)), what)


def shares(subject: Subject) -> None:
    """Signs and sums of the coefficients."""

    def check(votes: np.ndarray, children: Capsules, *, dtype: Any, tolerance: float) -> None:
        found = subject(votes, children, dtype, drawn=True).coefficients
        found = np.asarray(found, np.float64)
        assert found.min() >= 0, f"a coefficient is {found.min():.3g}"
        sums = found.sum(axis=0)
        worst = sums[np.abs(sums - 1).argmax()]
        assert abs(worst - 1) < tolerance, (
            f"a child's coefficients sum to {worst:.6g} over its parents (axis -2), expected 1"
        )

    subject.on_drawn(check, dtype=jnp.float32, tolerance=1e-5)
    subject.on_drawn(check, dtype=jnp.bfloat16, tolerance=2e-2)


def activations(subject: Subject) -> str | None:
    """Range of activations of its own."""
    if subject.module.READOUT != "own":
        return f"READOUT is {subject.module.READOUT!r}"

    def check(votes: np.ndarray, children: Capsules) -> None:
        found = np.asarray(subject(votes, children, jnp.float32, drawn=True).activations)
        worst = found[np.abs(found - 0.5).argmax()]
        assert abs(worst - 0.5) <= 0.5 + 1e-6, f"an activation is {worst:.6g}, expected 0 to 1"

    subject.on_drawn(check)
    return None


def _batch(subject: Subject) -> tuple[Any, Any]:
    """One example of each kind."""
    votes = [draw_votes(kind, seed, huge=subject.huge) for seed, kind in enumerate(KINDS)]
    children: Any = zip(*map(draw_children, range(len(KINDS))), strict=True)
    stacked: Any = map(np.stack, children)
    return np.stack(votes), Capsules(*stacked)


def _tolerance(kind: str) -> float:
    """Beside huge votes what keeps a covariance regular is itself a rounding error."""
    return 1e-6 if kind == "huge" else TOLERANCE


def alone(subject: Subject) -> None:
    """An example of each kind, alone and in a batch of all."""
    votes, children, _ = subject.inputs(*_batch(subject), jnp.float64)
    params = subject.inputs(votes[0], children, jnp.float64)[2]
    together = subject.jit(
        jax.vmap(lambda votes, children: outcome(subject.route(votes, children, params)))
    )(votes, children)
    for index, kind in enumerate(KINDS):
        expected = subject(votes[index], Capsules(*(x[index] for x in children)))
        found = mapped(together, lambda x, index=index: x[index])
        same_outcome(found, expected, "in a batch and alone", tolerance=_tolerance(kind))


def windows(subject: Subject) -> None:
    """An example of each kind, alone and as one window of a grid."""
    votes, children = _batch(subject)
    grid = [x.reshape(*_GRID, *x.shape[1:]) for x in (votes, *children)]
    together = subject.once(grid[0], Capsules(*grid[1:]))
    for index, kind in enumerate(KINDS):
        expected = subject(votes[index], Capsules(*(x[index] for x in children)))
        found = mapped(together, lambda x, index=index: x[np.unravel_index(index, _GRID)])
        same_outcome(found, expected, "in a grid of windows and alone", tolerance=_tolerance(kind))


def compiles_once(subject: Subject) -> None:
    """Traces of a second example."""
    subject(draw_votes("uniform", 0), draw_children(0), jnp.float32)
    before = len(subject.traced)
    subject(draw_votes("uniform", 1), draw_children(1), jnp.float32)
    assert len(subject.traced) == before, "a second example of the same shape compiled again"


def trace(subject: Subject) -> None:
    """Length, shapes and end of a trace, and that nothing else changes."""
    votes, children = draw_votes("clustered", 0), draw_children(0)
    inputs = subject.inputs(votes, children, jnp.float64)
    traced = subject.jit(lambda *inputs: subject.route(*inputs, trace=True))(*inputs)
    assert traced.trace is not None, "trace=True gives no trace"
    (_, (found, state)), _ = subject.differentiated(*inputs)
    same_outcome(outcome(traced), found, "with and without a trace")
    same_state(traced.state, state, "with and without a trace")
    same(traced.votes, inputs[0], "votes as they went in and came back", tolerance=0.0)
    count = _length(subject.config)
    for name in Outcome._fields:
        entries, last = getattr(traced.trace, name), getattr(traced, name)
        assert (entries is None) == (last is None), f"{name} are None in one of result and trace"
        if last is not None:
            expected = (count, *last.shape)
            assert entries.shape == expected, (
                f"{name} of the trace have shape {entries.shape}, expected {expected}"
            )
            same(entries[-1], last, f"the trace's last {name} and the result's")


def _length(config: Any) -> int:
    """How many entries a trace has."""
    if _ends_by_tolerance(config):
        return config.loop.max_iterations
    return getattr(config, "num_iterations", 1)


def _ends_by_tolerance(config: Any) -> bool:
    return getattr(getattr(config, "loop", None), "tolerance", None) is not None


def _softmax_over_parents(logits: jax.Array) -> jax.Array:
    return jax.nn.softmax(logits, axis=-2)


def competes(subject: Subject) -> None:
    """Results by given competitions, and the shape of what they are given."""
    votes, children = draw_votes("clustered", 0), draw_children(0)
    inputs = subject.inputs(votes, children, jnp.float64)

    def route(by_softmax: jax.Array, *inputs: Any) -> Outcome:
        def compete(logits: jax.Array) -> jax.Array:
            first = jnp.zeros_like(logits).at[..., 0, :].set(1)
            return jnp.where(by_softmax, _softmax_over_parents(logits), first)

        return outcome(subject.route(*inputs, compete=compete))

    compiled = subject.jit(route)
    softmax, plain = compiled(True, *inputs), subject(votes, children)
    same_outcome(softmax, plain, "with compete=softmax over parents and by default")
    expected = np.zeros((PARENTS, CHILDREN))
    expected[0] = 1
    same(compiled(False, *inputs).coefficients, expected, "coefficients and what compete gave")
    seen = []

    def compete(logits: jax.Array) -> jax.Array:
        seen.append(logits.shape)
        return _softmax_over_parents(logits)

    grid: list[Any] = [np.broadcast_to(x, (*_GRID, *x.shape)) for x in (votes, *children)]
    inputs = subject.inputs(grid[0], Capsules(*grid[1:]), jnp.float64)
    jax.eval_shape(lambda *inputs: subject.route(*inputs, compete=compete), *inputs)
    wanted = (*_GRID, PARENTS, CHILDREN)
    assert seen, "compete was never called"
    assert set(seen) == {wanted}, (
        f"compete was given logits of shapes {sorted(set(seen))}, expected {wanted}: those of all "
        "windows at once"
    )


def continues(subject: Subject) -> str | None:
    """The last iteration run on its own, from the result of those before."""
    if not subject.iterative:
        return "it is not iterative"
    if _ends_by_tolerance(subject.config):
        return "a tolerance decides how many iterations there are"
    other = _at_least(subject, 2)
    votes, children = draw_votes("clustered", 0), draw_children(0)
    inputs = subject.inputs(votes, children, jnp.float64)

    def route(count: int, initial: Routed | None = None) -> Routed:
        config = dataclasses.replace(subject.config, num_iterations=count)
        run = lambda *inputs: subject.module.route(*inputs, config, initial=initial)  # noqa: E731
        return subject.jit(run)(*inputs)

    count = other.config.num_iterations
    continued = outcome(route(1, route(count - 1)))
    what = f"of {count - 1} iterations continued by 1, and {count} at once"
    same_outcome(continued, other(votes, children), what)
    return None


def _at_least(subject: Subject, count: int) -> Subject:
    """The subject, or one with more iterations."""
    if subject.config.num_iterations >= count:
        return subject
    return subject.configured(dataclasses.replace(subject.config, num_iterations=count))


def loop(subject: Subject) -> str | None:
    """Scanned iterations with checkpoints against unrolled ones without, or the other way round."""
    if not hasattr(subject.config, "loop"):
        return "it has no loop to choose"
    if _ends_by_tolerance(subject.config):
        return "a tolerance decides how many iterations there are"
    plain = _at_least(subject, 3)
    count, ours = plain.config.num_iterations, plain.config.loop
    unroll = 0 if ours.unroll >= count else count
    theirs = dataclasses.replace(ours, unroll=unroll, checkpoint=not ours.checkpoint)
    other = subject.configured(dataclasses.replace(plain.config, loop=theirs))
    inputs = subject.inputs(draw_votes("clustered", 0), draw_children(0), jnp.float64)
    found, expected = (jax.tree.leaves(each.differentiated(*inputs)) for each in (other, plain))
    for one, another in zip(found, expected, strict=True):
        same(one, another, "values and gradients scanned with checkpoints, and unrolled")
    return None
