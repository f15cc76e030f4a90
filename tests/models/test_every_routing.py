"""CapsNet with every routing: how many parameters, what comes out, and that it learns."""

import copy
import dataclasses
import importlib
import sys
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from capsjax import models, routing
from capsjax.models import capsnet
from capsjax.routing import dynamic, em, self_routing, uniform
from capsjax.training import losses
from tests.conftest import bare
from tests.training.small import digits

CLASSES, STEPS = 10, 20
NARROW = capsnet.Config(features=8, kernel_size=3, primary_types=2, decoder=False)
# Of 20x20 images: convolutions leave 18x18, then 8x8 for each of 2 types.
IMAGE, PRIMARY = (20, 20, 1), 128

# With the paper's 1,152 capsules of 8 dimensions below 10 of 16.
PARAMETERS = {
    "dynamic": 8_215_568,
    "em": 8_215_568 + 2 * 10,
    "variational_bayes": 8_215_568 + 2 * 10,
    "self_attention": 8_215_568 + 10 * 1152,
    "self_routing": 8_215_568 + 8 * 10 * 1152 + 10 * 1152,
    # The normalisation's scale and offset, and the readout of 16 weights and a bias.
    "inverted_attention": 8_215_568 + 2 * 16 + 17,
    "uniform": 8_215_568,
    "random_coupling": 8_215_568,
}
# Self-routing's activations are its children's shares: no vote has a part in them, so without a
# decoder nothing tells the weights that make the votes what to be.
IDLE = {"self_routing": ["['classes']['votes']['weights'].value"]}


@pytest.fixture(params=routing.ALGORITHMS)
def name(request):
    return request.param


def create(**options):
    return models.create("capsnet", config=NARROW, image_shape=IMAGE, **options)


def leaves(network):
    return jax.tree.leaves(nnx.state(network, nnx.Param))


@pytest.mark.core
def test_the_published_network_has_this_many_parameters(name):
    network = nnx.eval_shape(lambda: models.create("capsnet", routing=name))
    assert models.count_parameters(network) == PARAMETERS[name]


def test_no_routing_is_without_a_pinned_count():
    assert set(PARAMETERS) == set(routing.ALGORITHMS)


@pytest.fixture(scope="module")
def batch():
    """32 real digits, cropped to where MNIST has its strokes, and their targets."""
    arrays = digits(32)
    images = jnp.asarray(arrays["image"][:, 4:24, 4:24], jnp.float32) / 255
    return images, jax.nn.one_hot(arrays["label"], CLASSES)


def test_it_gives_the_right_shapes_finite_gradients_and_learns(name, batch):
    images, targets = batch
    graph, params, rest = nnx.split(create(routing=name), nnx.Param, ...)
    optimizer = optax.adam(0.01)

    def compute(params):
        output = nnx.merge(graph, params, rest, copy=True)(images)
        loss = jax.vmap(losses.margin_loss)(output.activations, targets)
        return jnp.mean(loss), output

    @jax.jit
    def step(params, state):
        (loss, output), gradients = jax.value_and_grad(compute, has_aux=True)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss, output, gradients

    state, history = optimizer.init(params), []
    for count in range(STEPS):
        params, state, loss, output, gradients = step(params, state)
        history.append(float(loss))
        if count in (0, STEPS - 1):
            (routed,) = output.routed
            chex.assert_shape(output.poses, (32, CLASSES, 16))
            chex.assert_shape(output.activations, (32, CLASSES))
            chex.assert_shape(routed.coefficients, (32, CLASSES, PRIMARY))
            assert output.reconstruction is None
            chex.assert_tree_all_finite((loss, output, gradients))
            assert np.min(output.activations) >= 0
            assert np.max(output.activations) <= 1 + 1e-6
            idle = [
                jax.tree_util.keystr(path)
                for path, gradient in jax.tree_util.tree_leaves_with_path(gradients)
                if not np.any(gradient)
            ]
            assert idle == IDLE.get(name, [])
    assert history[-1] < 0.9 * history[0]


@pytest.mark.parametrize("routing_name", ["dynamic", "em", "variational_bayes"])
def test_a_trace_shows_every_iteration_of_every_example(routing_name, batch):
    config = routing.find(routing_name).Config(num_iterations=4)

    def run(images):
        return create(routing=config)(images, trace=True)

    (routed,) = jax.eval_shape(run, batch[0]).routed
    chex.assert_shape(routed.trace.coefficients, (32, 4, CLASSES, PRIMARY))
    chex.assert_shape(routed.trace.poses, (32, 4, CLASSES, 16))
    chex.assert_shape(routed.trace.activations, (32, 4, CLASSES))


# Naming a routing


def same(first, second):
    assert first.config == second.config
    chex.assert_trees_all_equal(leaves(first), leaves(second))


@pytest.mark.core
def test_a_routing_goes_by_its_name_its_module_and_its_config():
    by_name = create(routing="self_routing")
    assert by_name.config == dataclasses.replace(NARROW, routing=self_routing.Config())
    chex.assert_shape(by_name.classes.routing.params["kernel"], (8, CLASSES, PRIMARY))
    same(create(routing=self_routing), by_name)
    same(create(routing=self_routing.Config()), by_name)
    longer = em.Config(num_iterations=5, minimum_variance=0.01)
    assert create(routing=longer).config.routing == longer
    assert create().config.routing == dynamic.Config()


OWN = """
from dataclasses import dataclass

from capsjax.routing import uniform

SOURCE, READOUT, WEIGHTS_STDDEV = "me", "length", 2.0
init = uniform.init


@dataclass(frozen=True)
class Config:
    divisor: float = 4.0


def route(votes, children=None, params=None, config=Config(), **options):
    return uniform.route(votes / config.divisor, **options)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's own module in a package of theirs."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("theirs.own")
    for name in ("theirs", "theirs.own"):
        del sys.modules[name]


def test_a_user_s_own_module_is_a_routing_by_all_three(own, batch):
    network = create(routing=own)
    same(create(routing="theirs.own"), network)
    same(create(routing=own.Config()), network)
    assert routing.name_of(network.config.routing) == "theirs.own"
    plain = create(routing=uniform)
    weights = [np.asarray(each.classes.votes.weights[...]) for each in (plain, network)]
    np.testing.assert_allclose(weights[1], 2.0 / 0.1 * weights[0], rtol=1e-6)
    images = batch[0][:2]
    (routed,) = jax.jit(plain)(images).routed
    sums = 20 / 4 * np.asarray(routed.votes, np.float64).sum(-1) / CLASSES
    squares = np.sum(sums**2, axis=-1)
    found = jax.jit(network)(images).activations
    np.testing.assert_allclose(found, squares / (1 + squares), rtol=1e-4)
    narrower = jax.jit(create(routing=own.Config(divisor=2.0)))(images).activations
    np.testing.assert_allclose(narrower, 4 * squares / (1 + 4 * squares), rtol=1e-4)


REFUSED = {
    "an unknown name": ("dynamics", r"unknown routing 'dynamics' .*expected one of: dynamic, em, "),
    "nothing": ("", "unknown routing ''"),
    "a relative name": (".em", r"unknown routing '\.em'"),
    "the name of another module": ("json", "json is no routing: it has no Config, init, route"),
    "another module": (chex, "chex is no routing: it has no Config, init, route"),
    "a config's class": (dynamic.Config, "routing is <class .*expected an instance of"),
    "another config": (losses.Config(), r"capsjax\.training\.losses is no routing: it has no init"),
    "a number": (3, "routing is 3, expected an instance of"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_routing_is_refused(what):
    given, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        bare(models.create)("capsnet", routing=given)


def test_a_routing_of_other_semantics_than_the_network_is_refused():
    official = capsnet.Config(semantics="official", routing=dynamic.Config(semantics="official"))
    with pytest.raises(ValueError, match=r"'official' and routing.semantics is 'paper'"):
        models.create("capsnet", config=official, routing=dynamic.Config())
    with pytest.raises(ValueError, match=r"'paper' and routing.semantics is 'official'"):
        models.create("capsnet", routing=dynamic.Config(semantics="official"))


def test_a_network_s_own_algorithm_keeps_its_choices_where_it_is_named():
    own = models.find("variational_capsnet").config.routing
    assert own.activation == "identity"
    for name in ("variational_bayes", routing.find("variational_bayes")):
        network = nnx.eval_shape(partial(models.create, "variational_capsnet", routing=name))
        assert network.config.routing == own
    other = nnx.eval_shape(partial(models.create, "variational_capsnet", routing="em"))
    assert other.config.routing == em.Config()


# Copies


def test_a_deep_copy_is_the_same_network_and_leads_a_life_of_its_own(batch):
    network = create(routing="inverted_attention")  # it has parameters in every place
    twin = copy.deepcopy(network)
    assert type(twin) is type(network)
    same(twin, network)
    run = nnx.jit(lambda network, images: network(images).activations)
    before = run(network, batch[0])
    np.testing.assert_array_equal(run(twin, batch[0]), before)
    for path in ("convolution", "primary"):
        getattr(twin, path).kernel[...] = getattr(twin, path).kernel[...] + 1
    twin.classes.routing.params["offset"][...] = jnp.ones(16)
    assert np.all(run(twin, batch[0]) != before)
    np.testing.assert_array_equal(run(network, batch[0]), before)
