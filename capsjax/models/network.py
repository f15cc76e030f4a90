"""What all networks share: their sizes, and a call from images to an ``Output``."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float

from capsjax.models.checks import check_classes, check_images
from capsjax.models.output import output_of
from capsjax.types import Output, Routed


class Network(nnx.Module):
    """The base of all networks; each says in ``forward`` what is particular to it.

    Args:
        config: the network's choices.
        image_shape: height, width and channels.
        num_classes: number of classes.

    Raises:
        ValueError: fewer than two classes.

    Attributes:
        decoder: from class capsules and a mask of them to images; None reconstructs nothing.
    """

    decoder: Any = None

    def __init__(self, config: Any, image_shape: tuple[int, int, int], num_classes: int):
        check_classes(num_classes)
        self.config = config
        self.image_shape = image_shape
        self.num_classes = num_classes

    def forward(self, images: Array, *, trace: bool) -> tuple[Sequence[Routed], Array | None]:
        """From images to the routing of every layer, and the classes' logits where there are any.

        The last routed are the class capsules; a network without capsules has none, and logits.
        """
        raise NotImplementedError

    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        targets: Float[Array, "batch *k classes"] | None = None,
        *,
        longest: int = 1,
        trace: bool = False,
    ) -> Output:
        """Classify and, with a decoder, reconstruct a batch.

        Batch normalisation and dropout are those of training until ``network.eval()``: they use the
        batch's statistics and update the running ones, and drop.

        Args:
            images: in [0, 1], or standardised.
            targets: 1 for each class whose capsule the decoder sees; None shows it the most active.
                With an axis of k behind the batch it makes k reconstructions of each image.
            longest: without targets, reconstruct so many of the most active, each by itself.
            trace: keep every routing iteration in ``Output.routed``.

        Returns:
            Class capsules, their activations, reconstructions, the routing of every layer, and the
            logits where there are any.

        Raises:
            ValueError: images of another shape than the network was made for, or ``longest`` out of
                range.
        """
        check_images(images, self.image_shape)
        if not 1 <= longest <= self.num_classes:
            raise ValueError(
                f"longest is {longest}, expected 1 to {self.num_classes}, the number of classes"
            )
        routed, logits = self.forward(images, trace=trace)
        if routed:
            return output_of(routed, self.decoder, targets, longest=longest, logits=logits)
        if self.decoder is not None or logits is None:
            raise ValueError(
                "a network without class capsules has logits, and no decoder: there is nothing for "
                "it to decode"
            )
        return Output(None, jax.nn.softmax(logits), None, (), logits)
