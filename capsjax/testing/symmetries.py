"""Properties of the mathematics: what changes the votes may undergo, and what follows from it.

Parameters are fresh where capsules change places, since learned ones belong to a place; what must
hold with any parameters is checked with drawn ones.
"""

import dataclasses
from typing import Any

import numpy as np

from capsjax.testing.drawing import CHILD_DIM, CHILDREN, DIM, PARENTS
from capsjax.testing.subject import Subject, mapped, same, same_outcome
from capsjax.types import Capsules

_ORDINARY = ("clustered", "uniform", "duplicated", "zeros")
_VARIED = ("clustered", "uniform")


def children_permuted(subject: Subject) -> None:
    """Children in another order."""

    def check(votes: np.ndarray, children: Capsules) -> None:
        order = np.roll(np.arange(CHILDREN), 1)
        plain = subject(votes, children)
        moved = subject(votes[..., order], Capsules(*(x[order] for x in children)))
        expected = plain._replace(coefficients=plain.coefficients[:, order])
        same_outcome(moved, expected, "with the children permuted")

    subject.on_drawn(check, *_ORDINARY)


def parents_permuted(subject: Subject) -> None:
    """Parents in another order."""

    def check(votes: np.ndarray, children: Capsules) -> None:
        order = np.roll(np.arange(PARENTS), 1)
        expected = mapped(subject(votes, children), lambda x: x[order])
        same_outcome(subject(votes[order], children), expected, "with the parents permuted")

    subject.on_drawn(check, *_ORDINARY)


def off_child(subject: Subject) -> None:
    """Other votes from a child whose activation is 0."""

    def check(votes: np.ndarray, children: Capsules) -> None:
        activations: Any = np.array(children.activations)
        activations[0] = 0
        children = children._replace(activations=activations)
        other = votes.copy()
        other[..., 0] = 7
        plain, changed = (subject(each, children, drawn=True) for each in (votes, other))
        coefficients = plain.coefficients
        same_outcome(
            changed._replace(coefficients=coefficients), plain, "when a child that is off moves"
        )

    subject.on_drawn(check, *_VARIED)


def identical(subject: Subject) -> None:
    """The same vote from every child for every parent."""

    def check(votes: np.ndarray, children: Capsules) -> None:
        found = np.asarray(
            subject(np.array(np.broadcast_to(votes[:1, :, :1], votes.shape)), children).coefficients
        )
        same(found, np.full_like(found, found.mean()), "coefficients of identical votes")

    subject.on_drawn(check, "uniform")


def two_groups(subject: Subject) -> None:
    """Each half of the children agrees about one of two parents and is scattered for the other."""
    config = subject.config
    if hasattr(config, "num_iterations"):
        config = dataclasses.replace(config, num_iterations=5)
    dim, half = 16, 8
    other = subject.configured(config)
    for seed in range(subject.examples):
        random = np.random.default_rng(seed)
        votes = random.normal(size=(2, dim, 2 * half))
        votes[0, :, :half] = random.normal(size=(dim, 1))
        votes[1, :, half:] = random.normal(size=(dim, 1))
        votes *= random.uniform(1, 2) / np.linalg.norm(votes, axis=1, keepdims=True)
        activations: Any = np.full(2 * half, 0.9)
        poses: Any = random.normal(size=(2 * half, CHILD_DIM))
        found = np.asarray(other.once(votes, Capsules(poses, activations)).coefficients)
        right = min(found[0, :half].min(), found[1, half:].min())
        assert right > 0.8, f"a child couples {right:.3f} to the parent that its group agrees about"


def sign_blind(subject: Subject) -> None:
    """Mirrored votes, and children with mirrored poses."""

    def check(votes: np.ndarray, children: Capsules) -> None:
        plain = subject(votes, children, drawn=True)
        turned = subject(-votes, children._replace(poses=-children.poses), drawn=True)
        same_outcome(turned, plain._replace(poses=-plain.poses), "of mirrored votes")

    subject.on_drawn(check, *_VARIED)


def rotation(subject: Subject) -> None:
    """All votes rotated."""

    def check(votes: np.ndarray, children: Capsules) -> None:
        turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(DIM, DIM)))
        plain = subject(votes, children, drawn=True)
        turned = subject(np.einsum("de,jei->jdi", turn, votes), children, drawn=True)
        same_outcome(turned, plain._replace(poses=plain.poses @ turn.T), "with all votes rotated")

    subject.on_drawn(check, *_VARIED)


def translation(subject: Subject) -> None:
    """All votes translated."""

    def check(votes: np.ndarray, children: Capsules) -> None:
        shift = np.random.default_rng(3).normal(size=DIM)
        plain = subject(votes, children, drawn=True)
        moved = subject(votes + shift[:, None], children, drawn=True)
        expected = plain._replace(poses=np.asarray(plain.poses) + shift)
        same_outcome(moved, expected, "with all votes translated")

    subject.on_drawn(check, *_VARIED)
