"""Pictures of the functions that capsule networks are made of."""

from collections.abc import Mapping

from numpy.typing import ArrayLike

from capsjax import checks
from capsjax.figures._style import BLUE, GREY, RED, Figure, checked, line_style, quieten


@checks.arguments(empty=True, nan=True)
def squash_curve(before: ArrayLike, after: Mapping[str, ArrayLike]) -> Figure:
    """How long a vector is after squashing, by how long it was before.

    Args:
        before: float ``[points]``, lengths in rising order.
        after: a name and float ``[points]`` for each squashing function.

    Returns:
        A figure of one axis, with the lines "unchanged" and "length 1" drawn thin.

    Raises:
        ValueError: no function, or lengths of another shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from capsjax.ops.squash import squash
        >>> before = jnp.linspace(0, 3, 31)
        >>> figure = squash_curve(before, {"squash": squash(before[:, None])[:, 0]})
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['unchanged', 'squash']
    """
    lengths = checked("before", before, "points")
    if not after:
        raise ValueError("after is empty, expected a name and [points] for each function")
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.axhline(1, color=GREY, lw=0.8)
    axis.plot(lengths, lengths, color=GREY, lw=0.8, ls=(0, (4, 3)), label="unchanged")
    for index, (name, values) in enumerate(after.items()):
        heights = checked(f"after[{name!r}]", values, len(lengths))
        style = line_style(index) | {"marker": ""}
        axis.plot(lengths, heights, label=name, linewidth=2, **style)
    axis.set(
        xlabel="length before",
        ylabel="length after",
        ylim=(0, 1.08),
    )
    axis.margins(x=0)
    quieten(axis)
    axis.legend(loc="lower right", frameon=False, handlelength=3)
    return figure


@checks.arguments(empty=True, nan=True)
def margin_loss_curve(
    lengths: ArrayLike,
    present: ArrayLike,
    absent: ArrayLike,
    *,
    margins: tuple[float, float] = (0.9, 0.1),
) -> Figure:
    """What a class capsule of each length costs, where its class is there and where it is not.

    Args:
        lengths: float ``[points]`` in rising order.
        present: float ``[points]``, the loss of a class that is there.
        absent: the same of one that is not.
        margins: where the first becomes 0, and where the second begins; drawn thin.

    Returns:
        A figure of one axis.

    Raises:
        ValueError: losses of another shape.

    Source: Sabour, Frosst and Hinton 2017, equation 4.

    Example:
        >>> import numpy as np
        >>> at = np.linspace(0, 1, 11)
        >>> present, absent = np.maximum(0, 0.9 - at) ** 2, np.maximum(0, at - 0.1) ** 2 / 2
        >>> figure = margin_loss_curve(at, present, absent)
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['class is there', 'class is not there']
    """
    at = checked("lengths", lengths, "points")
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axis = figure.subplots()
    for values, name, color, line in (
        (present, "class is there", BLUE, "-"),
        (absent, "class is not there", RED, "--"),
    ):
        axis.plot(at, checked(name, values, len(at)), color=color, ls=line, lw=2, label=name)
    for margin in margins:
        axis.axvline(margin, color=GREY, lw=0.8)
    axis.set(xlabel="length of the class capsule", ylabel="margin loss")
    axis.margins(x=0)
    quieten(axis)
    axis.legend(loc="upper center", frameon=False, handlelength=3)
    return figure
