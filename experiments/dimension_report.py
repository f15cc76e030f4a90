"""Pictures and lines of ``capsule_dimensions``, made from its results alone."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from capsjax import figures
from experiments import digit_shapes
from experiments.pose_measures import ALONG, ENDS, OFFSETS, picture
from experiments.study import Brief, Line, share

Metrics = Mapping[str, dict[str, Any]]

_DATA = {"affine": "synthetic affNIST", "toys": "toy_norb (synthetic)"}
_CLAIMED = "claimed, not measured"
_SHORT = {"shift_x": "shift x", "shift_y": "shift y", "none": "-"}


def draw(metrics: Metrics) -> dict[str, Figure]:
    """Whatever the runs that are there show."""
    pictures = _dimensions(metrics["mnist_capsules"]) if "mnist_capsules" in metrics else {}
    for part, name in _DATA.items():
        there = _of(metrics, part)
        if there:
            pictures[f"probes_{part}"] = _table(
                _merged(there, "probes"), f"{name}: R2 of the true factor from a linear probe"
            )
            kinds = {
                f"{kind}, {feature}": values
                for kind in ("equivariance", "invariance")
                for feature, values in _merged(there, kind).items()
            }
            pictures[f"errors_{part}"] = _table(
                kinds, f"{name}: error when one factor changes (0 none, 1 as the spread)"
            )
    if interpolation := metrics.get("affine_capsules", {}).get("interpolation"):
        pictures |= _interpolation(interpolation)
    return pictures


def _interpolation(found: Mapping[str, dict[str, Any]]) -> dict[str, Figure]:
    kinds = {
        "moved": "poses moved linearly",
        "own": "the true picture's own pose",
        "mixed": "mixture of pictures",
    }
    names = [name.replace("_", " ") for name in found]
    series = {
        f"{name}: {said}": values[kind]
        for name, values in zip(names, found.values(), strict=True)
        for kind, said in kinds.items()
    }
    images = [picture(values["picture"], 3, len(ALONG)) for values in found.values()]
    rows = ["true picture", kinds["moved"], kinds["own"]]
    return {
        "interpolation": figures.curves(
            ALONG,
            series,
            xlabel="place on the line: the poses at 0 and 1 are given",
            ylabel="squared error a pixel",
        ),
        "interpolated": figures.image_grid(
            np.concatenate(images),
            [f"{name}: {row}" for name in names for row in rows],
            [f"{place:g}" for place in ALONG],
            title="a digit at places on a line: the poses at 0 and 1 are given",
        ),
    }


def _dimensions(found: dict[str, Any]) -> dict[str, Figure]:
    effects = np.array(found["effects"], float)
    names = digit_shapes.names(effects, found["threshold"])
    shown, dims = found["shown"], effects.shape[1]
    rows = [f"{dim}: {_short(names[shown][dim])}" for dim in range(dims)]
    unit = "change in spreads"
    # Of a class without a digit nothing is known.
    strongest = np.where(np.isnan(effects).any(-1), np.nan, np.abs(effects).max(-1))
    pictures = {
        "perturbations": figures.image_grid(
            picture(found["picture"], dims, len(OFFSETS)),
            rows,
            [f"{offset:+.2f}" for offset in OFFSETS],
            title=f"a {shown}, each dimension of its capsule perturbed",
        ),
        "names": figures.table(
            strongest.T,
            [f"dimension {dim}" for dim in range(dims)],
            [f"digit {number}" for number in range(len(effects))],
            largest=4,
            label=unit,
            title="strongest property of every dimension, from -0.25 to 0.25",
            texts=[[_short(row[dim]) for row in names] for dim in range(dims)],
        ),
    }
    if not np.isnan(effects[shown]).any():
        pictures["effects"] = figures.table(
            effects[shown],
            rows,
            [_short(name) for name in digit_shapes.PROPERTIES],
            largest=4,
            label=unit,
            title=f"digit {shown}: each property along each dimension, from -0.25 to 0.25",
        )
    return pictures


def _table(values: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    columns = list(next(iter(values.values())))
    numbers = np.array([[row[column] for column in columns] for row in values.values()])
    texts = [[f"{number:.2f}" for number in row] for row in numbers]
    return figures.table(
        numbers.clip(0, None),  # an R2 below 0 is as white as 0
        list(values),
        [column.replace("_", " ") for column in columns],
        largest=1,
        label="from 0 to 1 or more",
        texts=texts,
        title=title,
    )


def lines(metrics: Metrics) -> list[Line]:
    """Of the report."""
    found = []
    if "mnist_capsules" in metrics:
        found.append(_dimension_line(metrics["mnist_capsules"]))
    for part, name in _DATA.items():
        there = _of(metrics, part)
        if there:
            found += [_probe_line(name, there), _error_line(name, there)]
    interpolation = metrics.get("affine_capsules", {}).get("interpolation", {})
    found += [_interpolation_line(name, of) for name, of in interpolation.items()]
    return found


def _dimension_line(found: dict[str, Any]) -> Line:
    effects = np.array(found["effects"], float)
    present = effects[~np.isnan(effects).all((1, 2))]
    counts = Counter(n for row in digit_shapes.names(present, found["threshold"]) for n in row)
    total = counts.total()
    kinds = ", ".join(f"{_short(n)} {c}" for n, c in counts.most_common() if n != "none")
    if not kinds:
        kinds = "no property is strong enough"
    random = np.array(found["random_purity"])
    fewer = int((random < found["purity"]).sum())
    verdict = "more" if fewer == len(random) else "no more"
    return Line(
        f"MNIST: dimensions of the class capsules that a property of the decoded digit names "
        f"(it changes by {found['threshold']:g} spreads or more from -0.25 to 0.25)",
        "each has a meaning: scale, thickness, skew, width, shift, a part (shown, not measured)",
        f"{total - counts['none']} of {total}, {share(1 - counts['none'] / total)} (directions of "
        f"random rotations {share(float(np.mean(found['random_named'])))}): {kinds}; test error "
        f"{share(found['test_error'], found['test_error_interval_95'])} of "
        f"{found['test_images']:,} images, one seed",
        f"the strongest property is {found['purity']:.2f} of all changes along a dimension, and "
        f"{random.mean():.2f} (at most {random.max():.2f}) along the directions of random "
        f"rotations: the dimensions are purer than those of {fewer} of {len(random)}, so that one "
        f"means {verdict} than any other direction; 0.25 is "
        f"{0.25 / max(found['pose_spread'], 1e-9):.1f} times the standard deviation of a dimension "
        "between digits of a class; what only a part of a digit does has no name here",
        Brief(
            "dimensions of class capsules that change a property of the digit they draw",
            "each (shown, not measured)",
            f"{share(1 - counts['none'] / total)}; of directions drawn at random "
            f"{share(float(np.mean(found['random_named'])))}",
        ),
    )


def _probe_line(name: str, there: Metrics) -> Line:
    probes = _merged(there, "probes")
    factors = list(next(iter(probes.values())))
    each = "; ".join(f"{feature}: {_listed(values)}" for feature, values in probes.items())
    return Line(
        f"{name}: R2 of {', '.join(f.replace('_', ' ') for f in factors)} from a linear probe",
        _CLAIMED,
        each,
        _errors(name, there),
    )


def _error_line(name: str, there: Metrics) -> Line:
    left, moved = (_merged(there, kind) for kind in ("equivariance", "invariance"))
    changes = [change.replace("_", " ") for change in next(iter(left.values()))]
    # Two images are twice as far apart, squared, as each is from the mean.
    parts = [
        f"{feature} "
        + ", ".join(
            f"{left[feature][change]:.2f} of {2 * far:.2f}" for change, far in by_change.items()
        )
        for feature, by_change in moved.items()
        if feature in left
    ]
    parts += [
        f"{feature} move by {_listed({c: 2 * far for c, far in by_change.items()})}"
        for feature, by_change in moved.items()
        if feature not in left
    ]
    return Line(
        f"{name}: what an affine map leaves unexplained of how far features move, under changes of "
        f"{', '.join(changes)}",
        _CLAIMED,
        "; ".join(parts),
        "one seed; in variances between images. An equivariant pose moves and leaves "
        "little of it; where it leaves as much as it moves, nothing follows the change; an "
        "invariant activation does not move",
    )


def _interpolation_line(name: str, found: dict[str, Any]) -> Line:
    def at(place: float) -> str:
        one = int(np.flatnonzero(place == ALONG)[0])
        moved, own, mixed = (found[kind][one] for kind in ("moved", "own", "mixed"))
        return (
            f"{moved:.4f} (the true picture's own pose {own:.4f}, mixture of pictures {mixed:.4f})"
        )

    low, high = ENDS[name]
    return Line(
        f"synthetic affNIST: poses of a digit at {name.replace('_', ' ')} {low:g} and {high:g} "
        "moved linearly: squared error a pixel of the decoded picture",
        _CLAIMED,
        f"half way {at(0.5)}; beyond by half the way {at(1.5)}",
        "one seed; a moved pose as good as the true one's says little where the mixture is nearer: "
        "the decoder does not draw what changes",
    )


def _of(metrics: Metrics, part: str) -> dict[str, dict[str, Any]]:
    return {name: found for name, found in metrics.items() if name.startswith(f"{part}_")}


def _merged(there: Metrics, kind: str) -> dict[str, dict[str, float]]:
    """By feature, the capsules' first; activations by the network that they are of."""
    merged = {}
    for name, found in there.items():
        network = "CNN" if name.endswith("cnn") else "capsule"
        for feature, values in found[kind].items():
            merged[f"{network} activations" if feature == "activations" else feature] = values
    capsules_first = sorted(merged, key=lambda feature: feature.startswith("CNN"))
    return {feature: merged[feature] for feature in capsules_first}


def _errors(name: str, there: Metrics) -> str:
    # Images of one toy are alike: the interval says nothing of other toys.
    toys = ", intervals over images, of 25 toys" if name == _DATA["toys"] else ""
    return f"one seed; networks not matched; test errors{toys}: " + ", ".join(
        f"{'CNN' if name.endswith('cnn') else 'capsules'} "
        f"{share(found['test_error'], found['test_error_interval_95'])} "
        f"({found['test_images']:,} images; {found['encoder_parameters']:,} parameters"
        f"{'' if name.endswith('cnn') else ' and a decoder, by which they learn to draw as well'})"
        for name, found in there.items()
    )


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values.values())


def _short(name: str) -> str:
    return _SHORT.get(name, name)
