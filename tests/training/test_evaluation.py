"""Predictions in batches and the evaluation of them, against counts by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax.training.evaluation import Prediction, check_labels, evaluate, predict
from capsjax.types import Output
from tests.training.small import (
    Pair,
    assert_same_bits,
    digits,
    narrow_network,
    pairs_of,
    parameters,
)


class Reader(nnx.Module):
    """Predicts the class that an image's first pixel names; reconstructs half of every pixel."""

    def __init__(self, num_classes: int = 4):
        self.num_classes = num_classes
        self.sureness = nnx.Param(jnp.asarray(0.75))
        self.calls = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.in_training = True

    def eval(self, **attributes: Any) -> "Reader":
        self.in_training = False
        return self

    def __call__(self, images: jax.Array, targets: jax.Array | None = None) -> Output:
        if self.in_training:
            raise AssertionError("called in training mode")
        self.calls[...] = self.calls[...] + 1
        named = jnp.round(images[:, 0, 0, 0] * 255).astype(int)
        activations = self.sureness[...] * jax.nn.one_hot(named, self.num_classes)
        return Output(activations[..., None], activations, images / 2, ())


def naming(classes: Any, size: int = 3) -> np.ndarray:
    """Images whose first pixel names a class and whose others count."""
    images = np.zeros((len(classes), size, size, 1), np.uint8)
    images[..., 1:, :] = 200
    images[:, 0, 0, 0] = classes
    return images


TRUE = [0, 0, 0, 0, 0, 1, 1, 1, 3, 3]
SAID = [0, 0, 0, 2, 3, 1, 1, 0, 3, 3]


@pytest.mark.core
def test_confusion_and_class_errors_are_those_counted_by_hand() -> None:
    found = evaluate(Reader(), {"image": naming(SAID), "label": np.array(TRUE)})
    assert found.confusion.tolist() == [[3, 0, 1, 1], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 2]]
    assert (found.errors, found.total, found.error) == (3, 10, 0.3)
    assert found.class_errors == [2 / 5, 1 / 3, None, 0.0]
    assert found.prediction.labels.tolist() == SAID


PAIRS_SAID = [(0, 1), (2, 3), (1, 0), (3, 0), (2, 0)]
PAIRS_TRUE = [(1, 0), (2, 1), (1, 3), (1, 2), (2, 0)]


@pytest.mark.core
def test_of_two_classes_an_image_the_set_has_to_be_right() -> None:
    found = evaluate(Pair(), pairs_of(PAIRS_SAID, PAIRS_TRUE), reconstruct=True)
    # The first and the last are right; the second and the third miss one each, the fourth both.
    assert (found.errors, found.total, found.error) == (3, 5, 0.6)
    assert found.digit_error == 4 / 10
    assert found.shown.tolist() == [2, 4, 3, 1]
    assert found.missed.tolist() == [0, 2, 1, 1]
    assert found.class_errors == [0.0, 0.5, 1 / 3, 1.0]
    assert found.confusion is None
    assert found.prediction.labels.tolist() == [list(pair) for pair in PAIRS_SAID]
    assert found.prediction.labels.dtype == np.int32
    assert found.prediction.reconstructions is not None
    assert found.prediction.reconstructions.shape == (5, 2, 4, 4, 1)


def test_of_one_class_an_image_the_digit_error_is_the_error() -> None:
    found = evaluate(Reader(), {"image": naming(SAID), "label": np.array(TRUE)})
    assert found.digit_error == 0.3
    assert found.shown.tolist() == [5, 3, 0, 2]
    assert found.missed.tolist() == [2, 1, 0, 0]


@pytest.mark.core
def test_more_classes_than_there_are_cannot_be_named() -> None:
    images = pairs_of(PAIRS_SAID, PAIRS_TRUE)["image"]
    assert predict(Pair(), images, classes_per_image=4).labels.shape == (5, 4)
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"classes_per_image is {count}, expected 1 to 4"):
            predict(Pair(), images, classes_per_image=count)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": np.array([[1, 1]] * 5)}, "the same label twice, expected 2 different"),
        ({"label": np.zeros((5, 0), int)}, r"labels int64 \(5, 0\)"),
        ({"label": np.zeros((5, 2, 1), int)}, r"labels int64 \(5, 2, 1\)"),
        ({"label": np.array([[1, 4]] * 5)}, "labels out of range"),
        ({"sources": np.zeros((5, 2, 3, 4, 1), np.uint8)}, r"sources uint8 \(5, 2, 3, 4, 1\)"),
        ({"sources": np.zeros((5, 2, 4, 4, 1))}, "sources float64"),
    ],
)
def test_malformed_pairs_are_refused(changes: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        evaluate(Pair(), {**pairs_of(PAIRS_SAID, PAIRS_TRUE), **changes})


@pytest.mark.core
def test_a_recipe_prepares_the_images_as_in_testing() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    found = predict(Pair(3), images, recipe="cifar10_sabour").activations
    # The middle 24x24, each image with mean 0 and standard deviation 1.
    middle = images[:, 4:28, 4:28].astype(float)
    mean = middle.mean((1, 2, 3), keepdims=True)
    expected = (middle - mean) / middle.std((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(found, 0.5 * expected[:, 0, :3, 0], rtol=1e-4)


def test_images_that_a_recipe_is_not_made_for_are_refused() -> None:
    with pytest.raises(ValueError, match=r"images are 28x28, recipe 'cifar10_sabour' .* 32x32"):
        predict(Pair(3), np.zeros((1, 28, 28, 3), np.uint8), recipe="cifar10_sabour")


@pytest.mark.core
def test_the_interval_is_wilson_s() -> None:
    said = [0] * 9 + [1]
    found = evaluate(Reader(), {"image": naming(said), "label": np.zeros(10, int)})
    # 1 of 10, as tabulated: 1.79 % to 40.42 %.
    assert found.interval == pytest.approx((0.0179, 0.4042), abs=5e-5)


@pytest.mark.core
@pytest.mark.parametrize("count", [1, 99, 100, 101, 250])
def test_any_number_of_images_is_predicted_in_order(count: int) -> None:
    said = np.random.default_rng(count).integers(0, 4, count)
    images = naming(said)
    found = predict(Reader(), images, reconstruct=True)
    assert isinstance(found, Prediction)
    assert (found.labels.dtype, found.activations.dtype) == (np.int32, np.float32)
    assert found.labels.tolist() == said.tolist()
    np.testing.assert_array_equal(found.activations, 0.75 * np.eye(4)[said])
    assert found.reconstructions is not None
    np.testing.assert_allclose(found.reconstructions, images / 510, rtol=1e-6)


def test_reconstructions_are_none_unless_asked_for() -> None:
    assert predict(Reader(), naming([1, 2])).reconstructions is None


def test_the_network_is_left_as_it_is() -> None:
    network = Reader()
    before = jax.tree.map(np.asarray, parameters(network))
    predict(network, naming([1, 2]))
    assert_same_bits(parameters(network), before)
    assert network.in_training


@pytest.mark.core
@pytest.mark.parametrize(
    ("images", "said"),
    [
        (naming([1]) / 255, r"float64 \(1, 3, 3, 1\)"),
        (naming([1]).astype(np.int32), r"int32 \(1, 3, 3, 1\)"),
        (naming([1])[0], r"uint8 \(3, 3, 1\)"),
        (naming([1])[..., 0], r"uint8 \(1, 3, 3\)"),
        (naming([]), r"\(0, 3, 3, 1\)"),
    ],
)
def test_images_of_a_wrong_dtype_or_shape_are_refused(images: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=f"{said}, expected uint8"):
        predict(Reader(), images)


def test_images_of_another_size_than_the_network_s_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(28, 28, 1\)"):
        predict(narrow_network(), np.zeros((2, 30, 30, 1), np.uint8))


@pytest.mark.core
@pytest.mark.parametrize("label", [4, 100])
def test_a_label_beyond_the_network_s_classes_is_refused(label: int) -> None:
    data = {"image": naming([0, 1]), "label": np.array([0, label])}
    with pytest.raises(ValueError, match=f"labels out of range.*0 to {label}.*4 classes.*0 to 3"):
        evaluate(Reader(), data)


def test_a_negative_label_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        evaluate(Reader(), {"image": naming([0, 1]), "label": np.array([0, -1])})
    with pytest.raises(ValueError, match=r"labels out of range.*-1 to 0"):
        check_labels(np.array([-1, 0]), 4)


def test_malformed_data_is_refused() -> None:
    with pytest.raises(ValueError, match="image"):
        evaluate(Reader(), {"label": np.array([0])})
    with pytest.raises(ValueError, match="2 images"):
        evaluate(Reader(), {"image": naming([0, 1]), "label": np.array([0])})


def test_a_class_that_no_image_has_may_be_predicted() -> None:
    found = evaluate(Reader(), {"image": naming([2, 2]), "label": np.array([0, 1])})
    assert found.error == 1
    assert found.confusion[:, 2].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
def test_every_precision_is_accepted_and_reaches_the_network(precision: str) -> None:
    seen = []

    class Spy(Reader):
        def __call__(self, images: jax.Array, targets: jax.Array | None = None) -> Output:
            seen.append(jax.config.jax_default_matmul_precision)
            return super().__call__(images, targets)

    predict(Spy(), naming([1]), precision=precision)
    assert {str(value) for value in seen} == {precision}


def test_an_image_alone_is_predicted_as_inside_a_batch() -> None:
    network, images = narrow_network(), digits(130, "test")["image"]
    together = predict(network, images).activations
    for index in (0, 99, 100, 129):
        alone = predict(network, images[index : index + 1]).activations
        np.testing.assert_allclose(alone[0], together[index], rtol=1e-5, atol=1e-7)


def test_the_same_shapes_are_compiled_once() -> None:
    network, images = narrow_network(), digits(30, "test")["image"]
    predict(network, images)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: compiled.append(name)
    )
    try:
        predict(network, images[:20])
        predict(narrow_network(), images)
    finally:
        jax.monitoring.clear_event_listeners()
    assert [name for name in compiled if "backend_compile" in name] == []
