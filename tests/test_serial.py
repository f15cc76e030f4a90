"""Configs as JSON values: what a run's own tests leave out."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from capsjax.models import MODELS
from capsjax.serial import from_json, to_json


@dataclass(frozen=True)
class Inner:
    widths: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Outer:
    blocks: tuple[tuple[int, ...], ...] = ((1, 2), (), (3,))
    inner: Inner = Inner()
    anything: Any = None


@pytest.mark.core
@pytest.mark.parametrize("anything", [None, 0.1, "ü", ((True, None), ())])
def test_tuples_in_tuples_come_back_as_tuples(anything: Any) -> None:
    config = Outer(inner=Inner((4, 5)), anything=anything)
    found = from_json(Outer, json.loads(json.dumps(to_json(config))))
    assert found == config
    assert hash(found) == hash(config)


@pytest.mark.core
@pytest.mark.parametrize("name", MODELS)
def test_every_published_form_comes_back(name: str) -> None:
    for form in MODELS[name].forms:
        found = from_json(type(form.config), json.loads(json.dumps(to_json(form.config))))
        assert found == form.config
        assert hash(found) == hash(form.config)
