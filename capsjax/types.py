"""The tuples that flow between the rooms of the library.

Shapes are of ONE example where a routing makes the tuple, and carry a leading batch axis where a
network returns it (``jax.vmap`` puts it there).
"""

from typing import Any, NamedTuple

from jax import Array


class Capsules(NamedTuple):
    """A set of capsules: what each one holds and how sure it is.

    Attributes:
        poses: ``[*windows, num, dim]`` float, the capsules' vectors (a matrix pose is flattened).
        activations: ``[*windows, num]`` float in [0, 1], the probability that the entity is there;
            None where a layer says nothing of it.
    """

    poses: Array
    activations: Array  # of which a layer without them makes None; routings that need them refuse


class Trace(NamedTuple):
    """Every iteration of a routing, stacked along a new first axis.

    Attributes:
        coefficients: ``[iterations, *windows, parents, children]`` float. Where a tolerance ended
            the iteration early, the last entry is repeated up to ``max_iterations``.
        poses: ``[iterations, *windows, parents, dim]`` float.
        activations: ``[iterations, *windows, parents]`` float, or None as in ``Routed``.
    """

    coefficients: Array
    poses: Array
    activations: Array | None


class Routed(NamedTuple):
    """What a routing algorithm returns.

    Attributes:
        poses: ``[*windows, parents, dim]`` float, the parents' vectors.
        activations: ``[*windows, parents]`` float, or None where the algorithm gives none.
        coefficients: ``[*windows, parents, children]`` float, the coupling coefficients by which
            the votes were weighted last.
        votes: ``[*windows, parents, dim, children]`` float, the votes as they came in.
        state: the algorithm's own state after the last iteration; ``initial=routed`` continues
            from it.
        trace: None, or a ``Trace`` with one entry per iteration.
        iterations: int32 ``[]``, how many were run; None from a routing without iterations.
        converged: bool ``[]``, whether the coefficients changed by less than the tolerance; None
            where no tolerance was set.
    """

    poses: Array
    activations: Array | None
    coefficients: Array
    votes: Array
    state: Any
    trace: Trace | None = None
    iterations: Array | None = None
    converged: Array | None = None


class Output(NamedTuple):
    """What a network returns for a batch.

    Attributes:
        poses: ``[batch, classes, dim]`` float, the class capsules; None in a network without
            capsules.
        activations: ``[batch, classes]`` float, the class capsules' activations (for capsnet their
            lengths); without capsules, the probabilities of the classes.
        reconstruction: ``[batch, height, width, channels]`` float in [0, 1], with an axis of k
            behind the batch where k were asked for; None without a decoder.
        routed: one ``Routed`` for every routing layer, from the first to the last, batched.
        logits: ``[batch, classes]`` float, of which the activations are a function; None where they
            are not.
    """

    poses: Array | None
    activations: Array
    reconstruction: Array | None
    routed: tuple[Routed, ...]
    logits: Array | None = None
