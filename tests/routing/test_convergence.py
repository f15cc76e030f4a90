"""Running a routing: fixed counts, tolerances, gradients by name, extrapolation, convergence."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import Capsules, routing, testing
from capsjax.routing import (
    convergence,
    dynamic,
    em,
    inverted_attention,
    measures,
    self_attention,
    variational_bayes,
)
from capsjax.routing.convergence import Loop
from tests.conftest import bare, bare_config
from tests.routing.quick import jit

PARENTS, DIM, CHILDREN, CHILD_DIM = 3, 4, 8, 5
ITERATIVE = {
    "dynamic": dynamic.Config(),
    "em": em.Config(),
    "variational_bayes": variational_bayes.Config(),
    "full covariance": variational_bayes.Config(covariance="full"),
    "inverted_attention": inverted_attention.Config(),
}
# With a fixed point: the most iterations to a change below 1e-3 and 1e-6 over 300 draws of each
# kind, doubled. See test_it_converges.
CONVERGENT = {name: config for name, config in ITERATIVE.items() if name != "dynamic"}
# For each kind: most iterations to a change below 1e-3, and below 1e-6.
BOUNDS = {
    "em": {"clustered": (108, 190), "uniform": (112, 328), "duplicated": (4, 4), "zeros": (4, 4)},
    "variational_bayes": {
        "clustered": (98, 192),
        "uniform": (198, 566),
        "duplicated": (26, 30),
        "zeros": (4, 4),
    },
    "full covariance": {
        "clustered": (234, 594),
        "uniform": (274, 408),
        "duplicated": (24, 36),
        "zeros": (4, 4),
    },
    "inverted_attention": {
        "clustered": (58, 178),
        "uniform": (132, 782),
        "duplicated": (6, 8),
        "zeros": (4, 4),
    },
}


def inputs(kind="clustered", seed=0):
    """Votes, children and parameters in float64, all of ordinary size."""
    random = np.random.default_rng(seed)
    votes = testing.draw_votes(kind, seed, parents=PARENTS, dim=DIM, children=CHILDREN)
    children = testing.draw_children(seed, children=CHILDREN, child_dim=CHILD_DIM)
    return jax.tree.map(jnp.asarray, (votes, Capsules(*children))), random


def params_of(config, dtype=jnp.float64):
    sizes = {"parents": PARENTS, "dim": DIM, "children": CHILDREN, "child_dim": CHILD_DIM}
    params = routing.algorithm_of(config).init(config, jax.random.key(0), **sizes)
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), params)


def route(config, votes, children, params, **options):
    return routing.algorithm_of(config).route(votes, children, params, config, **options)


def with_loop(config, *, num_iterations=None, **loop):
    config = dataclasses.replace(config, loop=Loop(**loop))
    return config if num_iterations is None else convergence.extrapolate(config, num_iterations)


def loss(config, votes, children, params):
    routed = route(config, votes, children, params)
    total = jnp.sum(jnp.sin(routed.poses))
    return total if routed.activations is None else total + jnp.sum(routed.activations**2)


# What is refused


@pytest.mark.core
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gradient": "magic"}, "gradient is 'magic', expected 'unrolled'"),
        ({"tolerance": 0.0, "gradient": "implicit"}, "tolerance is 0"),
        ({"tolerance": float("nan"), "gradient": "implicit"}, "tolerance is nan"),
        ({"max_iterations": 1}, "max_iterations is 1, expected at least 2"),
        ({"unroll": -1}, "unroll is -1"),
        ({"tolerance": 1e-3}, "no reverse mode runs through a while loop"),
        ({"gradient": "implicit"}, "holds at a fixed point only; set a tolerance"),
    ],
)
def test_loops_that_cannot_be_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        bare_config(Loop, **options)


@pytest.mark.core
def test_dynamic_refuses_the_implicit_gradient_with_its_reason():
    loop = Loop("implicit", tolerance=1e-5)
    with pytest.raises(ValueError, match="none short of one-hot coefficients: use 'unrolled' or"):
        bare_config(dynamic.Config, loop=loop)


def test_extrapolating_a_routing_without_iterations_is_refused():
    with pytest.raises(ValueError, match="self_attention is not iterative"):
        bare(convergence.extrapolate)(self_attention.Config(), 5)


# Counts and tolerances


@pytest.mark.core
@pytest.mark.parametrize("name", ITERATIVE)
def test_scanned_iterations_equal_unrolled_ones(name, x64):
    (votes, children), _ = inputs()
    params = params_of(ITERATIVE[name])
    results = [
        jit(partial(route, with_loop(ITERATIVE[name], num_iterations=4, unroll=unroll)))(
            votes, children, params
        )
        for unroll in (0, 100)
    ]
    chex.assert_trees_all_close(*results, rtol=1e-10)
    assert int(results[0].iterations) == 4
    assert results[0].converged is None


@pytest.mark.parametrize("name", ITERATIVE)
def test_every_entry_of_one_long_trace_is_a_run_of_that_length(name, x64):
    (votes, children), _ = inputs()
    config, params = ITERATIVE[name], params_of(ITERATIVE[name])
    long = convergence.extrapolate(config, 50)
    trace = jit(partial(route, long, trace=True))(votes, children, params).trace
    for count in (1, 3, 10):
        short = convergence.extrapolate(config, count)
        alone = jit(partial(route, short))(votes, children, params)
        for name_ in ("coefficients", "poses", "activations"):
            entry = jax.tree.map(lambda x, k=count: x[k - 1], getattr(trace, name_))
            chex.assert_trees_all_close(entry, getattr(alone, name_), rtol=1e-9, atol=1e-12)


@pytest.mark.core
@pytest.mark.parametrize("name", CONVERGENT)
def test_a_tolerance_ends_the_iteration_and_says_so(name, x64):
    (votes, children), _ = inputs()
    params = params_of(CONVERGENT[name])
    loop = {"gradient": "last_iteration", "tolerance": 1e-6, "max_iterations": 60}
    config = with_loop(CONVERGENT[name], **loop)
    routed = jit(partial(route, config, trace=True))(votes, children, params)
    count = int(routed.iterations)
    assert bool(routed.converged)
    assert 2 < count < 60
    coefficients = np.asarray(routed.trace.coefficients)
    assert len(coefficients) == 60
    changes = np.asarray(measures.change(routed.trace.coefficients))
    assert changes[count - 2] < 1e-6 <= changes[: count - 2].min()
    assert np.all(coefficients[count:] == coefficients[count - 1])
    np.testing.assert_allclose(coefficients[count - 1], routed.coefficients, rtol=1e-12)


def test_a_tolerance_that_is_not_reached_is_said_too(x64):
    (votes, children), _ = inputs("uniform")
    loop = {"gradient": "last_iteration", "tolerance": 1e-12, "max_iterations": 4}
    config = with_loop(dynamic.Config(), **loop)
    routed = jit(partial(route, config))(votes, children, {})
    assert not bool(routed.converged)
    assert int(routed.iterations) == 4
    plain = jit(partial(route, dynamic.Config(num_iterations=4)))(votes, children, {})
    np.testing.assert_allclose(routed.poses, plain.poses, rtol=1e-10)


def test_each_example_of_a_batch_ends_by_itself(x64):
    config = with_loop(em.Config(), gradient="last_iteration", tolerance=1e-6)
    params = params_of(config)
    batch = [inputs(kind, seed)[0] for seed, kind in enumerate(("clustered", "uniform"))]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batch)
    run = partial(route, config, params=params)
    together = jit(jax.vmap(run))(*stacked)
    counts = [int(jit(run)(*one).iterations) for one in batch]
    assert together.iterations.tolist() == counts
    assert len(set(counts)) == 2


def test_a_run_that_goes_on_counts_on(x64):
    (votes, children), _ = inputs()
    params, once = params_of(em.Config()), em.Config(num_iterations=1)
    routed = None
    for count in (1, 2, 3):
        routed = jit(partial(route, once))(votes, children, params, initial=routed)
        assert int(routed.iterations) == count
    expected = jit(partial(route, em.Config()))(votes, children, params)
    # The temperature is a function of the count.
    np.testing.assert_allclose(routed.activations, expected.activations, rtol=1e-12)


def test_a_result_that_has_converged_is_continued_at_the_same_temperature(x64):
    (votes, children), _ = inputs("uniform")
    loop = {"gradient": "last_iteration", "tolerance": 1e-8}
    # At a final temperature of 1 the activations show which iteration's temperature they have.
    config = with_loop(em.Config(final_inverse_temperature=1.0), **loop)
    run = jit(partial(route, config, params=params_of(config)))
    first = run(votes, children)
    second = run(votes, children, initial=first)
    assert int(second.iterations) == int(first.iterations) + 2
    np.testing.assert_allclose(second.activations, first.activations, atol=1e-7)
    np.testing.assert_allclose(second.poses, first.poses, atol=1e-7)
    # Broken off after three iterations and continued, it takes the same steps.
    brief = with_loop(config, **loop, max_iterations=3)
    broken_off = jit(partial(route, brief, params=params_of(config)))(votes, children)
    assert not bool(broken_off.converged)
    third = run(votes, children, initial=broken_off)
    assert int(third.iterations) == int(first.iterations) > 6
    np.testing.assert_allclose(third.poses, first.poses, rtol=1e-12)
    np.testing.assert_allclose(third.activations, first.activations, rtol=1e-12)


def test_a_result_of_another_routing_or_of_other_votes_is_no_start(x64):
    (votes, children), _ = inputs()
    ours, theirs = em.Config(), dynamic.Config()
    first = route(theirs, votes, children, params_of(theirs))
    said = r"state of capsjax\.routing\.dynamic, expected .* one of capsjax\.routing\.em"
    with pytest.raises(ValueError, match=said):
        route(ours, votes, children, params_of(ours), initial=first)
    said = r"initial has poses of shape \(3, 4\), expected \(2, 4\)"
    with pytest.raises(ValueError, match=said):
        route(theirs, votes[:2], children, params_of(theirs), initial=first)


@pytest.mark.parametrize("count", [1, 3])
def test_the_last_iteration_s_gradient_has_the_same_trace(count, x64):
    (votes, children), _ = inputs()
    plain = em.Config(num_iterations=count)
    config = with_loop(plain, gradient="last_iteration")
    found, expected = (
        jit(partial(route, each, params=params_of(each), trace=True))(votes, children)
        for each in (config, plain)
    )
    assert len(found.trace.poses) == count
    chex.assert_trees_all_close(found.trace, expected.trace, rtol=1e-12)
    assert int(found.iterations) == count
    assert found.converged is None


# Gradients


@pytest.mark.parametrize(
    "name", [*ITERATIVE, "self_attention", "self_routing", "uniform", "random_coupling"]
)
def test_gradients_equal_finite_differences(name, x64):
    config = ITERATIVE.get(name) or routing.find(name).Config()
    (votes, children), random = inputs("uniform")

    def direction(tree):
        return jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape)), tree)

    def moved(tree, by, length):
        return jax.tree.map(lambda x, d: x + length * d, tree, by)

    params = params_of(config)
    point = (votes, children, moved(params, direction(params), 0.1))
    run = jit(jax.value_and_grad(partial(loss, config), argnums=(0, 1, 2)))
    gradient = run(*point)[1]
    for _ in range(3):
        along = direction(point)
        ahead, behind = (run(*moved(point, along, step))[0] for step in (1e-5, -1e-5))
        products = jax.tree.map(jnp.vdot, gradient, along)
        slope = float(jax.tree.reduce(jnp.add, products))
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-8)


@pytest.mark.core
@pytest.mark.parametrize("name", ["dynamic", "em", "variational_bayes", "inverted_attention"])
def test_the_last_iteration_s_gradient_takes_the_state_before_it_as_constant(name, x64):
    (votes, children), _ = inputs()
    config, params = ITERATIVE[name], params_of(ITERATIVE[name])
    three = convergence.extrapolate(config, 3)
    module = routing.algorithm_of(config)

    def by_hand(votes, children, params):
        two = convergence.extrapolate(config, 2)
        state = jax.lax.stop_gradient(route(two, votes, children, params).state)
        state = module.step(state, votes, children, params, three, 2, None)
        routed = module.finish(state, votes, children, params, three)
        total = jnp.sum(jnp.sin(routed.poses))
        return total if routed.activations is None else total + jnp.sum(routed.activations**2)

    own = with_loop(three, gradient="last_iteration")
    found, expected, unrolled = (
        jit(jax.value_and_grad(function, argnums=(0, 1, 2)))(votes, children, params)
        for function in (partial(loss, own), by_hand, partial(loss, three))
    )
    chex.assert_trees_all_close(found, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[0], unrolled[0], rtol=1e-12)
    assert np.abs(np.asarray(found[1][0] - unrolled[1][0])).max() > 1e-6


@pytest.mark.core
@pytest.mark.parametrize("name", CONVERGENT)
def test_the_implicit_gradient_is_that_of_a_long_run(name, x64):
    (votes, children), _ = inputs("uniform", 1)
    config, params = CONVERGENT[name], params_of(CONVERGENT[name])
    module, last = routing.algorithm_of(config), config.num_iterations - 1

    def long(votes, children, params):
        """200 iterations, from the last of the default ones on at the same temperature."""
        state = route(config, votes, children, params).state

        def body(state, _):
            return module.step(state, votes, children, params, config, last, None), None

        state, _ = jax.lax.scan(body, state, length=200)
        routed = module.finish(state, votes, children, params, config)
        total = jnp.sum(jnp.sin(routed.poses))
        return total if routed.activations is None else total + jnp.sum(routed.activations**2)

    own = with_loop(config, gradient="implicit", tolerance=1e-13)
    found, expected = (
        jit(jax.value_and_grad(function, argnums=(0, 1, 2)))(votes, children, params)
        for function in (partial(loss, own), long)
    )
    chex.assert_trees_all_close(found, expected, rtol=1e-6, atol=1e-8)

    batch = jax.tree.map(lambda x: jnp.stack([x, x]), (votes, children))
    mapped = jit(jax.vmap(jax.grad(partial(loss, own)), in_axes=(0, 0, None)))(*batch, params)
    np.testing.assert_allclose(mapped[1], found[1][0], rtol=1e-9, atol=1e-12)


def test_the_implicit_gradient_reaches_what_compete_closes_over(x64):
    (votes, children), _ = inputs("uniform", 1)
    plain = variational_bayes.Config()
    config = with_loop(plain, gradient="implicit", tolerance=1e-13)
    params = params_of(config)

    def total(config, sharpness, keep):
        def compete(logits):
            return jax.nn.softmax(jnp.where(keep, sharpness * logits, 0.0), axis=-2)

        return jnp.sum(jnp.sin(route(config, votes, children, params, compete=compete).poses))

    keep, step = jnp.arange(CHILDREN) > 0, 1e-6
    found = jit(jax.grad(partial(total, config)))(0.9, keep)
    long = jit(partial(total, dataclasses.replace(plain, num_iterations=300)))
    expected = (long(0.9 + step, keep) - long(0.9 - step, keep)) / (2 * step)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    both = jit(jax.vmap(jax.grad(partial(total, config)), in_axes=(0, None)))
    np.testing.assert_allclose(both(jnp.array([0.9, 0.9]), keep), [found, found], rtol=1e-9)
    masked = jit(jax.vmap(jax.grad(partial(total, config)), in_axes=(None, 0)))
    np.testing.assert_allclose(masked(0.9, jnp.stack([keep, keep])), [found, found], rtol=1e-9)


# What comes to rest, and what polarises


def drawn(kind, count):
    """A batch of votes of one kind, and children."""
    sizes = {"parents": PARENTS, "dim": DIM, "children": CHILDREN}
    votes = np.stack([testing.draw_votes(kind, seed, **sizes) for seed in range(count)])
    children = [testing.draw_children(seed, children=CHILDREN) for seed in range(count)]
    poses, activations = map(np.stack, zip(*children, strict=True))
    return votes, Capsules(poses, activations)


@pytest.mark.parametrize("name", CONVERGENT)
def test_it_converges(name, x64):
    params = params_of(CONVERGENT[name])
    for place, tolerance in enumerate((1e-3, 1e-6)):
        config = with_loop(CONVERGENT[name], gradient="last_iteration", tolerance=tolerance)
        run = jit(jax.vmap(partial(route, config), in_axes=(0, 0, None)))
        for kind, bounds in BOUNDS[name].items():
            routed = run(*drawn(kind, 40), params)
            assert np.all(routed.converged), kind
            assert int(routed.iterations.max()) <= bounds[place], kind


@pytest.mark.core
@pytest.mark.parametrize("kind", ["clustered", "uniform"])
def test_dynamic_polarises_instead(kind, x64):
    config = dynamic.Config(num_iterations=30)
    votes, children = drawn(kind, 40)
    run = jax.vmap(lambda v, c: route(config, v, c, {}, trace=True).trace.coefficients)
    coefficients = jit(run)(votes, children)
    entropy, polarisation = measures.entropy(coefficients), measures.polarisation(coefficients)
    assert np.all(entropy[:, -1] < 0.5 * entropy[:, 0])
    assert np.all(polarisation[:, -1] > polarisation[:, 0])
    # On the way a child may waver: over 300 draws entropy fell in every iteration for 96 % of them.
    falls = np.mean(np.all(np.diff(entropy, axis=1) <= 1e-12, axis=1))
    assert falls > 0.85
