"""The table of access covers the contract, and what it does not cover is closed."""

from grpc_health.v1 import health_pb2
from llavachat.v1 import chat_pb2 as pb
from llavachat_server.rpc.access import RULES
from llavachat_server.rpc.auth import Scope

SERVICE = pb.DESCRIPTOR.services_by_name["ChatService"]
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def test_every_method_has_its_row_and_no_row_is_left_over() -> None:
    """A method that comes into the contract is closed until somebody says who may call it."""
    methods = {
        f"/{service.full_name}/{method.name}"
        for service in (SERVICE, HEALTH)
        for method in service.methods
    }
    assert methods | {REFLECTION} == set(RULES)


def test_what_begins_something_is_refused_while_the_server_stops() -> None:
    """Let in are the calls of those who follow a running turn."""
    expected = {f"/{SERVICE.full_name}/{name}" for name in ("ResumeTurn", "GetTurn", "CancelTurn")}
    assert expected == {name for name, rule in RULES.items() if rule.drains}


def test_what_makes_the_model_answer_is_counted_in_tokens() -> None:
    """A replay as much as a question."""
    names = ("StartChat", "ContinueChat", "ReplayTurn")
    expected = {f"/{SERVICE.full_name}/{name}" for name in names}
    assert expected == {name for name, rule in RULES.items() if rule.generates}


def test_health_alone_asks_for_no_key() -> None:
    """And of the chats' methods, the description of the server alone opens to every key."""
    open_to_all = {name for name, rule in RULES.items() if rule.scopes is None}
    assert {f"/{HEALTH.full_name}/{method.name}" for method in HEALTH.methods} == open_to_all
    without_chat = {
        name
        for name, rule in RULES.items()
        if rule.scopes is not None and rule.scopes != {Scope.CHAT}
    }
    assert {f"/{SERVICE.full_name}/GetServerInfo", REFLECTION} == without_chat
