"""Changes of code that no test can judge, and that are therefore not tried."""

import ast
import warnings


def pointless(before: str, after: str) -> bool:
    """Whether a change makes no program, or the same program.

    Args:
        before: source of a module.
        after: the same, changed.

    Returns:
        True for what the compiler refuses or warns of, and for changes of nothing but annotations
        and of whether an argument may be given by its position.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            compile(after, "changed", "exec", dont_inherit=True)
        except (SyntaxError, SyntaxWarning):
            return True
    return _computed(before) == _computed(after)


def _computed(source: str) -> str:
    """What a module computes, as text."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.arguments):
            _by_position(node)
    return ast.dump(tree)


def _by_position(arguments: ast.arguments) -> None:
    """Let all of a function's arguments be given by position."""
    places = [*arguments.posonlyargs, *arguments.args]
    without = len(places) - len(arguments.defaults)
    arguments.posonlyargs, arguments.args = [], places + arguments.kwonlyargs
    given = [*arguments.defaults, *arguments.kw_defaults]
    arguments.defaults = [ast.Constant(None)] * without + [d or ast.Constant(None) for d in given]
    arguments.kwonlyargs, arguments.kw_defaults = [], []
