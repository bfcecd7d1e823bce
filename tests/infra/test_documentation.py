"""docs/deploy.md says what the code does."""

from conftest import ROOT
from llavachat_cdk.documentation import write_table


def test_the_table_of_options_is_the_codes() -> None:
    """Written by `python -m llavachat_cdk.documentation`."""
    assert write_table() in (ROOT / "docs" / "deploy.md").read_text()
