"""What the page is told of a network is what the network does."""

import numpy as np
import pytest

from capsjax import load_pretrained
from capsjax.data import augment
from capsjax.explorer import answers
from capsjax.explorer.answers import Explored
from capsjax.routing import dynamic
from tests.inspection.test_inspection import BASELINE, made
from tests.training.small import NARROW


@pytest.fixture(scope="module")
def explored():
    return Explored(load_pretrained("efficient_capsnet_mnist"), "efficient")


def test_a_look_is_a_prediction_and_a_pose_is_drawn_as_it_was(explored):
    image = explored.test["image"][0]
    look = explored.look(image)
    said = explored.run.predict(image[None], reconstruct=True)
    np.testing.assert_allclose(look.lengths, said.activations[0], atol=1e-6)
    assert look.label == said.labels[0] == 7
    drawn = explored.draw(look.poses[7], 7)
    np.testing.assert_allclose(drawn, said.reconstructions[0], atol=1e-5)


def test_its_own_routing_is_as_trained_and_others_get_its_votes(explored):
    image = explored.test["image"][0]
    assert explored.routing == "self_attention"
    assert explored.routings[0] == "self_attention"
    own = explored.iterations(image, "self_attention")
    assert own.coefficients.shape == (1, 10, 16)
    np.testing.assert_allclose(own.lengths[-1], explored.look(image).lengths, atol=1e-5)
    found = explored.iterations(image, "dynamic", most=5)
    assert found.coefficients.shape == (3, 10, 5)
    np.testing.assert_allclose(found.coefficients[0], 0.1, atol=1e-6)
    whole = explored.iterations(image, "dynamic")
    np.testing.assert_allclose(found.coefficients, whole.coefficients[:, :, found.children])
    even = explored.iterations(image, "uniform")
    assert even.coefficients.shape == (1, 10, 16)
    assert np.ptp(even.coefficients) < 1e-6


def test_no_module_is_imported_by_the_name_of_a_routing(explored, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="routing is 'stranger', expected one of: self_attention"):
        explored.iterations(explored.test["image"][0], "stranger")


def test_a_routing_of_several_iterations_is_seen_in_all():
    narrow = Explored(made("capsnet", NARROW), "narrow")
    found = narrow.iterations(narrow.test["image"][0], "dynamic", most=12)
    assert found.coefficients.shape == (3, 10, 12)
    assert isinstance(narrow.settings.model_config.routing, dynamic.Config)


def test_a_cnn_has_neither_routing_nor_decoder():
    cnn = Explored(made("efficient_cnn", BASELINE), "cnn")
    image = cnn.test["image"][0]
    assert cnn.routing == "none"
    assert cnn.look(image).poses is None
    with pytest.raises(ValueError, match="the network routes nothing"):
        cnn.iterations(image, "dynamic")
    with pytest.raises(ValueError, match="cnn has no decoder"):
        cnn.draw(np.zeros(16), 0)


def test_two_digits_lie_as_in_multi_mnist(explored):
    first, second = explored.test["image"][:2]
    both, one, other = answers.overlapped(first, second, pad=4, offset=(2, -3))
    np.testing.assert_array_equal(one[4:-4, 4:-4], first)
    np.testing.assert_array_equal(other[6:34, 1:29], second)
    np.testing.assert_array_equal(both, augment.composite(one, other))
