"""README says what the registry of networks says."""

from pathlib import Path

from capsjax import models

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_table_of_networks_is_that_of_the_registry():
    rows = README.split("<!-- networks -->")[1].split("<!-- end -->")[0].strip().splitlines()[2:]
    expected = []
    for name, model in models.MODELS.items():
        form = model.forms[0]
        expected.append(
            f"| `{name}` | {model.source} | {form.dataset} | {form.parameters:,} | "
            f"{form.published} |"
        )
    assert rows == expected
