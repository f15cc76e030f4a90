"""Bugs of functions: squashing, votes, routing, losses."""

from tests.seeded.bug import Bug

_TERMS = "terms = targets * present + config.absent_weight * (1 - targets) * absent"

BUGS = (
    Bug(
        "softmax over children",
        "A child's logits are normalised over the children in place of the parents; the most "
        "frequent bug of ports, which still learn digits with it.",
        "routing/competition.py",
        "return jax.nn.softmax(logits, axis=-2)",
        "return jax.nn.softmax(logits, axis=-1)",
        ("routing/test_dynamic.py::test_every_iteration_equals_procedure_1",),
    ),
    Bug(
        "root of nothing",
        "The length is a bare square root, whose gradient at a vector of zeros is NaN; many met it "
        "with data of their own, where the tutorial's digits had gone well.",
        "ops/squash.py",
        "root = jnp.where(some, jnp.sqrt(jnp.where(some, total, 1)), 0)",
        "root = jnp.sqrt(total)",
        ("ops/test_squash.py::test_zero_has_zero_gradient",),
    ),
    Bug(
        "epsilon under the root",
        "A small number is added to the sum of squares, so that nothing has a length of its own: "
        "the usual remedy for the bug above, and a little wrong everywhere.",
        "ops/squash.py",
        "total = jnp.sum(jnp.square(scaled), axis=axis, keepdims=True)",
        "total = jnp.sum(jnp.square(scaled), axis=axis, keepdims=True) + 1e-7",
        ("ops/test_squash.py::test_squash_equals_equation_1",),
    ),
    Bug(
        "sums in two bytes",
        "Sums over a child's numbers, and over a batch, run in bfloat16: seen by whoever turns on "
        "mixed precision for the whole network.",
        "ops/votes.py",
        "return jnp.promote_types(x.dtype, jnp.float32)",
        "return x.dtype",
        ("ops/test_votes.py::test_bfloat16_sums_are_rounded_once",),
    ),
    Bug(
        "coordinates in the first row",
        "A child's place is added to the first two entries of a matrix pose, as of a vector's, "
        "and not to its right-hand column.",
        "ops/votes.py",
        "(columns - 1, 2 * columns - 1) if rows > 1 else (0, 1)",
        "(0, 1)",
        (
            "ops/test_votes.py::test_coordinates_enter_the_right_hand_column_of_a_matrix_and_the"
            "_start_of_a_vector",
        ),
    ),
    Bug(
        "an iteration too many",
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
        "The parents' poses are taken as constants when they are compared with the votes, as in "
        "several ports, whose users ask whether the paper means it; it does not.",
        "routing/dynamic.py",
        '"...jd,...jdi->...ji", poses.astype(votes.dtype), votes,',
        '"...jd,...jdi->...ji", jax.lax.stop_gradient(poses).astype(votes.dtype), votes,',
        ("routing/test_dynamic.py::test_gradients_flow_through_all_iterations",),
    ),
    Bug(
        "a cost that rewards",
        "A parent becomes the more active, the worse it describes its votes: EM's cost has the "
        "other sign, which the paper's own formulas make easy to get wrong.",
        "routing/em.py",
        'return param("beta_a") - mass * (',
        'return param("beta_a") + mass * (',
        ("routing/test_em.py::test_every_iteration_equals_the_equations",),
    ),
    Bug(
        "a temperature one step behind",
        "EM's inverse temperature starts at 0, where every parent is half active whatever the "
        "votes are; the schedule is in no paper, so that each port has one of its own.",
        "routing/em.py",
        "(1 - _DECAY ** (iteration + 1))",
        "(1 - _DECAY**iteration)",
        ("routing/test_em.py::test_every_iteration_equals_the_equations",),
    ),
    Bug(
        "one beta for all",
        "All types of parents share one learned cost, where the paper has one for each type.",
        "routing/em.py",
        "params[name].astype(mass.dtype)",
        "params[name].mean().astype(mass.dtype)",
        ("routing/test_em.py::test_every_iteration_equals_the_equations",),
    ),
    Bug(
        "children that are off vote",
        "EM's M step weighs votes by the coefficients alone and forgets the children's "
        "activations, so that an empty background decides.",
        "routing/em.py",
        "weights = coefficients * children.activations.astype(working)[..., None, :]",
        "weights = coefficients",
        ("routing/test_em.py::test_every_iteration_equals_the_equations",),
    ),
    Bug(
        "margins swapped",
        "Present classes are asked for a length of 0.1 and absent ones for one below 0.9; both "
        "terms then are 0 from the start.",
        "training/losses.py",
        "config.positive_margin - lengths))\n"
        "    absent = jnp.square(jnp.maximum(0, lengths - config.negative_margin))",
        "config.negative_margin - lengths))\n"
        "    absent = jnp.square(jnp.maximum(0, lengths - config.positive_margin))",
        ("training/test_losses.py::test_margin_loss_by_hand",),
    ),
    Bug(
        "lambda on the present class",
        "The weight of 0.5 is on the class that is there in place of those that are not.",
        "training/losses.py",
        _TERMS,
        "terms = config.absent_weight * targets * present + (1 - targets) * absent",
        ("training/test_losses.py::test_margin_loss_by_hand",),
    ),
    Bug(
        "absent classes left out",
        "Only the class that is there counts, so that all capsules grow long together.",
        "training/losses.py",
        _TERMS,
        "terms = targets * present",
        ("training/test_losses.py::test_margin_loss_by_hand",),
    ),
    Bug(
        "a mean of pixels",
        "The reconstruction's error is a mean where the paper's weight of 0.0005 is for a sum: "
        "784 times too little, and nothing that one would see in the accuracy.",
        "training/losses.py",
        "jnp.sum(jnp.square(reconstruction - image))",
        "jnp.mean(jnp.square(reconstruction - image))",
        ("training/test_losses.py::test_reconstruction_loss_is_the_weighted_sum_of_squares",),
    ),
)
