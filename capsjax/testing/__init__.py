"""The conformance kit: what every routing must satisfy, yours too.

``check_routing(module)`` runs a routing on drawn votes and reports, property by property, what
holds. All properties are promised unless the module says otherwise in ``NOT_PROMISED``, a
dictionary from a property's name to the reason why not. Hypothesis draws the votes
(``pip install 'capsjax[test]'``); ``votes`` gives them for tests of your own.

    from capsjax import testing
    import my_routing

    def test_my_routing():
        testing.check_routing(my_routing)
"""

import dataclasses
from types import ModuleType
from typing import Any, NamedTuple

import jax

from capsjax.testing.drawing import HUGE, KINDS, TINY, draw_children, draw_votes, votes
from capsjax.testing.properties import MEANING, PROPERTIES
from capsjax.testing.subject import Subject

__all__ = [
    "HUGE",
    "KINDS",
    "MEANING",
    "PROPERTIES",
    "TINY",
    "Report",
    "Result",
    "check_routing",
    "draw_children",
    "draw_votes",
    "votes",
]


class Result(NamedTuple):
    """What a check found: "passed", "failed", "not promised" or "left out", and why."""

    status: str
    reason: str


class Report(NamedTuple):
    """What ``check_routing`` found, property by property; printing it makes a table.

    Attributes:
        name: of the routing's module.
        results: what was found, by a property's name.

    Example:
        >>> results = {"finite": Result("passed", ""), "trace": Result("left out", "no iterations")}
        >>> print(Report("mine", results))
        routing mine
          finite  passed
          trace   left out: no iterations
    """

    name: str
    results: dict[str, Result]

    @property
    def passed(self) -> bool:
        """Whether no property failed."""
        return all(result.status != "failed" for result in self.results.values())

    def __str__(self) -> str:
        width = max(map(len, self.results))
        lines = [
            f"  {name:<{width}}  {result.status}{': ' if result.reason else ''}{result.reason}"
            for name, result in self.results.items()
        ]
        return "\n".join([f"routing {self.name}", *lines])


def check_routing(
    module: Any,
    config: Any = None,
    *,
    not_promised: dict[str, str] | None = None,
    examples: int = 10,
    compiler_options: dict[str, Any] | None = None,
) -> Report:
    """Check a routing against every property that it promises.

    Args:
        module: the routing's module (or any object with the same attributes).
        config: an instance of its ``Config``; None is the default one.
        not_promised: properties left out, each with the reason; None takes the module's
            ``NOT_PROMISED``, which speaks of its default config.
        examples: how many votes are drawn for each property.
        compiler_options: as ``jax.jit`` takes them. Most of a check's time is the compiler's: on a
            CPU ``{"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}``
            makes one of a few iterations three times faster.

    Returns:
        The report.

    Raises:
        AssertionError: a promised property does not hold; the message is the whole report.
        ValueError: ``not_promised`` names a property that there is not.

    Example:
        >>> from capsjax.routing import uniform
        >>> check_routing(uniform, examples=2).passed
        True
    """
    reasons = getattr(module, "NOT_PROMISED", {}) if not_promised is None else not_promised
    strangers = set(reasons) - set(PROPERTIES)
    if strangers:
        raise ValueError(
            f"no such property: {', '.join(sorted(strangers))}; expected some of: "
            f"{', '.join(PROPERTIES)}"
        )
    name = module.__name__ if isinstance(module, ModuleType) else type(module).__name__
    report = Report(name, {})
    try:
        _exports(module)
        own = module.Config() if config is None else config
        subject = Subject(module, own, examples, compiler_options)
    except Exception as error:  # a stranger's code may raise anything
        report.results["contract"] = Result("failed", _said(error))
        raise AssertionError(str(report)) from error
    first: BaseException | None = None
    for property_name, check in PROPERTIES.items():
        if property_name in reasons:
            report.results[property_name] = Result("not promised", reasons[property_name])
            continue
        try:
            with jax.enable_x64(True):
                applies = check(subject)
            status = "passed" if applies is None else "left out"
            report.results[property_name] = Result(status, applies or "")
        except Exception as error:
            first = first or error
            report.results[property_name] = Result("failed", _said(error))
    if not report.passed:
        raise AssertionError(str(report)) from first
    return report


def _said(error: BaseException) -> str:
    """An error in one line of at most 300 characters."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}"[:300]


def _exports(module: Any) -> None:
    wanted = ["Config", "init", "route", "READOUT", "SOURCE"]
    if hasattr(module, "State"):
        wanted += ["start", "step", "finish"]
    missing = [name for name in wanted if not hasattr(module, name)]
    assert not missing, f"it has no {', '.join(missing)}"
    for name in {"init", "route", "start", "step", "finish"} & set(wanted):
        assert callable(getattr(module, name)), f"{name} is no function"
    assert module.SOURCE, "SOURCE is empty"
    assert module.READOUT in ("length", "own", "linear"), (
        f"READOUT is {module.READOUT!r}, expected 'length', 'own' or 'linear'"
    )
    assert dataclasses.is_dataclass(module.Config), "Config is no dataclass"
    make: Any = module.Config
    config = make()
    try:
        config.set_by_the_kit = None
    except dataclasses.FrozenInstanceError:
        pass
    else:
        raise AssertionError("Config is not frozen")
    assert hash(config) == hash(make()), "two equal configs have different hashes"
