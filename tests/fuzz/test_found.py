"""What fuzzing found, one case each, pinned."""

import io
import math
import os
import struct
import tarfile
import types
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Float
from PIL import Image

from capsjax import checks, data, models, serial
from capsjax.analysis import attacks, probes
from capsjax.data import readers, warp
from capsjax.data.files import read_image
from capsjax.figures import confusion
from capsjax.models import capsnet
from capsjax.ops import convolution
from capsjax.ops.squash import safe_norm, squash
from capsjax.ops.votes import add_coordinates
from capsjax.routing import dynamic, em, measures, self_attention, sums
from capsjax.training import Config, losses, metric_log
from capsjax.training.metrics import accuracy, confusion_matrix, exact_match
from capsjax.training.settings import read_settings

NAN = float("nan")


def test_a_nan_in_a_vector_is_a_nan_in_its_length():
    # It was 0, and with it the scores of the vote attack and whatever looks at a pose's length.
    x = jnp.array([[NAN, 1.0], [3.0, 4.0]])
    assert np.isnan(safe_norm(x)[0])
    assert safe_norm(x)[1] == 5
    assert np.isnan(squash(x)[0]).all()
    assert np.isnan(attacks.vote_scores(jnp.full((2, 3, 4), NAN))).all()


def test_an_example_with_a_nan_is_not_right():
    # argmax and top_k take the NaN for the largest.
    activations = jnp.array([[NAN, 0.1, 0.2], [0.1, 0.9, 0.2]])
    assert accuracy(activations, jnp.array([0, 1])) == 0.5
    assert exact_match(activations, jnp.array([[0, 2], [1, 2]])) == 0.5


def test_a_parent_whose_activation_is_nan_is_not_alive():
    assert np.isnan(measures.dead_share(jnp.array([[0.5, NAN]])))


def test_labels_of_no_class_are_not_counted_as_another():
    with pytest.raises(ValueError, match="labels are from -1 to 0, expected 0 to 1"):
        confusion_matrix(jnp.array([0, 1]), jnp.array([-1, 0]), 2)
    count = jax.jit(confusion_matrix, static_argnums=2)
    assert count(jnp.array([0, 1]), jnp.array([-1, 0]), 2).tolist() == [[0, 1], [0, 0]]


def test_rows_that_divide_nothing_are_refused():
    with pytest.raises(ValueError, match="rows is 0, expected a divisor"):
        add_coordinates(jnp.zeros((1, 2, 4, 1)), jnp.zeros((1, 2)), rows=0)


def test_parameters_of_other_sizes_are_refused_before_they_broadcast():
    votes, parents = jnp.ones((3, 4, 6)), {"beta_a": jnp.zeros(2), "beta_u": jnp.zeros(3)}
    children = em.Capsules(jnp.ones((6, 5)), jnp.ones(6))
    with pytest.raises(ValueError, match=r"beta_a is float32 \(2,\), expected float \(3,\)"):
        em.route(votes, children, parents)
    with pytest.raises(ValueError, match=r"prior is float32 \(3, 1\), expected float \(3, 6\)"):
        self_attention.route(votes, params={"prior": jnp.zeros((3, 1))})
    with pytest.raises(TypeError, match="params is 'bias', expected a dictionary"):
        dynamic.route(votes, params="bias", config=dynamic.Config(bias=True))


@pytest.mark.parametrize(
    ("kind", "field", "value", "error"),
    [
        (losses.Config, "absent_weight", NAN, ValueError),
        (losses.Config, "reconstruction_weight", math.inf, ValueError),
        (Config, "epochs", 2.5, TypeError),
        (Config, "batch_size", "128", TypeError),
        (Config, "seed", True, TypeError),
        (dynamic.Config, "num_iterations", 2.5, TypeError),
        (dynamic.Config, "leaky", "no", TypeError),
        (capsnet.Config, "decoder_widths", [16], TypeError),
        (capsnet.Config, "hidden", ("a",), TypeError),
    ],
)
def test_a_config_has_the_types_that_it_says(kind, field, value, error):
    with pytest.raises(error, match=rf"{field} is .*, expected"):
        kind(**{field: value})


def test_a_step_that_float32_does_not_hold_is_refused():
    with pytest.raises(ValueError, match="epsilon is 1e"):
        attacks.fgsm(jnp.sum, jnp.ones(2) / 2, epsilon=1e308)
    with pytest.raises(ValueError, match=r"epsilon is inf, expected .* not negative, nor too"):
        attacks.fgsm(jnp.sum, jnp.ones(2) / 2, epsilon=math.inf)


def test_complex_features_do_not_lose_their_imaginary_part():
    with pytest.raises(TypeError, match=r"degrees is complex128 \(1,\), expected .* numbers"):
        probes.circular(np.array([1j]))


@pytest.mark.parametrize("size", [(0, 28, 1), (28, -1, 1)])
def test_images_without_pixels_make_no_network(size):
    with pytest.raises(ValueError, match=r"image_shape is .* expected sizes of at least 1"):
        models.create("capsnet", image_shape=size)


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\0b"])
def test_names_that_no_file_has_are_unknown_data_sets(name):
    with pytest.raises(ValueError, match="unknown dataset"):
        data.find(name)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match="is no regular file, expected one"):
        read_image(tmp_path / "a.png")


def test_json_that_is_nested_too_deep_is_a_value_error(tmp_path):
    deep = "[" * 100_000 + "]" * 100_000
    (tmp_path / "config.json").write_text(deep)
    with pytest.raises(ValueError, match="nested too deep"):
        read_settings(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(deep + '\n{"step": 1}\n')
    with pytest.raises(ValueError, match=r"line 1, is not .*nested too deep"):
        metric_log.read(tmp_path / "metrics.jsonl")


def test_settings_without_their_routing_s_algorithm_say_so():
    values = serial.to_json(capsnet.Config())
    del values["routing"]["algorithm"]
    with pytest.raises(TypeError, match="routing has no algorithm, expected"):
        serial.from_json(capsnet.Config, values)


def test_a_line_of_metrics_that_is_no_object_is_refused(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('3\n{"step": 1}\n')
    with pytest.raises(ValueError, match="line 1"):
        metric_log.read(tmp_path / "metrics.jsonl")


def test_an_image_of_100_million_pixels_is_refused_where_a_warning_was_given(tmp_path):
    buffer = io.BytesIO()
    Image.new("1", (8, 8)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = struct.pack(">II", 10_000, 10_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match="has too many pixels"):
        read_image(tmp_path / "a.png")


def test_an_archive_s_link_to_itself_ends(tmp_path):
    member = tarfile.TarInfo("data_batch_1.bin")
    member.type, member.linkname = tarfile.SYMTYPE, "data_batch_1.bin"
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.addfile(member)
    with pytest.raises(ValueError, match="is not a complete"):
        readers.read_cifar10(tmp_path / "a.tar.gz")


def test_checks_know_traced_arrays_and_say_which_argument():
    @checks.arguments
    def scaled(x: Float[jax.Array, "n m"], by: float = 1.0):
        return x * by

    assert jax.jit(jax.vmap(scaled))(jnp.ones((2, 3, 4))).shape == (2, 3, 4)
    assert scaled(np.ones((3, 4), np.float32), 2).shape == (3, 4)
    with pytest.raises(ValueError, match=r"scaled: x is float32 \(3,\), expected float \[n, m\]"):
        jax.jit(scaled)(jnp.ones(3))
    with pytest.raises(TypeError, match="scaled: by is 'a', expected a number"):
        scaled(jnp.ones((3, 4)), by="a")


def test_unsigned_labels_and_narrow_ones_are_labels():
    activations = jnp.array([[0.1, 0.9], [0.8, 0.2]])
    for kind in (np.uint8, np.int8, np.uint32):
        assert accuracy(activations, np.array([1, 1], kind)) == 0.5
        assert exact_match(activations, np.array([[1, 0], [0, 1]], kind)) == 1
        counts = confusion_matrix(np.array([1, 0], kind), np.array([1, 1], kind), 200)
        assert counts[:2, :2].tolist() == [[0, 0], [1, 1]]


def test_a_missing_argument_names_the_function():
    with pytest.raises(
        TypeError, match=r"route\(\) missing 1 required positional argument: 'votes'"
    ):
        dynamic.route()


@pytest.mark.parametrize("digits", [400, 5000])  # of more than 4300 Python writes none
def test_whole_numbers_of_any_length_are_refused_in_words(digits):
    number = 10**digits
    with pytest.raises(ValueError, match="is a whole number of more than 64 bits, expected"):
        attacks.fgsm(jnp.sum, jnp.ones(3), epsilon=number)
    with pytest.raises(ValueError, match="is a whole number of more than 64 bits, expected"):
        dynamic.Config(num_iterations=number)


def test_numbers_of_numpy_in_a_config_are_written_as_plain_ones():
    config = Config(epochs=np.int64(3), learning_rate=np.float32(0.5))
    assert serial.to_json(config)["epochs"] == 3
    assert serial.from_json(Config, serial.to_json(config)) == config
    with pytest.raises(TypeError, match="plain numbers"):
        Config(epochs=jnp.int32(3))
    with pytest.raises(ValueError, match="finite"):
        em.Config(final_inverse_temperature=np.float32("inf"))


def test_mappings_and_arrays_of_names_are_taken():
    params = {"logits": jnp.zeros((3, 2))}
    assert sums.need(types.MappingProxyType(params), "logits")["logits"] is params["logits"]
    confusion(np.eye(2, dtype=int), np.array(["cat", "dog"]))


def test_images_of_bytes_are_told_how_to_become_floats():
    with pytest.raises(ValueError, match=r"uint8 \(2, 2, 1\), expected .* divided by 255"):
        attacks.fgsm(jnp.sum, np.zeros((2, 2, 1), np.uint8), epsilon=0.1)


def test_more_classes_than_anyone_has_are_refused_before_they_are_named(caplog):
    images = np.zeros((20, 8, 8), np.uint8)
    with pytest.raises(ValueError, match="labels up to 2000000000, expected less than 100000"):
        data.from_arrays(images, np.full(20, 2_000_000_000))
    data.from_arrays(images, np.full(20, 9))
    assert "no image of class 0, 1, 2, 3, 4 and 4 more" in caplog.text


@pytest.mark.parametrize("scale", [0, 0.0, 1e-30])
def test_a_scale_without_an_inverse_is_refused(scale):
    with pytest.raises(ValueError, match=r"scale_x is .*, expected at least 1e-06"):
        warp.affine_matrix(scale_x=scale)


def test_a_convolution_of_two_dtypes_is_refused_in_words():
    images, kernel = jnp.ones((1, 4, 4, 1), jnp.float16), jnp.ones((3, 3, 1, 1))
    for function in (convolution.conv2d, convolution.depthwise_conv2d):
        with pytest.raises(TypeError, match="images are float16, the kernel float32, expected one"):
            function(images, kernel)
