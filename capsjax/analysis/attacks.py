"""Adversarial images: the small change within a ball that raises a loss most.

Functions of ONE image; batch them with ``jax.vmap``, compile at the outermost call. An attack asks
for nothing but a loss of an image, so that whatever can be differentiated can be attacked:
``untargeted``, ``targeted`` and ``margin`` make a loss of class scores, and ``vote_scores`` gives
those of a capsule network's votes. Where a network was trained on standardised images, standardise
inside of the scores: images and epsilon are in [0, 1] here.

Source: Goodfellow, Shlens and Szegedy 2015, "Explaining and harnessing adversarial examples";
Kurakin, Goodfellow and Bengio 2017, "Adversarial examples in the physical world"; Madry, Makelov,
Schmidt, Tsipras and Vladu 2018, "Towards deep learning models resistant to adversarial attacks";
Gu, Wu and Tresp 2021, "Effective and efficient vote attack on capsule networks"; Carlini and Wagner
2017, "Towards evaluating the robustness of neural networks".

Example:
    A black box: made on one network, tried on another.

    >>> import jax, jax.numpy as jnp
    >>> at_hand, attacked = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.array([[3.0, 1.0], [1.0, 2.0]])
    >>> def attack(image, label):
    ...     return fgsm(untargeted(lambda x: at_hand @ x, label), image, epsilon=0.2)
    >>> images, labels = jnp.array([[0.6, 0.4], [0.3, 0.8]]), jnp.array([0, 1])
    >>> crafted = jax.vmap(attack)(images, labels)
    >>> (images @ attacked.T).argmax(1).tolist(), (crafted @ attacked.T).argmax(1).tolist()
    ([0, 1], [0, 0])
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Integer

from capsjax import checks
from capsjax.ops.precision import working_dtype
from capsjax.ops.squash import safe_norm, squash

Norm = Literal["linf", "l2"]
Loss = Callable[[Array], Array]
Number = float | Float[Array, ""]

# Added to an activation, so that the logarithm of none has a value and a gradient.
_LEAST_ACTIVATION = 1e-7


class GradientStatistics(NamedTuple):
    """What tells a network that resists from one that only hides its gradient.

    Attributes:
        zeros: scalar in [0, 1], the share of entries that are exactly 0.
        magnitude: scalar, the mean of the entries' absolute values.
    """

    zeros: Array
    magnitude: Array


@checks.arguments
def fgsm(loss: Loss, image: Float[Array, "..."], *, epsilon: Number) -> Float[Array, "..."]:
    r"""Fast gradient sign method: one step of epsilon in every pixel.

    .. math:: x' = \mathrm{clip}_{[0, 1]}(x + \epsilon\, \mathrm{sign} \nabla_x L(x))

    A pixel whose gradient is exactly 0 stays as it is.

    Args:
        loss: from an image to a scalar, to be raised.
        image: in [0, 1].
        epsilon: the largest change of a pixel.

    Returns:
        The changed image, in [0, 1], of the image's dtype.

    Raises:
        ValueError: an image that is not float, or an epsilon that is negative or no scalar.

    Source: Goodfellow, Shlens and Szegedy 2015, section 4.

    Example:
        >>> import jax.numpy as jnp
        >>> changed = fgsm(lambda x: x[0] - x[1], jnp.array([0.5, 0.1, 0.5]), epsilon=0.25)
        >>> changed.tolist()
        [0.75, 0.0, 0.5]
    """
    image = _checked(image, epsilon=epsilon)
    return _projected(image + _step(loss, image, epsilon, "linf"), image, epsilon, "linf")


@checks.arguments
def bim(
    loss: Loss,
    image: Float[Array, "..."],
    *,
    epsilon: Number,
    step: Number,
    num_steps: int | Integer[Array, ""],
) -> Float[Array, "..."]:
    """Basic iterative method: steps of the gradient's sign, held within epsilon of the image.

    Args:
        loss: from an image to a scalar, to be raised.
        image: in [0, 1]; the first step is from here.
        epsilon: the largest change of a pixel.
        step: of a pixel, in each iteration.
        num_steps: iterations; a loop, which compiles in the same time for any number.

    Returns:
        The image after the last step, in [0, 1], of the image's dtype.

    Raises:
        ValueError: an image that is not float, a negative epsilon or step, or fewer than one step.

    Source: Kurakin, Goodfellow and Bengio 2017, section 2.2 (their step is 1/255 and their number
    of steps grows with epsilon).

    Example:
        >>> import jax.numpy as jnp
        >>> image = jnp.array([0.5, 0.75])
        >>> bim(lambda x: x.sum(), image, epsilon=0.5, step=0.125, num_steps=3).tolist()
        [0.875, 1.0]
    """
    image = _checked(image, epsilon=epsilon, step=step, num_steps=num_steps)
    return _climb(loss, image, image, epsilon, step, num_steps, "linf")


@checks.arguments
def pgd(
    loss: Loss,
    image: Float[Array, "..."],
    key: Array,
    *,
    epsilon: Number,
    step: Number,
    num_steps: int | Integer[Array, ""],
    norm: Norm = "linf",
) -> Float[Array, "..."]:
    """Projected gradient ascent from a random start within the ball.

    A step is along the gradient's sign ("linf") or its direction ("l2"). For several starts, vmap
    over keys and keep the image of the largest loss.

    Args:
        loss: from an image to a scalar, to be raised.
        image: in [0, 1], the ball's centre.
        key: of the start, which is uniform in the ball (and then clipped to [0, 1]).
        epsilon: the ball's radius: the largest change of a pixel, or Euclidean length of a change.
        step: a step's length in the same norm.
        num_steps: iterations, as in ``bim``.
        norm: "linf" or "l2".

    Returns:
        The image after the last step, in [0, 1], of the image's dtype.

    Raises:
        ValueError: an image that is not float, a negative epsilon or step, fewer than one step, or
            an unknown norm.

    Source: Madry, Makelov, Schmidt, Tsipras and Vladu 2018, section 2.1 and (for L2) section 5.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> image = jnp.array([0.5, 0.5])
        >>> def attack(key):
        ...     loss = lambda x: 3 * x[0] - 4 * x[1]
        ...     return pgd(loss, image, key, epsilon=0.25, step=0.1, num_steps=40, norm="l2")
        >>> [round(pixel, 3) for pixel in attack(jax.random.key(0)).tolist()]
        [0.65, 0.3]
    """
    image = _checked(image, epsilon=epsilon, step=step, num_steps=num_steps)
    if norm not in get_args(Norm):
        raise ValueError(f"norm is {norm!r}, expected 'linf' or 'l2'")
    start = image + jnp.asarray(epsilon, image.dtype) * _in_unit_ball(key, image, norm)
    start = _projected(start, image, epsilon, norm)
    return _climb(loss, image, start, epsilon, step, num_steps, norm)


@checks.arguments
def untargeted(scores: Callable[[Array], Array], label: int | Integer[Array, ""]) -> Loss:
    r"""The loss whose rise takes an image away from its class: cross-entropy of a softmax.

    .. math:: L(x) = -\ln \frac{e^{z_y}}{\sum_k e^{z_k}}, \quad z = \mathrm{scores}(x)

    The same loss for every network, whatever it was trained by: the margin and spread losses have
    an exactly zero gradient where an image is classified with its margin, and would pass for
    robust. Activations in [0, 1] may be scores as they are, which never saturates; ``log_shares``
    of them gives the negative log-likelihood.

    Args:
        scores: from an image to ``[classes]``, logits or activations.
        label: the class to leave, below the number of classes.

    Returns:
        A loss for ``fgsm``, ``bim`` or ``pgd``; it raises ValueError for scores that are not
        ``[classes]``, and for a label that is no class.

    Example:
        >>> import jax.numpy as jnp
        >>> print(untargeted(lambda x: x, 0)(jnp.array([0.5, 0.5])))
        0.6931472
    """

    def loss(image: Array) -> Array:
        return -_log_softmax(scores(image), label)

    return loss


@checks.arguments
def targeted(scores: Callable[[Array], Array], target: int | Integer[Array, ""]) -> Loss:
    """The loss whose rise takes an image towards a class: the negative of ``untargeted``'s.

    Args:
        scores: from an image to ``[classes]``, logits or activations.
        target: the class to reach, below the number of classes.

    Returns:
        A loss for ``fgsm``, ``bim`` or ``pgd``; it raises as ``untargeted``'s does.

    Source: Kurakin, Goodfellow and Bengio 2017, section 2.3 (their target is the least likely
    class; any may be given here).

    Example:
        >>> import jax.numpy as jnp
        >>> image = jnp.array([0.5, 0.5])  # whose pixels are the scores of two classes
        >>> fgsm(targeted(lambda x: x, 1), image, epsilon=0.25).tolist()
        [0.25, 0.75]
    """

    def loss(image: Array) -> Array:
        return _log_softmax(scores(image), target)

    return loss


@checks.arguments
def margin(scores: Callable[[Array], Array], label: int | Integer[Array, ""]) -> Loss:
    r"""The loss whose rise takes an image away from its class: the best other score less its own.

    .. math:: L(x) = \max_{k \ne y} z_k - z_y, \quad z = \mathrm{scores}(x)

    Above 0 the image is taken for another class. A step along the gradient's sign or direction does
    not depend on the scores' scale, so that logits and capsules' lengths are attacked alike; the
    cross-entropy of lengths in [0, 1] pulls little more on the nearest rival than on all others,
    and that of large logits rounds to 0.

    Args:
        scores: from an image to ``[classes]``, logits or activations.
        label: the class to leave, below the number of classes.

    Returns:
        A loss for ``fgsm``, ``bim`` or ``pgd``; it raises as ``untargeted``'s does.

    Source: Carlini and Wagner 2017, section IV (objective function 6, of a class to leave and
    without the bound at 0).

    Example:
        >>> import jax.numpy as jnp
        >>> print(margin(lambda x: x, 0)(jnp.array([0.75, 0.5, 0.25])))
        -0.25
    """

    def loss(image: Array) -> Array:
        found = scores(image)
        _check_scores(found, label)
        others = jnp.where(jnp.arange(len(found)) == label, -jnp.inf, found)
        return jnp.max(others) - found[label]

    return loss


@checks.arguments
def log_shares(activations: Float[Array, " classes"]) -> Float[Array, " classes"]:
    r"""Logits of which the softmax is each activation's share in their sum.

    .. math:: \ln \frac{a_k + \epsilon}{\sum_l (a_l + \epsilon)}, \quad \epsilon = 10^{-7}

    Args:
        activations: not negative.

    Returns:
        The logarithms of the shares.

    Source: Gu, Wu and Tresp 2021, official code (of capsules' lengths, without epsilon).

    Example:
        >>> import jax.numpy as jnp
        >>> [round(float(share), 3) for share in jnp.exp(log_shares(jnp.array([0.3, 0.1])))]
        [0.75, 0.25]
    """
    some = activations + _LEAST_ACTIVATION
    return jnp.log(some / jnp.sum(some))


@checks.arguments
def vote_scores(votes: Float[Array, "parents dim children"]) -> Float[Array, " parents"]:
    r"""Lengths that class capsules would have if all votes counted the same.

    .. math:: \Big|\mathrm{squash}\Big(\frac1I \sum_i \hat u_{j|i}\Big)\Big|

    The vote attack raises a loss of these, and its image is then classified by the whole network:
    no gradient goes through the routing, which costs most of the time and may hide it. The source's
    loss is ``untargeted`` of their ``log_shares``.

    Args:
        votes: of one image for the class capsules, ``Output.routed[-1].votes[0]`` of its batch.

    Returns:
        Lengths in [0, 1], one for each class.

    Raises:
        ValueError: votes of another rank.

    Source: Gu, Wu and Tresp 2021 and its official code.

    Example:
        >>> import jax.numpy as jnp
        >>> votes = jnp.array([[[0.6, 0.6], [0.8, 0.8]], [[0.6, -0.6], [0.8, -0.8]]])
        >>> print(vote_scores(votes))  # they agree for the first class, cancel for the second
        [0.5 0. ]
    """
    if votes.ndim != 3:
        raise ValueError(
            f"votes have shape {votes.shape}, expected [parents, dim, children]: batch with "
            "jax.vmap"
        )
    return safe_norm(squash(votes.mean(-1)))


@checks.arguments
def gradient_statistics(gradients: Float[Array, "..."]) -> GradientStatistics:
    """Share of exact zeros in gradients, and their mean magnitude.

    A network may seem robust because its gradient is lost on the way (masked): then many entries
    are 0, or all are far smaller than those of a network to compare with.

    Args:
        gradients: of a loss with respect to images, any number of them.

    Returns:
        Two scalars.

    Source: Hinton, Sabour and Frosst 2018 (adversarial robustness); Athalye, Carlini and Wagner
    2018, "Obfuscated gradients give a false sense of security".

    Example:
        >>> import jax.numpy as jnp
        >>> zeros, magnitude = gradient_statistics(jnp.array([[0.0, 3.0], [-1.0, 0.0]]))
        >>> print(zeros, magnitude)
        0.5 1.0
    """
    return GradientStatistics(jnp.mean(gradients == 0), jnp.mean(jnp.abs(gradients)))


def _climb(
    loss: Loss,
    image: Array,
    start: Array,
    epsilon: Number,
    step: Number,
    num_steps: int | Array,
    norm: Norm,
) -> Array:
    def once(_: Array, x: Array) -> Array:
        return _projected(x + _step(loss, x, step, norm), image, epsilon, norm)

    return lax.fori_loop(0, num_steps, once, start)


def _step(loss: Loss, x: Array, length: Number, norm: Norm) -> Array:
    """The change of this length along which the loss rises most."""
    gradient = jax.grad(loss)(x)
    if norm == "linf":
        direction = jnp.sign(gradient)
    else:
        size = safe_norm(gradient.reshape(-1))
        direction = gradient / jnp.where(size > 0, size, 1)
    return jnp.asarray(length, x.dtype) * direction


def _projected(x: Array, image: Array, epsilon: Number, norm: Norm) -> Array:
    """Into the ball around the image, then into [0, 1].

    The second keeps it in the ball: it moves each pixel towards the image's own, which is in [0, 1]
    too.
    """
    change, epsilon = x - image, jnp.asarray(epsilon, x.dtype)
    if norm == "linf":
        change = jnp.clip(change, -epsilon, epsilon)
    else:
        length = safe_norm(change.reshape(-1))
        change = change * jnp.minimum(1, epsilon / jnp.where(length > 0, length, 1))
    return jnp.clip(image + change, 0, 1)


def _in_unit_ball(key: Array, image: Array, norm: Norm) -> Array:
    """A point of the image's shape, uniform in the norm's unit ball."""
    if norm == "linf":
        return jax.random.uniform(key, image.shape, image.dtype, -1, 1)
    for_direction, for_radius = jax.random.split(key)
    direction = jax.random.normal(for_direction, image.shape, image.dtype)
    radius = jax.random.uniform(for_radius, (), image.dtype) ** (1 / image.size)
    return radius * direction / safe_norm(direction.reshape(-1))


def _check_scores(scores: Array, label: int | Array) -> None:
    if scores.ndim != 1:
        raise ValueError(
            f"scores have shape {scores.shape}, expected [classes] of one image: batch the attack "
            "with jax.vmap, and give the network a batch of one"
        )
    if not isinstance(label, jax.core.Tracer) and not 0 <= label < len(scores):
        raise ValueError(f"label is {label}, expected 0 to {len(scores) - 1}, as there are scores")


def _log_softmax(scores: Array, label: int | Array) -> Array:
    _check_scores(scores, label)
    # Half precision has too few bits for the difference of two nearly equal scores.
    return jax.nn.log_softmax(scores.astype(working_dtype(scores.dtype)))[label]


def _checked(image: Array, *, num_steps: int | Array = 1, **lengths: Number) -> Array:
    image = jnp.asarray(image)
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"image has dtype {image.dtype}, expected float in [0, 1]: divide by 255")
    for name, value in lengths.items():
        traced, most = isinstance(value, jax.core.Tracer), float(jnp.finfo(image.dtype).max)
        if np.ndim(value) or not (traced or 0 <= value <= most):
            raise ValueError(
                f"{name} is {value}, expected one number that is not negative, nor too large for "
                f"{image.dtype}"
            )
    if not isinstance(num_steps, jax.core.Tracer):
        if num_steps < 1:
            raise ValueError(f"num_steps is {num_steps}, expected at least 1")
        checks.sizes(num_steps=int(num_steps))
    return image
