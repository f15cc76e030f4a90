"""How a routing is named, found and configured."""

import dataclasses
import sys

import pytest

from capsjax import routing
from capsjax.routing import dynamic, em
from tests.conftest import bare
from tests.testing import own_routing

OWN = "tests.testing.own_routing"


@pytest.mark.core
@pytest.mark.parametrize("name", routing.ALGORITHMS)
def test_name_module_and_config_lead_to_each_other(name):
    module = routing.ALGORITHMS[name]
    config = module.Config()
    assert routing.find(name) is module
    assert routing.algorithm_of(config) is module
    assert routing.name_of(config) == name
    for names_it in (name, module, config):
        assert routing.config_of(names_it) == config


@pytest.mark.core
@pytest.mark.parametrize("name", routing.ALGORITHMS)
def test_configs_are_frozen_hashable_and_equal_by_value(name):
    make = routing.ALGORITHMS[name].Config
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().num_iterations = 1
    assert {make()} == {make(), make()}


def test_a_config_stays_what_it_is():
    config = em.Config(num_iterations=7)
    assert routing.config_of(config) is config


def test_a_module_of_one_s_own_is_found_by_its_full_name():
    assert routing.find(OWN) is own_routing
    assert routing.config_of(OWN) == own_routing.Config()
    assert routing.name_of(own_routing.Config(sharpness=2.0)) == OWN


@pytest.mark.parametrize("name", ["dynamical", "json.nowhere", "", ".em", "tests.nothing"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"unknown routing .*expected one of: dynamic, em, var"):
        routing.find(name)


def test_a_module_that_is_no_routing_is_refused_with_what_it_lacks():
    with pytest.raises(ValueError, match="dataclasses is no routing: it has no Config, init, rou"):
        routing.find("dataclasses")
    with pytest.raises(ValueError, match="dataclasses is no routing"):
        bare(routing.config_of)(dataclasses)


def test_a_module_whose_route_cannot_be_called_as_every_other_is_refused(monkeypatch):
    def route(votes, children, params, config, *, compete=None, initial=None):
        return None

    for other, said in ((route, "unexpected keyword argument 'trace'"), (3, "not a callable")):
        monkeypatch.setattr(own_routing, "route", other)
        with pytest.raises(ValueError, match=rf"own_routing.route cannot be called .*{said}"):
            routing.config_of(own_routing)


class Config(dynamic.Config):
    """Of no algorithm: where it is defined, nothing routes."""


Narrower = type("Narrower", (dynamic.Config,), {"__module__": dynamic.__name__})


@pytest.mark.parametrize("stranger", [3, None, Config(), Narrower(), dynamic.Config, object()])
def test_what_is_no_config_is_refused(stranger):
    for function in (routing.algorithm_of, routing.name_of, routing.config_of):
        with pytest.raises(ValueError, match=r"is no routing: it has|routing is .*an instance of"):
            bare(function)(stranger)


def test_a_config_of_a_module_that_is_gone_is_refused(monkeypatch):
    config = own_routing.Config()
    monkeypatch.delitem(sys.modules, OWN)
    with pytest.raises(ValueError, match=r"routing is Config\(sharpness=1.0\), expected an inst"):
        bare(routing.algorithm_of)(config)
