"""Probes and errors of poses against cases whose answer is known, and against loops."""

import numpy as np
import pytest

from capsjax.analysis import probes
from tests.conftest import bare

ANGLES = np.arange(0, 360, 3)


@pytest.fixture
def normal(random):
    """Independent standard normal features of many images."""
    return random.normal(size=(4000, 4))


def explicit_invariance(before, after):
    moved = [np.sum((a - b) ** 2) for a, b in zip(after, before, strict=True)]
    between = [
        np.sum((after[i] - before[j]) ** 2)
        for i in range(len(before))
        for j in range(len(before))
        if i != j
    ]
    return np.mean(moved), np.mean(between)


def test_features_that_stay_have_no_invariance_error(normal):
    assert probes.invariance_error(normal, normal) == 0


def test_features_of_another_image_have_an_invariance_error_of_1(normal, random):
    error = probes.invariance_error(normal, random.normal(size=normal.shape))
    assert error == pytest.approx(1, abs=0.03)


def test_invariance_error_is_that_of_all_pairs_one_by_one(random):
    before = random.normal(size=(9, 3)) + 50  # far from 0, where sums of squares lose digits
    after = before * 1.5 + random.normal(size=(9, 3))
    moved, between = explicit_invariance(before, after)
    assert probes.invariance_error(before, after) == pytest.approx(moved / between, rel=1e-10)
    assert probes.invariance_error(7 * before, 7 * after) == pytest.approx(moved / between)


def test_invariance_error_within_groups_compares_images_of_one_group(random):
    groups = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    before = random.normal(size=(8, 2)) + 100 * groups[:, None]
    after = before + random.normal(size=(8, 2))
    parts = [explicit_invariance(before[groups == g], after[groups == g]) for g in (0, 1)]
    moved, between = (3 * a + 5 * b for a, b in zip(*parts, strict=True))
    found = probes.invariance_error(before, after, groups=groups)
    assert found == pytest.approx(moved / between)
    assert probes.invariance_error(before, after) < found / 100


def test_an_affine_map_is_equivariant(normal, random):
    turned = normal @ random.normal(size=(4, 3)) + 5
    assert probes.equivariance_error(normal, turned) < 1e-9
    assert probes.equivariance_error(1e-3 * normal, 1e3 * turned) < 1e-9


def test_noise_is_the_share_that_no_map_explains(normal, random):
    matrix = np.array([[2.0, 0, 0, 0], [0, 1, 0, 0]]).T
    after = normal @ matrix + 0.5 * random.normal(size=(4000, 2))
    # Variances: 4 and 1 of the map, 0.25 of the noise in each.
    assert probes.equivariance_error(normal, after) == pytest.approx(0.5 / 5.5, rel=0.1)


def test_what_has_nothing_to_do_with_the_features_has_an_error_of_1(normal, random):
    assert probes.equivariance_error(normal, random.normal(size=(4000, 2))) == pytest.approx(
        1, abs=0.02
    )


def test_groups_have_maps_of_their_own(normal):
    groups = np.arange(4000) % 2
    after = np.where(groups[:, None] == 0, normal, -normal) + 3 * groups[:, None]
    assert probes.equivariance_error(normal, after, groups=groups) < 1e-9
    # One map for both sees the offset of neither, and the mean of both maps is 0.
    assert probes.equivariance_error(normal, after) == pytest.approx(1, abs=0.02)


def test_the_spread_of_a_group_is_about_its_own_mean(random):
    groups = np.repeat([0, 1], 50)
    target = 1000.0 * groups + random.normal(size=100)
    noise = random.normal(size=(100, 1))
    assert probes.linear_probes(noise, {"target": target}, groups=groups)["target"] < 0.2


def test_the_strength_is_that_of_the_least_leave_one_out_error(random):
    x = random.normal(size=(24, 30)) @ np.diag([3.0] * 3 + [0.5] * 27)
    y = x[:, :2] + random.normal(size=(24, 2))
    fit = np.arange(24) < 14

    def predicted(inputs, outputs, new, strength):
        mean = inputs.mean(0)
        centred = inputs - mean
        gram = centred.T @ centred + strength * np.eye(30)
        slope = np.linalg.solve(gram, centred.T @ (outputs - outputs.mean(0)))
        return outputs.mean(0) + (new - mean) @ slope

    centred = x[fit] - x[fit].mean(0)
    largest = np.linalg.eigvalsh(centred.T @ centred)[-1]
    errors = {}
    for strength in largest * 10.0 ** np.arange(-10, 2):
        # The strength is a share of all of the half's, and so the same whatever is left out.
        left = [np.delete(np.flatnonzero(fit), k) for k in range(14)]
        missed = [
            y[k] - predicted(x[rest], y[rest], x[[k]], strength)[0]
            for k, rest in zip(range(14), left, strict=True)
        ]
        errors[strength] = np.sum(np.square(missed))
    best = min(errors, key=errors.__getitem__)
    assert min(errors) < best < max(errors)
    missed = y[~fit] - predicted(x[fit], y[fit], x[~fit], best)
    expected = np.sum(missed**2) / np.sum((y[~fit] - y[~fit].mean(0)) ** 2)
    assert probes.equivariance_error(x, y, fit=fit) == pytest.approx(expected, rel=1e-4)


def test_wide_features_do_not_overfit(random):
    hidden = random.normal(size=(200, 2))
    wide = hidden @ random.normal(size=(2, 400)) + 0.1 * random.normal(size=(200, 400))
    noise = random.normal(size=200)
    found = probes.linear_probes(wide, {"told": hidden, "noise": noise})
    assert found["told"] > 0.95
    assert found["noise"] > -0.3


def test_a_probe_tells_an_angle_through_its_sine_and_cosine(random):
    poses = probes.circular(ANGLES) @ random.normal(size=(2, 5))
    found = probes.linear_probes(
        poses, {"circular": probes.circular(ANGLES), "degrees": ANGLES, "twice": ANGLES * 2 % 360}
    )
    assert found["circular"] == pytest.approx(1, abs=1e-6)
    assert found["degrees"] < 0.9
    assert found["twice"] < 0.9


def test_r2_is_the_share_of_variance_explained(normal, random):
    target = normal[:, 0] + 0.5 * random.normal(size=4000)
    assert probes.linear_probes(normal, {"a": target})["a"] == pytest.approx(0.8, abs=0.03)


def test_columns_of_a_factor_count_by_their_variance(normal, random):
    both = np.stack([3 * normal[:, 0], random.normal(size=4000)], axis=1)
    assert probes.linear_probes(normal, {"a": both})["a"] == pytest.approx(0.9, abs=0.02)


def test_judged_on_images_that_were_not_fitted_on():
    # The second half follows the opposite rule.
    x = np.linspace(-1, 1, 40)
    fit = np.arange(40) % 2 == 0
    found = probes.linear_probes(x[:, None], {"a": np.where(fit, x, -x)}, fit=fit)["a"]
    assert found == pytest.approx(-3, abs=0.1)


def test_halves_take_half_of_every_group():
    groups = np.repeat([3, 5, 9], [4, 7, 20])
    chosen = probes.halves(31, groups=groups)
    assert [int(chosen[groups == g].sum()) for g in (3, 5, 9)] == [2, 3, 10]
    assert (chosen == probes.halves(31, groups=groups)).all()
    assert (chosen != probes.halves(31, groups=groups, seed=1)).any()
    assert not np.array_equal(chosen[groups == 9], np.arange(20) < 10)


def test_principal_components_are_the_widest_directions(random):
    wide, narrow = 5 * random.normal(size=300), 0.1 * random.normal(size=300)
    features = np.outer(wide, [0.6, 0.8, 0]) + np.outer(narrow, [0, 0, 1]) + 7
    first = probes.principal_components(features, 1)
    assert first.shape == (300, 1)
    assert abs(np.corrcoef(first[:, 0], wide)[0, 1]) == pytest.approx(1, abs=1e-3)
    assert first.std() == pytest.approx(wide.std(), rel=1e-3)


def test_principal_components_of_groups_are_their_own(random):
    groups = np.arange(200) % 2
    wide = random.normal(size=200)
    features = np.where(groups[:, None] == 0, np.outer(wide, [1, 0]), np.outer(wide, [0, 1]))
    found = probes.principal_components(features, 1, groups=groups)[:, 0]
    for group in (0, 1):
        here = groups == group
        assert abs(np.corrcoef(found[here], wide[here])[0, 1]) == pytest.approx(1)


GOOD = np.arange(12.0).reshape(6, 2) ** 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: bare(probes.invariance_error)(GOOD, GOOD[:5]),
            r"before has shape \(6, 2\) and after \(5, 2\), expected the same \[N, D\]",
        ),
        (lambda: probes.invariance_error(GOOD[0], GOOD[0]), r"before has shape \(2,\), expected"),
        (lambda: probes.invariance_error(GOOD * 0, GOOD * 0), "the same for all images"),
        (
            lambda: probes.invariance_error(GOOD, GOOD, groups=[0, 1, 1, 1, 1, 1]),
            "group 0 has 1 image, expected at least 2",
        ),
        (lambda: probes.invariance_error(GOOD * np.nan, GOOD), "before holds a value that is NaN"),
        (
            lambda: probes.equivariance_error(GOOD, GOOD[:5]),
            r"after has shape \(5, 2\) for 6 images",
        ),
        (lambda: probes.equivariance_error(GOOD, GOOD * 0), "after is the same for all images"),
        (
            lambda: probes.equivariance_error(GOOD, GOOD, groups=[0, 0, 0, 1, 1, 1]),
            "group 0 has 1 images to fit on and 2 to judge by, expected at least 2",
        ),
        (
            lambda: probes.equivariance_error(GOOD, GOOD, groups=[0, 1]),
            r"groups have shape \(2,\), expected \[6\]",
        ),
        (
            lambda: probes.equivariance_error(GOOD, GOOD, fit=[1, 0, 1, 0, 1, 0]),
            r"fit is int64 of shape \(6,\), expected bool \[6\]",
        ),
        (lambda: probes.linear_probes(GOOD, {}), "factors is empty"),
        (
            lambda: probes.linear_probes(GOOD, {"angle": [np.inf] * 6}),
            r"angle has shape \(6, 1\) for 6 images",
        ),
        (
            lambda: probes.principal_components(GOOD, 3),
            "count is 3, expected 1 to 2: group 0 has 3 images to find them on, with 2 features",
        ),
        (lambda: probes.halves(3, groups=[0]), r"groups have shape \(1,\), expected \[3\]"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
