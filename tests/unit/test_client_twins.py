"""`Client` and `AsyncClient` are twins, and the package exports what it says."""

import inspect
import subprocess
import sys
import typing
from collections.abc import Mapping

import llavachat
import pytest
from llavachat import AsyncChat, AsyncClient, AsyncReply, Chat, Client, Reply
from llavachat.connection import Connection

PAIRS = [(Client, AsyncClient), (Chat, AsyncChat), (Reply, AsyncReply)]
_ASYNC_NAMES = {
    "__iter__": "__aiter__",
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
}


def public(cls):
    """Public members and the protocols of `with` and `for`, as the class's own callables."""
    names = [name for name in dir(cls) if not name.startswith("_") or name in _ASYNC_NAMES]
    return {name: inspect.getattr_static(cls, name) for name in names}


def signature(member):
    """Parameters with their annotations, whatever the result."""
    function = member.__func__ if isinstance(member, classmethod) else member
    function = function.fget if isinstance(function, property) else function
    return [
        (parameter.name, parameter.kind, parameter.default, str(parameter.annotation))
        for parameter in inspect.signature(function).parameters.values()
    ]


@pytest.mark.parametrize(("sync", "other"), PAIRS)
def test_twins_have_the_same_methods_and_parameters(sync, other):
    """Names, kinds, defaults and annotations agree, method by method."""
    members = public(sync)
    missing = {_ASYNC_NAMES.get(name, name) for name in members} - set(dir(other))
    assert set() == missing
    extra = {name for name in dir(other) if not name.startswith("_")} - set(members)
    assert set() == extra
    for name, member in members.items():
        twin = inspect.getattr_static(other, _ASYNC_NAMES.get(name, name))
        if callable(member) or isinstance(member, property | classmethod):
            assert signature(member) == signature(twin), name


@pytest.mark.parametrize(("sync", "other"), PAIRS)
def test_constructors_agree(sync, other):
    """Both clients are made with the same arguments."""
    if sync is Client:
        assert signature(sync.__init__) == signature(other.__init__)


@pytest.mark.parametrize(
    "call",
    [Connection, Client, AsyncClient, Client.start, AsyncClient.start, Chat.ask, AsyncChat.ask],
)
def test_metadata_may_be_bytes_to_a_type_checker_too(call):
    """Keys that end in -bin need them."""
    hints = typing.get_type_hints(call.__init__ if inspect.isclass(call) else call)
    assert Mapping[str, str | bytes] in (hints["metadata"], *typing.get_args(hints["metadata"]))


def test_all_names_can_be_imported():
    """Every name of `__all__` is there, and nothing in the lazy table is left out of it."""
    for name in llavachat.__all__:
        assert getattr(llavachat, name) is not None
    assert sorted(llavachat._HOME_BY_NAME) == sorted(llavachat.__all__)
    assert set(llavachat.__all__) <= set(dir(llavachat))


@pytest.mark.parametrize("chat", [Chat, AsyncChat])
def test_the_format_of_an_export_has_a_name_to_annotate_with(chat):
    """The package's own, as the types of all other arguments have."""
    assert "ExportFormat" in llavachat.__all__
    assert llavachat.ExportFormat == typing.get_type_hints(chat.export)["format"]


def test_an_unknown_name_is_an_attribute_error():
    """A typing error is told as Python tells it."""
    with pytest.raises(AttributeError, match="no attribute 'Cleint'"):
        _ = llavachat.Cleint


def test_the_generated_package_does_not_load_the_client():
    """A server that imports `llavachat.v1` gets the contract and no more."""
    code = (
        "import sys, llavachat.v1.chat_pb2; "
        "print([name for name in sys.modules if name.startswith('llavachat.') "
        "and not name.startswith('llavachat.v1')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()
