"""The properties that the kit checks, each a function of the routing under test.

A check returns None if the property holds, or why it does not apply to this routing; it raises
AssertionError if it does not hold.
"""

from collections.abc import Callable

from capsjax.testing import contract, symmetries
from capsjax.testing.subject import Subject

PROPERTIES: dict[str, Callable[[Subject], str | None]] = {
    "shapes and dtypes": contract.shapes,
    "eager as compiled": contract.eager,
    "finite": contract.finite,
    "shares": contract.shares,
    "activations": contract.activations,
    "children permuted": symmetries.children_permuted,
    "parents permuted": symmetries.parents_permuted,
    "alone as in a batch": contract.alone,
    "windows alone": contract.windows,
    "compiles once": contract.compiles_once,
    "trace": contract.trace,
    "compete": contract.competes,
    "initial": contract.continues,
    "scan and checkpoint": contract.loop,
    "off child": symmetries.off_child,
    "uniform if identical": symmetries.identical,
    "two groups": symmetries.two_groups,
    "sign-blind": symmetries.sign_blind,
    "rotation": symmetries.rotation,
    "translation": symmetries.translation,
}
# What each one says, for the table in CONTRIBUTING.
MEANING = {
    "shapes and dtypes": "poses, activations and coefficients have the contract's shapes and the "
    "votes' dtype: bfloat16, float32, float64",
    "eager as compiled": "`jit` changes nothing; votes come back as they went in",
    "finite": "values, states and gradients are finite for clustered, uniform, tiny, huge, "
    "duplicated and zero votes, one child, one parent, and children that are all off",
    "shares": "coefficients are at least 0 and a child's sum to 1 over its parents",
    "activations": 'with `READOUT` "own", activations lie from 0 to 1',
    "children permuted": "another order of the children gives the same parents",
    "parents permuted": "another order of the parents gives the same parents in that order",
    "alone as in a batch": "an example gives alone what it gives in a batch (`vmap`)",
    "windows alone": "a window gives alone what it gives in a grid of windows",
    "compiles once": "a second example of the same shape does not compile again",
    "trace": "a trace changes nothing, has one entry per iteration and ends in the result",
    "compete": "`compete` takes the place of the softmax over parents, for all windows at once",
    "initial": "an earlier result continued by one iteration equals all at once",
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
