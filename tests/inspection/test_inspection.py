"""Looking into a network changes nothing, and what is changed goes where it should."""

from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from capsjax import data, inspection, load_pretrained
from capsjax.cli import pictures
from capsjax.inspection import by_angle, capsule_layers, fields, moved, perturbed, see, turning
from capsjax.models import baselines, capsnet, efficient_capsnet
from capsjax.training import Config, run
from tests.models.test_all_models import NARROW as NARROW_OF_ALL
from tests.training.small import NARROW, digits

BASELINE = baselines.Config(
    features=(4, 4), kernel_sizes=(5, 3), strides=(4, 2), pools=(1, 1), hidden=()
)


def made(model, config):
    """A fresh network, as if it had been trained."""
    settings = run.settings_for(
        data.find("mnist"), name="mnist", model=model, model_config=config, training=Config()
    )
    network = settings.create()
    network.eval()
    return run.Run(network, settings)


@pytest.fixture(scope="module")
def narrow():
    return made("capsnet", NARROW)


@pytest.fixture(scope="module")
def images():
    return digits(3, "test")["image"]


def test_what_is_seen_is_what_the_network_says(narrow, images):
    seen = see(narrow, images, ["convolution", "primary"], trace=True)
    said = narrow.predict(images, reconstruct=True)
    np.testing.assert_allclose(seen.activations, said.activations, atol=1e-6)
    np.testing.assert_allclose(seen.reconstructions, said.reconstructions, atol=1e-6)
    x = jnp.asarray(images) / 255
    features = narrow.model.convolution(x)
    np.testing.assert_allclose(seen.layers["convolution"], features, atol=1e-6)
    np.testing.assert_allclose(
        seen.layers["primary"].poses,
        narrow.model.primary(jnp.maximum(features, 0)).poses,
        atol=1e-6,
    )
    (trace,), (coefficients,) = seen.traces, seen.coefficients
    assert trace.coefficients.shape == (3, 3, *coefficients.shape[1:])  # images, iterations
    np.testing.assert_allclose(trace.coefficients[:, -1], coefficients, atol=1e-6)
    lengths = np.linalg.norm(seen.poses, axis=-1)
    np.testing.assert_allclose(lengths, seen.activations, atol=1e-5)


def test_more_images_than_go_at_once_are_all_seen(narrow):
    many = digits(103, "test")["image"]
    seen = see(narrow, many, ["primary"])
    assert len(seen.activations) == len(seen.layers["primary"].poses) == 103
    np.testing.assert_allclose(seen.activations[-3:], see(narrow, many[-3:]).activations, atol=1e-6)


def test_a_moved_layer_moves_what_is_above_it(narrow, images):
    count, dim = capsule_layers(narrow)["primary"]
    move = np.zeros((3, count, dim), np.float32)
    move[1, 5, 2] = 0.5
    before, after = (
        see(narrow, images, ["primary"]),
        see(narrow, images, ["primary"], moves={"primary": move}),
    )
    changed = after.layers["primary"].poses - before.layers["primary"].poses
    np.testing.assert_allclose(changed.reshape(3, count, dim), move, atol=1e-6)
    np.testing.assert_allclose(after.poses[[0, 2]], before.poses[[0, 2]], atol=1e-6)
    assert np.abs(after.poses[1] - before.poses[1]).max() > 1e-4


def test_layers_of_capsules_are_found_with_their_sizes():
    hidden = capsnet.Config(
        features=4, kernel_size=3, primary_types=2, hidden=(7,), class_dim=4, decoder=False
    )
    # 28 less 2 is 26, by a kernel of 3 and a stride of 2 it is 12: 288 capsules.
    assert capsule_layers(made("capsnet", hidden)) == {
        "primary": (288, 8),
        "hidden.0": (7, 4),
        "classes": (10, 4),
    }
    assert capsule_layers(made("efficient_cnn", BASELINE)) == {}


def test_a_perturbed_class_capsule_is_decoded_alone(narrow, images):
    offsets = np.array([-0.2, 0.0, 0.2])
    drawn = perturbed(narrow, images[0], capsule=4, offsets=offsets)
    assert drawn.shape == (16, 3, 28, 28, 1)
    poses = np.zeros((1, 10, 16), np.float32)
    poses[0, 4] = see(narrow, images[:1]).poses[0, 4]
    poses[0, 4, 7] += 0.2
    mask = np.eye(10, dtype=np.float32)[4:5]
    np.testing.assert_allclose(drawn[7, 2], narrow.model.decoder(poses, mask)[0], atol=1e-5)
    for dim in range(1, 16):
        np.testing.assert_allclose(drawn[dim, 1], drawn[0, 1], atol=1e-6)


def test_a_perturbed_primary_capsule_is_drawn_through_the_class_capsule(narrow, images):
    seen = see(narrow, images[:1], ["primary"])
    drawn = perturbed(narrow, images[0], layer="primary", offsets=np.array([0.0, 2.0]))
    assert drawn.shape == (8, 2, 28, 28, 1)
    np.testing.assert_allclose(drawn[3, 0], seen.reconstructions[0], atol=1e-5)
    strongest = int(seen.layers["primary"].activations.argmax())
    named = perturbed(
        narrow, images[0], layer="primary", capsule=strongest, offsets=np.array([0.0, 2.0])
    )
    np.testing.assert_array_equal(drawn, named)
    assert np.abs(drawn[:, 1] - drawn[:, 0]).max() > 1e-4


def test_fields_are_those_of_the_convolutions(narrow):
    found = fields(narrow)
    # Kernels of 3 and 3, the second of stride 2: 5 pixels, every 2 pixels.
    assert found.shape == (12, 12, 4)
    assert found[0, 0].tolist() == [0, 0, 5, 5]
    assert found[3, 11].tolist() == [6, 22, 11, 27]
    whole = fields(made("efficient_capsnet", efficient_capsnet.Config(features=(2, 2, 2, 8))))
    # The last convolution, of stride 2, takes 19 of 20 rows: one row and column are lost.
    assert whole.tolist() == [[[0, 0, 27, 27]]]


def test_images_turn_counter_clockwise_about_their_centre(images):
    assert moved(images).tolist() == images.tolist()
    np.testing.assert_array_equal(moved(images, rotation=90), np.rot90(images, axes=(1, 2)))
    down = moved(images, shift_y=2, shift_x=-1)
    np.testing.assert_array_equal(down[:, 2:, :-1], images[:, :-2, 1:])
    with pytest.raises(ValueError, match=r"images are float64 \(28, 28\), expected uint8"):
        moved(np.zeros((28, 28)))


def test_whole_and_broken_numbers_to_move_by_are_compiled_once(images):
    turning._moved.clear_cache()
    for turn, scale, shift in ((0, 1, 0), (45, 1.5, 2), (0.5, 1, 0.5), (np.float32(3), 1.5, 0)):
        moved(images, rotation=turn, scale=scale, shift_y=shift, shift_x=shift)
    assert turning._moved._cache_size() == 1


def test_a_network_is_asked_at_every_angle(narrow, images):
    labels = digits(3, "test")["label"]
    found = by_angle(narrow, images, labels, [0, 45])
    assert found.confidence.shape == found.right.shape == (2, 3)
    straight = see(narrow, images)
    np.testing.assert_allclose(found.confidence[0], straight.activations[[0, 1, 2], labels])
    np.testing.assert_allclose(found.poses[0], straight.poses[[0, 1, 2], labels])
    leaning = see(narrow, moved(images, rotation=45))
    np.testing.assert_array_equal(found.right[1], leaning.activations.argmax(1) == labels)
    assert by_angle(made("efficient_cnn", BASELINE), images, labels, [0]).poses is None


def test_an_attack_keeps_within_its_ball_and_misleads():
    network = load_pretrained("efficient_capsnet_mnist")
    few = digits(8, "test")
    changed = inspection.attacked(network, few["image"], few["label"], epsilon=0.2)
    assert changed.dtype == np.float32
    assert np.abs(changed - few["image"] / 255).max() <= 0.2 + 1e-6
    assert changed.min() >= 0
    assert changed.max() <= 1
    said = network.predict(np.round(255 * changed).astype(np.uint8)).labels
    assert (said != few["label"]).sum() >= 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n, i: see(n, i / 255), r"images are float64 \(3, 28, 28, 1\), expected uint8"),
        (lambda n, i: see(n, i[:0]), "N at least 1"),
        (
            lambda n, i: see(n, i, ["primry"]),
            "unknown layer 'primry', expected one of: classes, convolution",
        ),
        (
            lambda n, i: see(n, i, moves={"convolution": np.zeros(1)}),
            "'convolution' is no layer of capsules, expected one of: primary, classes",
        ),
        (
            lambda n, i: see(n, i, moves={"classes": np.zeros((3, 10, 8))}),
            r"moves of classes have shape \(3, 10, 8\), expected \(3, 10, 16\)",
        ),
        (lambda n, i: perturbed(n, i[0], capsule=10), "capsule is 10, expected 0 to 9"),
        (lambda n, i: perturbed(n, i[0], layer="decoder"), "'decoder' is no layer of capsules"),
        (lambda n, i: fields(n, "classes"), "the capsules of classes have no rows and columns"),
        (lambda n, i: by_angle(n, i, np.zeros(2, int), [0]), r"labels are int64 \(2,\)"),
        (lambda n, i: by_angle(n, i, np.zeros(3, int), []), "at least one"),
        (
            lambda n, i: perturbed(made("efficient_cnn", BASELINE), i[0]),
            "the network has no decoder",
        ),
    ],
)
def test_what_cannot_be_looked_at_is_refused(narrow, images, call, message):
    with pytest.raises(ValueError, match=message):
        call(narrow, images)


def drawn_from(tmp_path, name):
    """A narrow network of any kind, of images of noise."""
    config, shape = NARROW_OF_ALL[name]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, *shape)).astype(np.uint8)
    np.savez(tmp_path / "noise.npz", image=images, label=np.arange(20) % 3)
    dataset = data.find(str(tmp_path / "noise.npz"))
    settings = run.settings_for(
        dataset, name=dataset.name, model=name, model_config=config, training=Config()
    )
    network = settings.create()
    network.eval()
    return run.Run(network, settings), images


# Their capsules come with other things, from within a head, or do not say how active they are.
@pytest.mark.parametrize(
    "name", ["deepcaps", "self_routing_resnet", "inverted_attention_resnet", "matrix_capsules"]
)
def test_what_voted_for_the_class_capsules_is_found_in_every_network(tmp_path, name):
    network, images = drawn_from(tmp_path, name)
    routed, children = inspection.last_routing(network, images[0])
    assert routed.votes.shape[-1] % len(children.poses) == 0  # class capsules at several places
    output = network.model(jnp.asarray(images[:1]) / 255)
    np.testing.assert_allclose(routed.poses, output.routed[-1].poses[0], atol=1e-5)
    known = capsule_layers(network)
    assert known
    last = list(known)[-1]
    seen = see(network, images[:1], list(known))
    np.testing.assert_allclose(seen.layers[last].poses, output.routed[-1].poses, atol=1e-5)
    for path, (count, dim) in known.items():
        assert seen.layers[path].poses[0].size == count * dim


@pytest.mark.parametrize("name", ["deepcaps", "inverted_attention_resnet"])
def test_every_network_has_its_pictures_or_a_reason(tmp_path, name, monkeypatch):
    network, images = drawn_from(tmp_path, name)
    arrays = {"image": images, "label": np.arange(20) % 3}
    subject = pictures.Subject(name, network, arrays, network.evaluate(arrays), ())
    inside = ("coefficients", "flow", "primary_capsules", "dead_capsules", "perturbations")
    chosen = {each: pictures.PICTURES[each] for each in inside}
    monkeypatch.setattr(pictures, "PICTURES", chosen)
    found = dict(pictures.drawn(subject))
    reasons = {each: str(it) for each, it in found.items() if isinstance(it, pictures.Without)}
    assert all(reasons.values())
    assert isinstance(found["coefficients"], Figure)
    assert isinstance(found["flow"], Figure)


def test_two_threads_look_at_once(narrow, images):
    said = capsule_layers(narrow)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: capsule_layers(narrow), range(8)))
    assert found == [said] * 8
    assert type(narrow.model.primary).__call__.__name__ == "__call__"


def test_inputs_that_do_not_fit_are_refused(narrow, images):
    labels = np.zeros(3, int)
    with pytest.raises(ValueError, match="labels are from 0 to 10, expected 0 to 9"):
        by_angle(narrow, images, np.array([0, 1, 10]), [0])
    with pytest.raises(ValueError, match=r"labels are float64 \(3,\), expected integers \[3\]"):
        inspection.attacked(narrow, images, np.zeros(3), epsilon=0.1)
    with pytest.raises(ValueError, match="epsilon is 2, expected 0 to 1"):
        inspection.attacked(narrow, images, labels, epsilon=2)
    with pytest.raises(ValueError, match=r"images are float64 .* expected uint8 \[N, 28, 28, 1\]"):
        inspection.attacked(narrow, images / 255, labels, epsilon=0.1)
    with pytest.raises(ValueError, match=r"poses are \(0, 16\) and labels \(0,\), expected"):
        inspection.decoder(narrow.model)(np.zeros((0, 16)), np.zeros(0, int))
    with pytest.raises(ValueError, match=r"offsets are \[\] of shape \(0,\), expected finite"):
        perturbed(narrow, images[0], offsets=np.zeros(0))
    with pytest.raises(ValueError, match="unknown layer 'nowhere', expected one of: "):
        see(narrow, images, ["nowhere"])


def test_several_classes_are_reconstructed_each_by_itself(narrow, images):
    both = see(narrow, images, classes=2)
    assert both.reconstructions.shape == (3, 2, 28, 28, 1)
    one = see(narrow, images)
    np.testing.assert_allclose(both.reconstructions[:, 0], one.reconstructions, atol=1e-5)
