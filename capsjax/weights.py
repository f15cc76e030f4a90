"""A network in one safetensors file: ``save`` writes it, ``load`` reads it back.

The file holds every array of the network under its dotted path, so that any program that reads
safetensors finds them::

    primary.kernel                   [rows, columns, channels, types * dim]
    classes.votes.weights            [inner, parents, columns, children]
    classes.routing.params.prior     [parents, children]
    convolutions.0.kernel            [rows, columns, channels, features]
    normalisations.0.mean            [features], a running statistic
    decoder.layers.0.kernel          [inputs, outputs]
    decoder.layers.0.bias            [outputs]

A number is a place in a list. A vector pose of ``child_dim`` numbers is multiplied from the right
by one matrix for each pair of child and parent: ``inner`` is ``child_dim`` and ``columns`` the
parent's dimension; a 4x4 matrix pose has 4 and 4. Convolutional capsules with weights of their own
at each position have its row and column before these. A depthwise convolution's kernel is
``[rows, columns, 1, channels]``. Batch and instance normalisations have ``scale`` and ``bias``
``[features]``, and the first also ``mean`` and ``var``, which are no parameters. Learned parameters
of a routing are below ``routing.params``, with the axis orders that ``capsjax routings`` lists.

The file's metadata holds strings, each of them JSON:

``format``      "capsjax weights 1"
``capsjax``     version of the library that wrote it
``model``       name of the network, as listed by ``capsjax models``
``config``      its choices; its routing by ``algorithm``, a name or a user's own module
``image_shape`` height, width and channels
``num_classes`` number of classes
``statistics``  names of the arrays that are no parameters: running means and variances, and
                dropout's seed and number of calls
``metadata``    whatever else was given to ``save``
``sha256``      checksum of all the above and of the arrays

States of Flax's random generators are not stored. A routing of one's own is imported by the name
of its module, which therefore has to be at hand where the file is loaded.
"""

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from capsjax import checks, models
from capsjax.serial import from_json, parse, to_json

FORMAT = "capsjax weights 1"
_VERSION = importlib.metadata.version("capsjax")
# States of random generators are left out.
_STORED = nnx.Not(nnx.RngState)


@checks.arguments
def save(
    path: str | Path,
    model: nnx.Module,
    *,
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    dtype: Literal["bfloat16", "float16"] | None = None,
) -> None:
    """Write a network to a file; one of that name is replaced, once the new one is complete.

    Args:
        path: of the file; ``.safetensors`` is the usual ending.
        model: a network of ``models.create``.
        name: of the network in ``models.MODELS``; None finds it.
        metadata: anything else to keep with it, as JSON values.
        dtype: store floating arrays so, at half of float32's size; None stores them as they are.

    Raises:
        ValueError: the network is none of ``models.MODELS`` or not the one of that name, its config
            or the metadata cannot be written as JSON, or a number is too large for ``dtype``.
        OSError: the file cannot be written; the old one stays as it was.

    Example:
        >>> save("digits.safetensors", capsjax.load("runs/mnist").model)  # doctest: +SKIP
    """
    if dtype not in (None, "bfloat16", "float16"):
        raise ValueError(f"dtype is {dtype!r}, expected None, 'bfloat16' or 'float16'")
    network: Any = model
    name = _name_of(network, name)
    leaves = _by_name(nnx.state(network, _STORED))
    arrays = {key: _stored(key, leaf, dtype) for key, leaf in leaves.items()}
    values = {
        "format": FORMAT,
        "capsjax": _VERSION,
        "model": name,
        "config": _config_json(network.config),
        "image_shape": network.image_shape,
        "num_classes": network.num_classes,
        "statistics": [key for key, leaf in leaves.items() if not isinstance(leaf, nnx.Param)],
        "metadata": _checked_json(dict(metadata or {})),
    }
    texts = {key: json.dumps(value) for key, value in values.items()}
    texts["sha256"] = json.dumps(_checksum(texts, arrays))
    _replace(Path(path), safetensors.numpy.save(arrays, texts))


@checks.arguments
def load(path: str | Path) -> nnx.Module:
    """A network from a file that ``save`` wrote.

    Names and shapes are compared with the network of the file's config before anything is built.
    No initial parameters are drawn. Reduced floats become float32; float64 stays what it is under
    ``jax_enable_x64``, and becomes float32 without.

    Args:
        path: of the file.

    Returns:
        The network. Its batch normalisations use the batch's statistics until ``eval()``, as in a
        new one.

    Raises:
        ValueError: the file is damaged or not one of ``save``'s, or this version of the library
            has no such network, config or arrays.
        OSError: it cannot be read.

    Example:
        >>> import tempfile
        >>> from capsjax import load_pretrained
        >>> trained = load_pretrained("efficient_capsnet_mnist").model
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/digits.safetensors", trained)
        ...     network = load(f"{folder}/digits.safetensors")
        >>> bool((network.primary.kernel[...] == trained.primary.kernel[...]).all())
        True
    """
    values, arrays = _read(path)
    build, abstract = _described(path, values)
    graph, *states = nnx.split(abstract, _STORED, ...)
    state, random = states
    wanted = {key: tuple(leaf.shape) for key, leaf in _by_name(state).items()}
    _compare(path, {key: array.shape for key, array in arrays.items()}, wanted)
    filled = [(keys, _filled(leaf, arrays[_join(keys)])) for keys, leaf in nnx.to_flat_state(state)]
    if jax.tree.leaves(random):
        # Compiled, so that only these are computed.
        random = jax.jit(lambda: nnx.state(build(), nnx.RngState))()
    return nnx.merge(graph, nnx.from_flat_state(filled), random)


@checks.arguments
def read_metadata(path: str | Path) -> dict[str, Any]:
    """What a file says about its network, as the module's docstring lists it.

    Args:
        path: of a file that ``save`` wrote.

    Returns:
        The values by name, without the checksum, which is verified.

    Raises:
        ValueError: the file is damaged or not one of ``save``'s.
        OSError: it cannot be read.

    Example:
        >>> import tempfile
        >>> from capsjax import load_pretrained
        >>> trained = load_pretrained("efficient_capsnet_mnist").model
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/digits.safetensors", trained, metadata={"author": "me"})
        ...     said = read_metadata(f"{folder}/digits.safetensors")
        >>> said["model"], said["num_classes"], said["metadata"]
        ('efficient_capsnet', 10, {'author': 'me'})
    """
    values, _ = _read(path)
    return {key: value for key, value in values.items() if key != "sha256"}


def _name_of(network: Any, name: str | None) -> str:
    """The network's name: the one whose config or form it has, where several share a class."""
    config = getattr(network, "config", None)
    fitting = {
        known: model
        for known, model in models.MODELS.items()
        if type(network) is model.network and type(config) is type(model.config)
    }
    if not fitting:
        raise ValueError(
            f"{type(network).__module__}.{type(network).__name__} is none of the networks that "
            f"load can make, expected one of: {', '.join(models.MODELS)}"
        )
    if name is None:
        exact = [
            known
            for known, model in fitting.items()
            if config in (model.config, *(form.config for form in model.forms))
        ]
        return (exact or list(fitting))[0]
    models.find(name)
    if name not in fitting:
        raise ValueError(f"name is {name!r}, but the network is: {' or '.join(fitting)}")
    return name


def _config_json(config: Any) -> dict[str, Any]:
    try:
        values = to_json(config)
        same = from_json(type(config), values) == config
    except (TypeError, LookupError) as error:
        raise ValueError(f"{config!r} cannot be written as JSON ({error})") from error
    if not same:
        raise ValueError(
            f"{config!r} does not come back from JSON as it is: use numbers, strings, booleans, "
            "None, tuples of these, and config dataclasses"
        )
    return values


def _checked_json(metadata: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(metadata)
    except (TypeError, ValueError) as error:
        raise ValueError(f"metadata cannot be written as JSON ({error})") from error
    return metadata


def _join(keys: tuple[Any, ...]) -> str:
    return ".".join(map(str, keys))


def _by_name(state: Any) -> dict[str, Any]:
    return {_join(keys): leaf for keys, leaf in nnx.to_flat_state(state)}


def _stored(name: str, leaf: Any, dtype: str | None) -> np.ndarray:
    """A variable's array, its axes in memory in their order: safetensors writes what is there."""
    array = np.asarray(leaf.get_value() if isinstance(leaf, nnx.Variable) else leaf, order="C")
    if dtype is None or not jnp.issubdtype(array.dtype, np.floating):
        return array
    with np.errstate(over="ignore"):
        reduced = array.astype(jnp.dtype(dtype))
    lost = np.isfinite(array) & ~np.isfinite(reduced.astype(np.float32))
    if lost.any():
        raise ValueError(
            f"{name} holds {array[lost].flat[0]}, which is too large for {dtype}: use bfloat16, or "
            "no dtype"
        )
    return reduced


def _filled(leaf: Any, array: np.ndarray) -> Any:
    if array.dtype in (jnp.bfloat16, np.float16):
        array = array.astype(np.float32)
    value = jnp.asarray(array)
    return leaf.replace(value) if isinstance(leaf, nnx.Variable) else value


def _checksum(texts: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    described = {key: text for key, text in texts.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.name} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _replace(path: Path, content: bytes) -> None:
    partial_path = path.with_name(path.name + ".partial")
    try:
        with partial_path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial_path.replace(path)
    finally:
        partial_path.unlink(missing_ok=True)


def _read(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metadata and arrays of an undamaged file of ours."""
    checks.regular(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            texts = file.metadata() or {}
            if "format" not in texts or "sha256" not in texts:
                raise ValueError(
                    f"{path} is a safetensors file, but not one of capsjax: its metadata has no "
                    "format and sha256; use one that capsjax.weights.save wrote"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is no safetensors file, or a damaged one ({error}): copy or save it anew"
        ) from error
    if texts["sha256"] != json.dumps(_checksum(texts, arrays)):
        raise ValueError(
            f"{path} is damaged: its checksum is not that of its contents; copy or save it anew"
        )
    try:
        values = {key: parse(text) for key, text in texts.items()}
    except ValueError as error:
        raise ValueError(f"{path} has metadata that is not JSON ({error}): save it anew") from error
    if values["format"] != FORMAT:
        raise ValueError(
            f"{path} has the format {values['format']!r}, expected {FORMAT!r}: load it with the "
            "version of capsjax that wrote it"
        )
    return values, arrays


def _described(path: str | Path, values: Mapping[str, Any]) -> tuple[Any, Any]:
    """What makes the network that a file's metadata describes, and that network without values."""
    try:
        kind = type(models.find(values["model"]).config)
        build = partial(
            models.create,
            values["model"],
            config=from_json(kind, values["config"]),
            image_shape=tuple(values["image_shape"]),
            num_classes=values["num_classes"],
        )
        return build, nnx.eval_shape(build)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(
            f"{path} was written by capsjax {values.get('capsjax')}, and its network does not fit "
            f"this one, {_VERSION} ({error}): load it with the version that wrote it"
        ) from error


def _compare(
    path: str | Path, found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]
) -> None:
    """Refuse a file whose arrays are not those of the network."""
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is unknown" for name in found if name not in wanted]
    problems += [
        f"{name} has shape {found[name]}, expected {shape}"
        for name, shape in wanted.items()
        if found.get(name, shape) != shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(
            f"{path} does not hold the network that it describes: {'; '.join(problems[:5])}{more}; "
            "load it with the version of capsjax that wrote it"
        )
