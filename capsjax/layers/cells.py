"""Capsule convolutions, residual blocks of them, and routing by a shared kernel: DeepCaps' parts.

All take a grid of capsules, poses ``[batch, height, width, types, dim]``, and are padded, so that
it keeps its size but for the stride.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from capsjax.layers.convolution import HE_NORMAL, Initializer
from capsjax.layers.router import Router, capsules_of
from capsjax.ops.convolution import conv2d
from capsjax.ops.squash import safe_norm, squash
from capsjax.types import Capsules, Routed

# Of a sum's length over that of the capsules below, at the start.
_GAIN = 3.0


class CapsuleConvolution(nnx.Module):
    """Capsules from a convolution of all numbers of those below, squashed; nothing is routed.

    Args:
        child_types: capsule types below.
        child_dim: dimension of their poses.
        types: capsule types here.
        dim: dimension of their poses.
        kernel_size: rows and columns of the kernel.
        stride: of both spatial axes.
        kernel_init: initializer of the kernel ``[rows, columns, child_types * child_dim, types *
            dim]``. None is a truncated normal by which capsules of length l below make sums of a
            length around 3l. Squashing then keeps lengths near 0.87 through any number of layers;
            from about 2l, which is what padding leaves of it at the corners, they would vanish.
        rngs: takes one key of the stream ``params``.

    Source: Rajasegaran et al. 2019, section 3.2 (ConvCaps). Neither bias nor normalisation, as in
    the authors' code.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> def forward(children):
        ...     layer = CapsuleConvolution(4, 8, types=2, dim=6, stride=2, rngs=nnx.Rngs(0))
        ...     return layer(children)
        >>> children = Capsules(jnp.ones((1, 5, 5, 4, 8)), jnp.ones((1, 5, 5, 4)))
        >>> jax.eval_shape(forward, children).poses.shape  # nothing is computed
        (1, 3, 3, 2, 6)
    """

    def __init__(
        self,
        child_types: int,
        child_dim: int,
        types: int,
        dim: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        kernel_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ):
        if kernel_init is None:
            terms = kernel_size**2 * child_types
            kernel_init = nnx.initializers.truncated_normal(_GAIN / math.sqrt(terms * dim))
        shape = (kernel_size, kernel_size, child_types * child_dim, types * dim)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        self.dim = dim
        self.stride = stride

    def __call__(self, children: Capsules) -> Capsules:
        """A grid of capsules and their lengths, for a grid whose activations it does not see."""
        features = children.poses.reshape(*children.poses.shape[:3], -1)
        out = conv2d(features, self.kernel[...], stride=self.stride, padding="SAME")
        poses = squash(out.reshape(*out.shape[:3], -1, self.dim))
        return Capsules(poses, safe_norm(poses))


class SharedKernelCapsules(nnx.Module):
    """Routed capsules on a grid, for which children of all types vote through one kernel.

    The vote of a type at a position is a convolution of that type's poses around it: a 3-D
    convolution, whose third axis goes from type to type. At each position its children are the
    types there, and its parents are there, too. One child type's shares sum to 1 over all parents
    at all positions.

    Args:
        types: of capsules below.
        child_dim: dimension of their poses.
        parents: types of capsules here.
        dim: dimension of their poses.
        kernel_size: rows and columns of the kernel.
        config: a routing's config.
        kernel_init: initializer of the kernel ``[rows, columns, child_dim, parents * dim]``.
        rngs: takes one key of the stream ``params`` for the kernel and one for the routing.

    Raises:
        ValueError: ``config`` belongs to no routing.

    Source: Rajasegaran et al. 2019, section 3.1 and algorithm 1. Deviations from the authors' code:
    there all positions of a parent type are squashed as one vector, where the paper has a capsule
    at each; and it reads channels for rows when it cuts the poses apart, so that a vote mixes
    unrelated numbers.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from capsjax.routing import dynamic
        >>> def forward(children):
        ...     layer = SharedKernelCapsules(4, 8, 2, 6, config=dynamic.Config(), rngs=nnx.Rngs(0))
        ...     return layer(children)
        >>> children = Capsules(jnp.ones((1, 3, 3, 4, 8)), jnp.ones((1, 3, 3, 4)))
        >>> routed = jax.eval_shape(forward, children)  # nothing is computed
        >>> routed.poses.shape, routed.coefficients.shape
        ((1, 3, 3, 2, 6), (1, 3, 3, 2, 4))
    """

    def __init__(
        self,
        types: int,
        child_dim: int,
        parents: int,
        dim: int,
        *,
        kernel_size: int = 3,
        config: Any,
        kernel_init: Initializer = HE_NORMAL,
        rngs: nnx.Rngs,
    ):
        shape = (kernel_size, kernel_size, child_dim, parents * dim)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        sizes: dict[str, Any] = {"parents": parents, "dim": dim, "children": types}
        self.routing = Router(config, **sizes, child_dim=child_dim, rngs=rngs)
        self.parents = parents

    def __call__(
        self, children: Capsules, *, initial: Routed | None = None, trace: bool = False
    ) -> Routed:
        """Route a batch of grids.

        Args:
            children: poses ``[batch, height, width, types, child_dim]``, activations without the
                last axis, or None.
            initial: an earlier result to continue from.
            trace: keep every iteration.

        Returns:
            The parents, a grid ``[batch, height, width, parents, dim]``, as windows of the routing
            contract.
        """

        def vote(children: Capsules) -> Array:
            batch, height, width, types, child_dim = children.poses.shape
            alone = jnp.moveaxis(children.poses, 3, 1).reshape(-1, height, width, child_dim)
            votes = conv2d(alone, self.kernel[...], padding="SAME")
            votes = votes.reshape(batch, types, height, width, self.parents, -1)
            return jnp.moveaxis(votes, 1, -1)

        return self.routing(vote, children, compete=everywhere, initial=initial, trace=trace)


class ResidualCapsules(nnx.Module):
    """A strided capsule convolution, then two more in a row beside a shortcut, added up.

    Args:
        child_types: capsule types below.
        child_dim: dimension of their poses.
        types: capsule types here, in all layers.
        dim: dimension of their poses.
        stride: of the first layer.
        config: a routing's config: the shortcut is ``SharedKernelCapsules``; None for one more
            capsule convolution.
        rngs: takes keys of the stream ``params``.

    Raises:
        ValueError: ``config`` belongs to no routing.

    Source: Rajasegaran et al. 2019, section 3.3 and figure 2 (CapsCell).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> def forward(children):
        ...     layer = ResidualCapsules(4, 8, types=2, dim=6, rngs=nnx.Rngs(0))
        ...     return layer(children)
        >>> children = Capsules(jnp.ones((1, 4, 4, 4, 8)), jnp.ones((1, 4, 4, 4)))
        >>> capsules, routed = jax.eval_shape(forward, children)  # nothing is computed
        >>> capsules.poses.shape, routed is None  # without a config nothing is routed
        ((1, 2, 2, 2, 6), True)
    """

    def __init__(
        self,
        child_types: int,
        child_dim: int,
        types: int,
        dim: int,
        *,
        stride: int = 2,
        config: Any = None,
        rngs: nnx.Rngs,
    ):
        self.first = CapsuleConvolution(
            child_types, child_dim, types, dim, stride=stride, rngs=rngs
        )
        self.main = nnx.List(
            CapsuleConvolution(types, dim, types, dim, rngs=rngs) for _ in range(2)
        )
        self.shortcut = (
            CapsuleConvolution(types, dim, types, dim, rngs=rngs)
            if config is None
            else SharedKernelCapsules(types, dim, types, dim, config=config, rngs=rngs)
        )

    def __call__(
        self, children: Capsules, *, trace: bool = False
    ) -> tuple[Capsules, Routed | None]:
        """A grid of capsules, and the routing of the shortcut, where it has one.

        The sum is not squashed again, so it may be longer than 1; activations are its lengths, at
        most 1.

        Args:
            children: poses ``[batch, height, width, child_types, child_dim]``.
            trace: keep every iteration.

        Returns:
            Poses ``[batch, out_height, out_width, types, dim]`` and activations without the last
            axis; what the shortcut routed, or None.
        """
        first = self.first(children)
        main = first
        for layer in self.main:
            main = layer(main)
        routed = None
        if isinstance(self.shortcut, SharedKernelCapsules):
            routed = self.shortcut(first, trace=trace)
            shortcut = capsules_of(routed)
        else:
            shortcut = self.shortcut(first)
        poses = main.poses + shortcut.poses
        return Capsules(poses, jnp.minimum(safe_norm(poses), 1)), routed


def everywhere(logits: Array) -> Array:
    """Competition for each child on its own: among all parents at all positions.

    Args:
        logits: ``[*windows, parents, children]``.

    Returns:
        Coefficients that sum to 1 over all axes but the last.

    Source: Rajasegaran et al. 2019, equation 3 (softmax_3D).
    """
    return jax.nn.softmax(logits, axis=tuple(range(logits.ndim - 1)))
