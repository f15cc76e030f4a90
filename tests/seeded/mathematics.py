"""Bugs of functions: squashing, votes, routing."""

from tests.seeded.bug import Bug

BUGS = (
    Bug(
        "root of nothing",
        "squashing has no gradient at a vector of zeros",
        "The length is a bare square root, whose gradient at a vector of zeros is NaN; many met it "
        "with data of their own, where the tutorial's digits had gone well.",
        "ops/squash.py",
        "root = jnp.where(some, jnp.sqrt(jnp.where(some, total, 1)), 0)",
        "root = jnp.sqrt(total)",
        ("ops/test_squash.py::test_zero_has_zero_gradient",),
    ),
    Bug(
        "epsilon under the root",
        "what is done about squashing's gradient at zero bends its values",
        "A small number is added to the sum of squares, so that nothing has a length of its own: "
        "the usual remedy for the bug above, and a little wrong everywhere.",
        "ops/squash.py",
        "total = jnp.sum(jnp.square(scaled), axis=axis, keepdims=True)",
        "total = jnp.sum(jnp.square(scaled), axis=axis, keepdims=True) + 1e-7",
        ("ops/test_squash.py::test_squash_equals_equation_1",),
    ),
    Bug(
        "sums in two bytes",
        "votes in bfloat16 lose more than their own rounding",
        "Sums over a child's numbers, and over a batch, run in bfloat16: seen by whoever turns on "
        "mixed precision for the whole network.",
        "ops/votes.py",
        "return working_dtype(x.dtype)",
        "return x.dtype",
        ("ops/test_votes.py::test_bfloat16_sums_are_rounded_once",),
    ),
    Bug(
        "tiled votes",
        "votes by tiling and multiplying take many times their own memory",
        "Poses are laid out once for each parent and number of its pose, multiplied and summed, "
        "where a product of matrices makes nothing but the votes.",
        "ops/votes.py",
        'default=partial(_einsum, "brai,ajci->bjrci")',
        "default=lambda poses, weights: jnp.sum(\n"
        "            poses[:, None, :, :, None] * jnp.moveaxis(weights, 0, 1)[None, :, None], 3\n"
        "        )",
        ("ops/test_votes.py::test_other_platforms_get_matrix_products_without_a_loop",),
    ),
    Bug(
        "softmax over children",
        "couplings are normalised along the wrong axis",
        "A child's logits are normalised over the children in place of the parents; the most "
        "frequent bug of ports, which still learn digits with it.",
        "routing/competition.py",
        "return jax.nn.softmax(logits, axis=-2)",
        "return jax.nn.softmax(logits, axis=-1)",
        ("routing/test_dynamic.py::test_every_iteration_equals_procedure_1",),
    ),
    Bug(
        "an iteration too many",
        "one iteration is not the same as uniform coupling",
        "The loop runs once more than it was asked for, because the first pass is done before it.",
        "routing/convergence.py",
        "for iteration in range(1, count):",
        "for iteration in range(count):",
        (
            "routing/test_dynamic.py::test_one_iteration_is_the_squashed_sum_over_the_number_of"
            "_parents",
        ),
    ),
    Bug(
        "agreement without a gradient",
        "whether gradients flow through dynamic routing's iterations",
        "The parents' poses are taken as constants when they are compared with the votes, as in "
        "several ports, whose users ask whether the paper means it; it does not.",
        "routing/dynamic.py",
        '"...jd,...jdi->...ji", poses.astype(votes.dtype), votes,',
        '"...jd,...jdi->...ji", jax.lax.stop_gradient(poses).astype(votes.dtype), votes,',
        ("routing/test_dynamic.py::test_gradients_flow_through_all_iterations",),
    ),
    Bug(
        "a leak that holds tight",
        "with a leak a child's couplings sum to less than 1",
        "The category of none of the parents is forgotten as soon as there are logits, and "
        "background has to go to some class again.",
        "routing/dynamic.py",
        "jax.nn.softmax(jnp.concatenate([leak, logits], axis=-2), axis=-2)[..., 1:, :]",
        "jax.nn.softmax(logits + 0 * leak, axis=-2)",
        ("routing/test_dynamic.py::test_leaky_coefficients_sum_to_less_than_one_over_parents",),
    ),
    Bug(
        "a bias for show",
        "without a bias, routing by agreement cannot tell an input from its opposite",
        "The bias is made, saved and counted among the parameters, but takes no part in the sum: "
        "opposite votes still give parents of the same lengths.",
        "routing/dynamic.py",
        'total = total + jnp.broadcast_to(params["bias"].astype(working), total.shape)',
        'total = total + 0 * jnp.broadcast_to(params["bias"].astype(working), total.shape)',
        ("routing/test_pitfalls.py::test_only_a_bias_tells_votes_from_their_opposites",),
    ),
    Bug(
        "attention of sixteen dimensions",
        "self-attention is scaled otherwise in code than in the paper",
        "Agreement is divided by 4, which is right for poses of 16 numbers and for no others.",
        "routing/self_attention.py",
        "total = wide.sum(-1) / votes.shape[-2] ** 0.5",
        "total = wide.sum(-1) / 4.0",
        ("routing/test_self_attention.py::test_the_result_equals_the_equations",),
    ),
    Bug(
        "children that are off vote",
        "a child of activation 0 has an effect",
        "EM's M step weighs votes by the coefficients alone and forgets the children's "
        "activations, so that an empty background decides.",
        "routing/em.py",
        "weights = coefficients * children.activations.astype(working)[..., None, :]",
        "weights = coefficients",
        ("routing/test_em.py::test_every_iteration_equals_the_equations",),
    ),
    Bug(
        "assignments without a gradient",
        "EM trains worse where its assignments are constants",
        "The E step's coefficients carry no gradient: twice as fast, and the votes learn nothing "
        "from where they were assigned.",
        "routing/em.py",
        "coefficients = expectation(state, votes, compete, working)",
        "coefficients = jax.lax.stop_gradient(expectation(state, votes, compete, working))",
        ("routing/test_convergence.py::test_gradients_equal_finite_differences[em]",),
    ),
    Bug(
        "the variance about another mean",
        "EM's means and variances belong together",
        "Deviations are taken from the plain mean of all votes, not from the parent's own.",
        "routing/em.py",
        "deviations = jnp.square(wide - means[..., None])",
        "deviations = jnp.square(wide - wide.mean(-1, keepdims=True))",
        ("routing/test_em.py::test_every_iteration_equals_the_equations",),
    ),
    Bug(
        "the logarithm of an activation that is off",
        "EM gives NaN as soon as it has a second iteration",
        "The E step takes the logarithm of activations: where rounding has made all of them 0, a "
        "child's shares are quotients of nothing.",
        "routing/em.py",
        "activations = jax.nn.log_sigmoid(state.logits)[..., None]",
        "activations = jnp.log(jax.nn.sigmoid(state.logits))[..., None]",
        ("routing/test_pitfalls.py::test_em_goes_on_where_all_parents_are_off",),
    ),
    Bug(
        "an only child",
        "EM is unstable where a parent has one child",
        "No least variance: a Gaussian around one vote is infinitely narrow.",
        "routing/em.py",
        "return means, jnp.maximum(variances, config.minimum_variance), mass",
        "return means, variances, mass",
        ("numerics/test_edges.py::test_one_child_is_routed_as_by_the_reference[em]",),
    ),
)
