"""The app as the CDK command line starts it."""

import ast
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from conftest import ROOT


def start_app(
    folder: Path, variables: Mapping[str, str] = os.environ, **context: object
) -> subprocess.CompletedProcess[str]:
    """Run the app with a context, as the CDK command line does."""
    return subprocess.run(
        [sys.executable, str(ROOT / "cdk" / "app.py")],
        cwd=ROOT,
        env={**variables, "CDK_OUTDIR": str(folder), "CDK_CONTEXT_JSON": json.dumps(context)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_app_writes_a_template_under_the_chosen_name(tmp_path: Path) -> None:
    """With the options of the context."""
    done = start_app(tmp_path, stack_name="pictures", chats_gib="33")
    assert 0 == done.returncode, done.stderr
    assert '"Size": 33' in (tmp_path / "pictures.template.json").read_text()


def test_only_the_output_is_left(tmp_path: Path) -> None:
    """The wheel and what was put together for the machine go, however often one synthesises."""
    out, temporary = tmp_path / "cdk.out", tmp_path / "tmp"
    temporary.mkdir()
    done = start_app(out, {**os.environ, "TMPDIR": str(temporary)})
    assert 0 == done.returncode, done.stderr
    assert [] == list(temporary.glob("llavachat-*"))
    assert 1 == len(list(out.glob("asset.*/llavachat-*.whl")))


def test_an_asset_that_is_not_copied_stays_where_it_is_read(tmp_path: Path) -> None:
    """As `cdk deploy --no-staging` has it, which zips it after the app has ended."""
    out, temporary = tmp_path / "cdk.out", tmp_path / "tmp"
    temporary.mkdir()
    variables = {**os.environ, "TMPDIR": str(temporary)}
    done = start_app(out, variables, **{"aws:cdk:disable-asset-staging": True})
    assert 0 == done.returncode, done.stderr
    assert 1 == len(list(temporary.glob("llavachat-release-*/llavachat-*.whl")))


def test_synthesis_takes_less_than_ten_seconds(tmp_path: Path) -> None:
    """Of CPU, children included, so that other work on the machine counts for nothing."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert 0 == start_app(tmp_path).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


def test_a_wrong_option_ends_it_with_a_sentence(tmp_path: Path) -> None:
    """No traceback, and nothing written."""
    done = start_app(tmp_path, idle_minutes="2")
    assert 1 == done.returncode
    expected = "llavachat cannot be deployed like this:\nidle_minutes=2: allowed is 0, or 5 to 1440"
    assert expected in done.stderr.replace("'2'", "2")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.template.json"))


def test_the_same_sources_give_the_same_deployment(tmp_path: Path) -> None:
    """An unchanged release replaces no machine."""
    texts = []
    for name in ("first", "second"):
        assert 0 == start_app(tmp_path / name).returncode
        texts.append((tmp_path / name / "llavachat.template.json").read_text())
    assert texts[0] == texts[1]


@pytest.mark.parametrize("path", sorted((ROOT / "cdk").rglob("*.py")), ids=lambda path: path.name)
def test_infrastructure_imports_neither_client_nor_server(path: Path) -> None:
    """It ships their wheel, and would otherwise need all that they need."""
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    assert not imported & {"llavachat", "llavachat_server"}
