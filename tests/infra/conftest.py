"""Templates, synthesised in this process, once for each set of options; an emulated account."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import aws_cdk
import pytest
from cdk_nag import AwsSolutionsChecks
from emulated.account import Account, run_account
from hypothesis import settings
from llavachat_cdk import LlavaChatStack, Release, read_context

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("without a clock", deadline=None)
settings.load_profile("without a clock")

Template = dict[str, Any]
Synthesise = Callable[..., Template]


@pytest.fixture(scope="session")
def release() -> Release:
    """This source tree's release, its wheel built once."""
    return Release.build()


@pytest.fixture(scope="session")
def synthesise(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Synthesise:
    """A function from options to the template, checked by AwsSolutions on the way."""

    @cache
    def once(text: str) -> Template:
        folder = tmp_path_factory.mktemp("cdk.out")
        app = aws_cdk.App(outdir=str(folder))
        options = read_context(json.loads(text))
        LlavaChatStack(app, options.stack_name, options=options, release=release)
        aws_cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
        app.synth()
        template = json.loads((folder / f"{options.stack_name}.template.json").read_text())
        template["Folder"] = str(folder)
        return template  # type: ignore[no-any-return]

    def synthesise(**options: object) -> Template:
        return once(json.dumps(options, sort_keys=True))

    return synthesise


@pytest.fixture(scope="session")
def template(synthesise: Callable[..., Template]) -> Template:
    """What the defaults give."""
    return synthesise()


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    """An account on a port of this machine."""
    with run_account() as account:
        yield account


def find(template: Template, kind: str) -> dict[str, Any]:
    """The resources of one type, by logical id."""
    return {
        name: resource
        for name, resource in template["Resources"].items()
        if resource["Type"] == kind
    }


def find_one(template: Template, kind: str, part: str = "") -> Any:
    """The only resource of a type whose logical id contains `part`."""
    (resource,) = (resource for name, resource in find(template, kind).items() if part in name)
    return resource


def flatten(value: Any) -> Any:
    """Joins as text, references in angle brackets; lists and mappings through and through."""
    if isinstance(value, list):
        return [flatten(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"Fn::Join"}:
        separator, parts = value["Fn::Join"]
        return separator.join(str(flatten(part)) for part in parts)
    if set(value) == {"Fn::GetAtt"}:
        return "<" + ".".join(value["Fn::GetAtt"]) + ">"
    if set(value) == {"Ref"}:
        return f"<{value['Ref']}>"
    if set(value) == {"Fn::Sub"}:
        return value["Fn::Sub"]
    return {key: flatten(item) for key, item in value.items()}


def read_user_data(template: Template) -> str:
    """The instance's user data, references in angle brackets."""
    instance = find_one(template, "AWS::EC2::Instance")
    return str(flatten(instance["Properties"]["UserData"]["Fn::Base64"]))


def read_deployment(data: str) -> dict[str, Any]:
    """The deployment that user data writes down."""
    return json.loads(data.split("<<'END'\n")[1].split("\nEND\n")[0])  # type: ignore[no-any-return]


ROOT = Path(__file__).resolve().parents[2]
