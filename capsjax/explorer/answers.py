"""What the page asks of a network: everything it shows, as arrays, and nothing of how it looks."""

from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from capsjax import data, inspection, routing
from capsjax.data import augment
from capsjax.training.run import Run
from capsjax.types import Capsules, Routed, Trace

# What can be sent another network's votes: self-routing and random coupling have parameters that
# are learned or drawn for a layer, and inverted attention makes all parents equally long.
SIDE_BY_SIDE = ("dynamic", "em", "variational_bayes", "self_attention")
CONTROL = "uniform"
FARTHEST = 12  # pixels between two digits
_SOME = 300  # test images


class Look(NamedTuple):
    """What a network says of one image.

    Attributes:
        lengths: ``[classes]``, the class capsules' activations.
        poses: ``[classes, dim]``; None in a network without capsules.
        reconstruction: ``[H, W, C]`` from 0 to 1, of the most active class, or ``[k, H, W, C]`` of
            several; None without a decoder.
        label: the most active class.
    """

    lengths: np.ndarray
    poses: np.ndarray | None
    reconstruction: np.ndarray | None
    label: int


class Iterations(NamedTuple):
    """Routing as it happens, of one image.

    Attributes:
        coefficients: ``[iterations, parents, children]``, of the most active children.
        lengths: ``[iterations, parents]``.
        children: their numbers.
    """

    coefficients: np.ndarray
    lengths: np.ndarray
    children: np.ndarray


class Explored:
    """A network that is looked at.

    Args:
        run: the network.
        name: what it is called by.

    Example:
        >>> from capsjax import load_pretrained
        >>> explored = Explored(load_pretrained("efficient_capsnet_mnist"), "digits")
        >>> explored.routing, explored.look(explored.test["image"][0]).label
        ('self_attention', 7)
    """

    def __init__(self, run: Run, name: str):
        self.run, self.name = run, name
        self.settings = run.settings
        self.class_names = run.settings.class_names
        # Several pictures are made of one image's votes.
        self._voted = lru_cache(maxsize=16)(self._votes_of)

    @cached_property
    def test(self) -> data.Arrays:
        """Its data set's test images."""
        return data.find(self.settings.dataset).load("test")

    @cached_property
    def singles(self) -> data.Arrays:
        """Of a network of pairs: the test images that its pictures are made of."""
        dataset = data.find(self.settings.dataset)
        return self.test if dataset.base is None else dataset.base("test")

    @property
    def pad(self) -> int:
        """Of a network of pairs: pixels that its images have more on each side than ``singles``."""
        return (self.settings.image_shape[0] - self.singles["image"].shape[1]) // 2

    @cached_property
    def decoder(self) -> inspection.Decode | None:
        """From poses and classes to images; None in a network without a decoder."""
        if getattr(self.run.model, "decoder", None) is None:
            return None
        return inspection.decoder(self.run.model)

    @cached_property
    def reach(self) -> float:
        """No number of a class capsule's pose is farther from 0, on test images; at least 1."""
        poses = inspection.see(self.run, self.test["image"][:_SOME]).poses
        return 1.0 if poses is None else float(max(1, np.ceil(np.abs(poses).max())))

    def look(self, image: np.ndarray, *, classes: int = 1) -> Look:
        """Show it an image, uint8 ``[H, W, C]``; reconstruct so many of the most active classes."""
        seen = inspection.see(self.run, image[None], classes=classes)
        return Look(
            seen.activations[0],
            None if seen.poses is None else seen.poses[0],
            None if seen.reconstructions is None else seen.reconstructions[0],
            int(seen.activations[0].argmax()),
        )

    def draw(self, pose: np.ndarray, label: int) -> np.ndarray:
        """What the decoder makes of a pose ``[dim]`` of a class: ``[H, W, C]`` from 0 to 1.

        Raises:
            ValueError: the network has no decoder.
        """
        if self.decoder is None:
            raise ValueError(f"{self.name} has no decoder, so that nothing can be drawn of a pose")
        return self.decoder(np.asarray(pose, np.float32)[None], np.array([label]))[0]

    @property
    def routing(self) -> str:
        """Name of the routing that it was trained with; "none" in a network without capsules."""
        config = getattr(self.settings.model_config, "routing", None)
        return "none" if config is None else routing.name_of(config)

    @property
    def routings(self) -> list[str]:
        """Its own routing, and those that its votes can be sent through, too."""
        return list(dict.fromkeys([self.routing, *SIDE_BY_SIDE, CONTROL]))

    def iterations(self, image: np.ndarray, name: str, most: int = 40) -> Iterations:
        """The votes of an image through a routing, iteration by iteration.

        Args:
            image: uint8 ``[H, W, C]``.
            name: one of ``routings``. The network's own is as it was trained, others have their
                default choices.
            most: keep so many of the most active children.

        Raises:
            ValueError: the network routes nothing, or its class capsules in several places; or
                another routing than its own wants activations, and its capsules have none; or there
                is no such name here.
        """
        if name not in self.routings:  # or it would be imported, whatever it is
            raise ValueError(f"routing is {name!r}, expected one of: {', '.join(self.routings)}")
        routed, children = self._voted(image.tobytes())
        if routed.coefficients.ndim != 2:
            raise ValueError(f"the class capsules of {self.name} are routed in several places")
        if name == self.routing:
            coefficients, lengths = _by_iteration(routed)
        else:
            coefficients, lengths = _routed(name, routed.votes, children)
        active = children.activations
        if active is None:
            active = np.linalg.norm(children.poses, axis=-1)
        coefficients = np.asarray(coefficients)
        chosen = np.arange(coefficients.shape[2])
        if len(chosen) > most and len(active) == len(chosen):
            chosen = np.sort(np.argsort(-active, kind="stable")[:most])
        return Iterations(coefficients[:, :, chosen], np.asarray(lengths), chosen)

    def _votes_of(self, image: bytes) -> tuple[Routed, Capsules]:
        pixels = np.frombuffer(image, np.uint8).reshape(self.settings.shape_of_data)
        return inspection.last_routing(self.run, pixels)


@partial(jax.jit, static_argnums=0)
def _routed(name: str, votes: Any, children: Any) -> tuple[Any, Any]:
    algorithm = routing.find(name)
    parents, dim, count = votes.shape
    config = algorithm.Config()
    sizes = {"parents": parents, "dim": dim, "children": count}
    params = algorithm.init(config, jax.random.key(0), child_dim=children.poses.shape[-1], **sizes)
    return _by_iteration(algorithm.route(votes, children, params, config, trace=True))


def _by_iteration(routed: Any) -> tuple[Any, Any]:
    """Coefficients and the parents' activations of every iteration, or of the only pass."""
    every = routed.trace
    if every is None:
        every = jax.tree.map(
            lambda array: array[None],
            Trace(routed.coefficients, routed.poses, routed.activations),
        )
    lengths = every.activations
    if lengths is None:
        lengths = jnp.linalg.norm(every.poses, axis=-1)
    return every.coefficients, lengths


def overlapped(first: np.ndarray, second: np.ndarray, *, pad: int, offset: tuple[int, int]) -> Any:
    """Two digits on one picture, as MultiMNIST lays them, and each alone as it lies there.

    Args:
        first: uint8 ``[h, w, 1]``; it stands in the middle.
        second: the same.
        pad: pixels that the picture has more on each side.
        offset: of the second, pixels down and to the right, each at most ``FARTHEST``.

    Returns:
        uint8 ``[3, h + 2 pad, w + 2 pad, 1]``: both, the first, the second.
    """
    return np.asarray(_overlapped(first, second, pad, np.array(offset)))


@partial(jax.jit, static_argnums=2)
def _overlapped(first: Any, second: Any, pad: int, offset: Any) -> Any:
    one = augment.place(first, jnp.zeros(2, int), limit=FARTHEST, pad=pad)
    other = augment.place(second, offset, limit=FARTHEST, pad=pad)
    return jnp.stack([augment.composite(one, other), one, other])
