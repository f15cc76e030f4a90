"""What a routing did, in numbers: pure functions of its coefficients, votes and poses.

All work on what a ``Routed`` or its ``Trace`` holds, with any leading axes: one example
``[parents, children]``, a batch, the iterations of a trace, windows, or all of them.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from capsjax import checks
from capsjax.ops.precision import working_dtype
from capsjax.ops.squash import safe_norm


@checks.arguments
def entropy(coefficients: Float[Array, "*axes parents children"]) -> Float[Array, "*axes"]:
    r"""Mean over children of the entropy of their shares, in nats.

    .. math:: -\frac1I \sum_i \sum_j c_{ij} \ln c_{ij}

    From 0 (each child has one parent) to the logarithm of the number of parents (no preference).
    Shares are divided by their sum first, where it is not 1 (leak, priors); negative ones, which a
    learned prior can make, count as 0.

    Args:
        coefficients: coupling coefficients.

    Returns:
        One number for each set of coefficients.

    Example:
        >>> import jax.numpy as jnp
        >>> print(entropy(jnp.full((4, 9), 1 / 4)) / jnp.log(4))
        1.0
    """
    shares = jnp.maximum(coefficients, 0)
    total = shares.sum(-2, keepdims=True)
    shares = shares / jnp.where(total > 0, total, 1)
    terms = shares * jnp.log(jnp.where(shares > 0, shares, 1))
    return -terms.sum(-2).mean(-1)


@checks.arguments
def polarisation(coefficients: Float[Array, "*axes parents children"]) -> Float[Array, "*axes"]:
    """Mean over children of their largest coefficient: 1 where each child has one parent.

    Args:
        coefficients: coupling coefficients.

    Returns:
        One number for each set of coefficients.

    Source: Paik, Kwak and Kim 2019, section 4, who see it grow with every iteration.

    Example:
        >>> import jax.numpy as jnp
        >>> print(polarisation(jnp.array([[1.0, 0.5], [0.0, 0.5]])))  # the second child wavers
        0.75
    """
    return coefficients.max(-2).mean(-1)


@checks.arguments
def agreement(
    coefficients: Float[Array, "*axes parents children"],
    votes: Float[Array, "*axes parents dim children"],
    poses: Float[Array, "*axes parents dim"],
) -> Float[Array, "*axes"]:
    r"""Mean cosine between votes and the poses they voted for, weighted by the coefficients.

    .. math:: \sum_{ij} c_{ij} \cos(\hat u_{j|i}, v_j) \Big/ \sum_{ij} c_{ij}

    Args:
        coefficients: coupling coefficients; negative ones count as 0.
        votes: the children's votes; one without length agrees with nothing (cosine 0).
        poses: the parents' poses.

    Returns:
        One number from -1 to 1 for each set of coefficients.

    Example:
        >>> import jax.numpy as jnp
        >>> votes, poses = jnp.array([[[1.0, -1.0], [0.0, 0.0]]]), jnp.array([[1.0, 0.0]])
        >>> print(agreement(jnp.array([[0.75, 0.25]]), votes, poses))  # the second votes against it
        0.5
    """
    # Each by its own length first: the product of both may leave the range.
    lengths, pose_lengths = (
        safe_norm(votes, axis=-2, keepdims=True),
        safe_norm(poses, keepdims=True),
    )
    vote_units = votes / jnp.where(lengths > 0, lengths, 1)
    pose_units = poses / jnp.where(pose_lengths > 0, pose_lengths, 1)
    cosines = jnp.einsum("...jd,...jdi->...ji", pose_units, vote_units)
    shares = jnp.maximum(coefficients, 0)
    total = shares.sum((-2, -1))
    return (shares * cosines).sum((-2, -1)) / jnp.where(total > 0, total, 1)


@checks.arguments
def change(
    coefficients: Float[Array, "iterations *axes parents children"],
) -> Float[Array, "changes *axes"]:
    """Largest change of a coefficient from each iteration to the next.

    Args:
        coefficients: of a trace.

    Returns:
        One number less than iterations: entry k compares iterations k + 1 and k + 2.

    Example:
        >>> import jax.numpy as jnp
        >>> change(jnp.array([[[0.5], [0.5]], [[0.75], [0.25]]])).tolist()
        [0.25]
    """
    return jnp.abs(jnp.diff(coefficients, axis=0)).max((-2, -1))


@checks.arguments
def coefficient_variance(
    coefficients: Float[Array, "examples *axes parents children"],
) -> Float[Array, "*axes"]:
    """Variance of the coefficients over examples, averaged over all pairs of child and parent.

    Near 0 the routing couples the same capsules whatever it sees, and no parse tree is built.

    Args:
        coefficients: of a batch, examples first.

    Returns:
        One number for each set of coefficients.

    Source: Mitterreiter, Koch, Giesen and Laue 2023, section 4.

    Example:
        >>> import jax.numpy as jnp
        >>> print(coefficient_variance(jnp.array([[[1.0], [0.0]], [[0.0], [1.0]]])))
        0.25
    """
    return coefficients.var(0).mean((-2, -1))


@checks.arguments
def strongest_share(coefficients: Float[Array, "*axes parents children"]) -> Float[Array, "*axes"]:
    """Share of all coupling mass that goes to the parent which gets most.

    Args:
        coefficients: coupling coefficients; negative ones count as 0.

    Returns:
        One number for each set of coefficients, from 1 / parents to 1.

    Example:
        >>> import jax.numpy as jnp
        >>> print(strongest_share(jnp.array([[1.0, 0.5], [0.0, 0.5]])))
        0.75
    """
    mass = jnp.maximum(coefficients, 0).sum(-1)
    total = mass.sum(-1)
    return mass.max(-1) / jnp.where(total > 0, total, 1)


@checks.arguments
def dead_share(
    activations: Float[Array, "examples *axes parents"], *, threshold: float = 0.01
) -> Float[Array, "*axes"]:
    """Share of the parents whose mean activation over a batch is below a threshold.

    Args:
        activations: of a batch, examples first.
        threshold: a parent below it counts as dead.

    Returns:
        One number from 0 to 1 for each set of parents.

    Source: Mitterreiter, Koch, Giesen and Laue 2023, section 4 (the threshold is ours).

    Example:
        >>> import jax.numpy as jnp
        >>> print(dead_share(jnp.array([[0.5, 0.0], [0.7, 0.001]])))  # the second parent is dead
        0.5
    """
    mean = activations.mean(0)
    # A comparison would take a NaN for alive.
    dead = (mean < threshold).astype(working_dtype(mean.dtype))
    return jnp.where(jnp.isnan(mean), jnp.nan, dead).mean(-1)


@checks.arguments
def by_iteration(
    coefficients: Float[Array, "iterations *axes parents children"],
    votes: Float[Array, "*axes parents dim children"],
    poses: Float[Array, "iterations *axes parents dim"],
) -> dict[str, Array]:
    """Entropy, polarisation and agreement of every iteration, and change from the one before.

    Args:
        coefficients: of a trace.
        votes: of the ``Routed`` it belongs to.
        poses: of the trace.

    Returns:
        ``{"entropy", "polarisation", "agreement": [iterations, *axes], "change": [iterations - 1,
        *axes]}``.

    Example:
        >>> import jax.numpy as jnp
        >>> coefficients, votes = jnp.full((3, 2, 5), 0.5), jnp.ones((2, 4, 5))  # 3 iterations
        >>> found = by_iteration(coefficients, votes, jnp.ones((3, 2, 4)))
        >>> {name: values.shape for name, values in found.items()}
        {'entropy': (3,), 'polarisation': (3,), 'agreement': (3,), 'change': (2,)}
    """
    return {
        "entropy": entropy(coefficients),
        "polarisation": polarisation(coefficients),
        "agreement": jax.vmap(agreement, in_axes=(0, None, 0))(coefficients, votes, poses),
        "change": change(coefficients),
    }
