"""The conformance kit: what it says of the library's routings, and which mistakes it finds."""

import functools
from pathlib import Path
from types import ModuleType, SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsjax import routing, testing
from capsjax.routing import dynamic, em, inverted_attention, self_attention, variational_bayes
from capsjax.routing.convergence import Loop
from capsjax.testing.subject import Subject, all_finite
from tests.conftest import bare
from tests.routing import quick
from tests.testing import own_routing

EXAMPLES = 3

LEAKY = {
    **dynamic.NOT_PROMISED,
    "shares": "part of a child goes to none of its parents",
    "compete": "the leak is a competition of its own",
}
BIASED = {
    **dynamic.NOT_PROMISED,
    "rotation": "its bias points somewhere",
    "sign-blind": "its bias has a sign",
}
OFFICIAL = {
    **em.NOT_PROMISED,
    "translation": "it blends in the old mean, which is 0 at first",
}
FULL = {"translation": variational_bayes.NOT_PROMISED["translation"]}
NO_PRIOR = {name: why for name, why in self_attention.NOT_PROMISED.items() if name != "shares"}
TOLERANT = {
    **inverted_attention.NOT_PROMISED,
    "windows alone": "all windows iterate until the last of them has converged",
}
VARIANTS = {
    "dynamic, leaky": (dynamic, dynamic.Config(leaky=True), LEAKY),
    "dynamic, with a bias": (dynamic, dynamic.Config(bias=True), BIASED),
    "em, official": (em, em.Config(semantics="official"), OFFICIAL),
    "variational_bayes, full": (
        variational_bayes,
        variational_bayes.Config(covariance="full"),
        FULL,
    ),
    "self_attention, no prior": (self_attention, self_attention.Config(prior=False), NO_PRIOR),
    "inverted_attention, 3 iterations": (
        inverted_attention,
        inverted_attention.Config(num_iterations=3),
        inverted_attention.NOT_PROMISED,
    ),
    "inverted_attention, to a tolerance": (
        inverted_attention,
        inverted_attention.Config(
            loop=Loop(gradient="implicit", tolerance=1e-6, max_iterations=50)
        ),
        TOLERANT,
    ),
}
BROKEN = [
    (name, promise)
    for name, module in routing.ALGORITHMS.items()
    for promise in module.NOT_PROMISED
]


@functools.cache
def subject(name):
    """One for all that is asked of an algorithm, so that it compiles once."""
    module = routing.ALGORITHMS[name]
    return Subject(module, module.Config(), EXAMPLES, quick.options())


def statuses(report):
    return {name: result.status for name, result in report.results.items()}


# What the library's routings promise


@pytest.mark.parametrize("name", routing.ALGORITHMS)
def test_every_algorithm_keeps_its_promises(name):
    module = routing.ALGORITHMS[name]
    report = testing.check_routing(module, examples=EXAMPLES, compiler_options=quick.options())
    expected = dict.fromkeys(testing.PROPERTIES, "passed")
    expected |= dict.fromkeys(module.NOT_PROMISED, "not promised")
    if not hasattr(module, "State"):
        expected |= {"initial": "left out", "scan and checkpoint": "left out"}
    if module.READOUT != "own" and "activations" not in module.NOT_PROMISED:
        expected |= {"activations": "left out"}
    assert statuses(report) == expected


@pytest.mark.parametrize("name", VARIANTS)
def test_other_configs_keep_theirs(name):
    module, config, not_promised = VARIANTS[name]
    report = testing.check_routing(
        module,
        config,
        not_promised=not_promised,
        examples=EXAMPLES,
        compiler_options=quick.options(),
    )
    assert {n for n, s in statuses(report).items() if s == "not promised"} == set(not_promised)


@pytest.mark.parametrize(("name", "promise"), BROKEN, ids=map(": ".join, BROKEN))
def test_what_is_not_promised_does_not_hold(name, promise):
    with jax.enable_x64(True), pytest.raises(AssertionError):
        testing.PROPERTIES[promise](subject(name))


@pytest.mark.parametrize(
    ("name", "promise"),
    [
        (name, promise)
        for name, (module, _, reasons) in VARIANTS.items()
        for promise in reasons
        if promise not in module.NOT_PROMISED
    ],
)
def test_what_a_variant_alone_does_not_promise_does_not_hold(name, promise):
    module, config, _ = VARIANTS[name]
    kinds = (AssertionError, ValueError)  # a ValueError: leaky refuses ``compete``
    with jax.enable_x64(True), pytest.raises(kinds):
        testing.PROPERTIES[promise](Subject(module, config, EXAMPLES, quick.options()))


@pytest.mark.parametrize("name", ["em", "variational_bayes"])
def test_votes_beyond_a_smaller_huge_than_the_kit_s_are_not_finite(name):
    one = subject(name)
    assert one.huge < testing.HUGE
    inputs = one.inputs(testing.draw_votes("huge", 0), testing.draw_children(0), jnp.float32)
    with pytest.raises(AssertionError, match="a value or gradient is"):
        all_finite(one.differentiated(*inputs), "")


def test_every_property_has_a_meaning():
    assert testing.MEANING.keys() == testing.PROPERTIES.keys()


# A routing of a user's own, and what may be wrong with it


def mutant(old, new):
    """The user's routing with one piece of it replaced."""
    source = Path(own_routing.__file__).read_text()
    assert source.count(old) == 1
    module = ModuleType("mutant")
    exec(compile(source.replace(old, new), "mutant", "exec"), module.__dict__)
    return module


def failures(module, *names):
    """Lines of the report that say "failed", where only these properties are looked at."""
    others = {name: "not asked here" for name in testing.PROPERTIES if name not in names}
    with pytest.raises(AssertionError) as caught:
        testing.check_routing(
            module, not_promised=others, examples=EXAMPLES, compiler_options=quick.options()
        )
    return [line for line in str(caught.value).splitlines() if "  failed: " in line]


def test_a_good_routing_of_one_s_own_passes():
    assert len(Path(own_routing.__file__).read_text().splitlines()) <= 40
    report = testing.check_routing(own_routing, examples=EXAMPLES)
    expected = dict.fromkeys(testing.PROPERTIES, "passed")
    expected |= {"two groups": "not promised"}
    expected |= {"initial": "left out", "scan and checkpoint": "left out"}
    assert statuses(report) == expected


SOFTMAX = "jax.nn.softmax(logits, axis=-2)"
MUTANTS = {
    "softmax over children": ("shares", SOFTMAX, "jax.nn.softmax(logits, axis=-1)"),
    "no softmax": ("shares", SOFTMAX, "jax.nn.sigmoid(logits)"),
    "statistics over windows": (
        "windows alone",
        "scale = (active * distances).mean((-2, -1), keepdims=True)",
        "scale = (active * distances).mean(keepdims=True)",
    ),
    "0 / 0": ("finite", "sums.ratio(distances, scale)", "distances / scale"),
    "infinite gradient at 0": (
        "finite",
        "jnp.square(wide - mean).sum(-2)",
        "jnp.sqrt(jnp.square(wide - mean).sum(-2))",
    ),
    "compete ignored": ("compete", f"compete(logits) if compete else {SOFTMAX}", SOFTMAX),
    "compete called for each window": (
        "compete",
        "compete(logits) if compete",
        "(compete if logits.ndim == 2 else jax.vmap(jax.vmap(compete)))(logits) if compete",
    ),
    "no activations": ("shapes and dtypes", "sums.ratio(mass, total[..., 0])", "None"),
    "activations beyond 1": ("activations", "sums.ratio(mass, total[..., 0])", "2 * mass"),
    "float32 for bfloat16": (
        "shapes and dtypes",
        "coefficients, trace=trace)",
        "coefficients, trace=trace)._replace(poses=poses)",
    ),
    "votes changed": (
        "eager as compiled",
        "coefficients, trace=trace)",
        "coefficients, trace=trace)._replace(votes=votes + 1)",
    ),
    "no trace": ("trace", "trace=trace)", "trace=False)"),
    "a trace always": ("shapes and dtypes", "trace=trace)", "trace=True)"),
    "a branch on values": (
        "shapes and dtypes",
        "    mass = weights.sum(-1)",
        "    mass = weights.sum(-1) if votes.max() > 0 else 0 * weights.sum(-1)",
    ),
    "children told apart": (
        "children permuted",
        "weights = coefficients * active",
        "weights = coefficients * active * jnp.ones_like(active).at[..., 0].set(2)",
    ),
    "parents told apart": (
        "parents permuted",
        "-config.sharpness * ",
        "-jnp.arange(1.0, 1 + votes.shape[-3])[:, None] * ",
    ),
    "activations left out of the mean": (
        "off child",
        "active = children.activations.astype(wide.dtype)[..., None, :]",
        "active = jnp.ones_like(wide[..., :1, 0, :])",
    ),
    "an axis preferred": (
        "rotation",
        "distances = jnp.square(wide - mean).sum(-2)",
        "distances = jnp.square(wide - mean).max(-2)",
    ),
    "a sign preferred": (
        "sign-blind",
        "distances = jnp.square(wide - mean).sum(-2)",
        "distances = jnp.square(jax.nn.relu(wide - mean)).sum(-2)",
    ),
    "an origin preferred": (
        "translation",
        "distances = jnp.square(wide - mean).sum(-2)",
        "distances = jnp.square(wide).sum(-2)",
    ),
    "shares without reason": (
        "uniform if identical",
        "-config.sharpness * ",
        "jax.random.normal(jax.random.key(0), distances.shape) - config.sharpness * ",
    ),
    "no agreement": ("two groups", "-config.sharpness * ", "0 * "),
}


@pytest.mark.parametrize("bug", MUTANTS)
def test_a_bug_fails_the_property_that_it_breaks(bug):
    promise, old, new = MUTANTS[bug]
    [line] = failures(mutant(old, new), promise)
    assert line.split("  failed: ")[0].strip() == promise


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("class Config:", "class Choices:", "it has no Config"),
        ("def init(", "def start_values(", "it has no init"),
        ("def route(", "def forward(", "it has no route"),
        ('SOURCE = "made up for these tests"', 'SOURCE = ""', "SOURCE is empty"),
        ('READOUT = "own"', 'READOUT = "loudness"', "READOUT is 'loudness', expected 'length'"),
        ("@dataclass(frozen=True)", "@dataclass", "Config is not frozen"),
        ("@dataclass(frozen=True)", "", "Config is no dataclass"),
        ("    sharpness: float = 1.0", "    sharpness: float", "missing 1 required"),
        ("HUGE = 1e6", "State = tuple", "it has no start, step, finish"),
        ("HUGE = 1e6", "State = start = step = finish = 0", "is no function"),
    ],
)
def test_a_file_that_is_no_routing_fails_the_contract(old, new, said):
    if new.startswith("class Choices"):
        source = mutant("config, *, compete", "config=None, *, compete")
        del source.Config
        module = source
    else:
        module = mutant(old, new)
    [line] = failures(module)
    assert line.startswith("  contract  failed: ")
    assert said in line


def test_a_report_of_failures_is_the_whole_table():
    bad = mutant(SOFTMAX, "jax.nn.softmax(logits, axis=-1)")
    asked = ("shares", "compete", "compiles once")
    others = {name: "not asked here" for name in testing.PROPERTIES if name not in asked}
    with pytest.raises(AssertionError) as caught:
        testing.check_routing(bad, not_promised=others, examples=EXAMPLES)
    title, *lines = str(caught.value).splitlines()
    assert title == "routing mutant"
    assert [line[2:].split("  ")[0] for line in lines] == list(testing.PROPERTIES)
    found = {line[2:].split("  ")[0]: line.split("  ", 2)[2].strip() for line in lines}
    assert found["shares"].startswith("failed: AssertionError: a child's coefficients sum to ")
    assert found["compete"].startswith("failed: AssertionError: poses with compete=softmax over")
    assert found["compiles once"] == "passed"
    assert found["finite"] == "not promised: not asked here"


# The kit itself


def test_a_report_prints_as_a_table():
    results = {
        "finite": testing.Result("passed", ""),
        "off child": testing.Result("failed", "AssertionError: poses differ by 1"),
    }
    report = testing.Report("mine", results)
    assert str(report) == (
        "routing mine\n  finite     passed\n  off child  failed: AssertionError: poses differ by 1"
    )
    assert not report.passed
    assert testing.Report("mine", {"finite": results["finite"]}).passed


def test_a_promise_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"no such property: magic; expected some of: shapes and"):
        bare(testing.check_routing)(dynamic, not_promised={"magic": "none"})


def test_an_object_with_the_attributes_of_a_module_is_named_by_its_type():
    with pytest.raises(
        AssertionError, match=r"routing SimpleNamespace\n  contract  failed: .*no C"
    ):
        testing.check_routing(SimpleNamespace())


def test_votes_are_drawn_by_their_seed():
    for kind in testing.KINDS:
        votes = testing.draw_votes(kind, 3, parents=2, dim=5, children=7)
        assert votes.shape == (2, 5, 7)
        assert votes.dtype == np.float64
        again = testing.draw_votes(kind, 3, parents=2, dim=5, children=7)
        np.testing.assert_array_equal(votes, again)
        other = testing.draw_votes(kind, 4, parents=2, dim=5, children=7)
        assert np.any(votes != other) == (kind != "zeros")


def test_kinds_of_votes_are_what_they_say():
    draw = functools.partial(testing.draw_votes, seed=0, parents=4, dim=16, children=100)
    for parent in draw("clustered"):
        # Of 100 children, those that have another within a fifth of the scattered ones' distance.
        gaps = np.linalg.norm(parent[:, :, None] - parent[:, None, :], axis=0)
        agreeing = np.sort(gaps, axis=1)[:, 1] < 1
        assert 30 <= agreeing.sum() <= 70
        assert gaps[np.ix_(agreeing, agreeing)].max() < 1
    assert 0.99 < np.abs(draw("uniform")).max() <= 1
    for kind, scale in (("tiny", testing.TINY), ("huge", testing.HUGE)):
        assert 0.9 < draw(kind).std() / scale < 1.1
    assert 90 < draw("huge", huge=100.0).std() < 110
    assert np.ptp(draw("duplicated"), axis=2).max() == 0
    assert np.ptp(draw("duplicated"), axis=0).min() > 0
    assert not draw("zeros").any()
    with pytest.raises(ValueError, match="unknown kind 'odd', expected one of: clustered, uniform"):
        draw("odd")


@given(testing.votes("tiny", "zeros", parents=2, dim=3, children=5))
def test_the_strategy_draws_the_kinds_and_sizes_that_were_asked_for(votes):
    assert votes.shape == (2, 3, 5)
    assert np.abs(votes).max() < 1e-13


@given(testing.votes(), st.integers(0, 2**32 - 1))
def test_the_strategy_draws_votes_and_children_of_one_shape(votes, seed):
    children = testing.draw_children(seed)
    assert votes.shape == (3, 7, 6)
    assert children.poses.shape == (6, 5)
    assert children.activations.shape == (6,)
    assert np.all((children.activations >= 0.05) & (children.activations <= 0.95))
    np.testing.assert_array_equal(testing.draw_children(seed).poses, children.poses)
