"""`chats --delete` for several chats, against a scripted service."""

import io
import os
import sys
from datetime import datetime

import grpc
import pytest
from llavachat.cli.app import run
from llavachat.cli.state import read_last_chat, write_last_chat
from llavachat.v1 import chat_pb2
from scripted_service import abort

pytestmark = pytest.mark.usefixtures("scripted_in_environment")


def answer_at_terminal(monkeypatch, line):
    """Have somebody type a line."""
    stdin = io.StringIO(line)
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", stdin)


def test_all_chats_of_a_label_are_erased(service, capsys, monkeypatch):
    """More than a list shows, and how many they were; one that went meanwhile is told of."""
    service.keep_chats(61)
    write_last_chat(os.environ["LLAVACHAT_ADDRESS"], "chat-61")
    find = service._find

    def lose_one(chat_id, context):
        service.chats.pop("chat-2", None)
        return find(chat_id, context)

    monkeypatch.setattr(service, "_find", lose_one)
    assert 0 == run(["chats", "-l", "patient=17", "--delete", "--yes"])
    told = "60 chats are erased.\n1 chat was used or erased meanwhile.\n"
    assert ("", told) == capsys.readouterr()
    assert {} == service.chats
    assert read_last_chat(os.environ["LLAVACHAT_ADDRESS"]) is None
    (listing,) = [each for each in service.requests if isinstance(each, chat_pb2.ListChatsRequest)]
    assert {"patient": "17"} == dict(listing.labels)
    assert 0 == run(["chats", "--all", "--delete"])
    assert "There are no such chats.\n" == capsys.readouterr().err


def test_nothing_is_erased_unasked(service, capsys, monkeypatch):
    """At a terminal it is asked first; where nobody can be, `--yes` is wanted."""
    service.keep_chats(3)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert 2 == run(["chats", "--all", "--delete"])
    assert "Nobody can be asked here; give --yes to erase 3 chats." in capsys.readouterr().err
    for answer in ("\n", "n\n", ""):
        answer_at_terminal(monkeypatch, answer)
        assert 1 == run(["chats", "--all", "--delete"])
        expected = "Erase 3 chats for good? [y/N] Nothing was erased.\n"
        assert expected == capsys.readouterr().err
    assert 3 == len(service.chats)
    answer_at_terminal(monkeypatch, "y\n")
    assert 0 == run(["chats", "--all", "--delete"])
    assert capsys.readouterr().err.endswith("3 chats are erased.\n")
    assert {} == service.chats


def test_how_many_were_erased_is_told_at_a_failure(service, capsys, monkeypatch):
    """What is left can be seen, and erased by the same command."""
    service.keep_chats(3)
    find = service._find

    def fail_at_last(chat_id, context):
        if chat_id == "chat-3":
            abort(context, grpc.StatusCode.INTERNAL, "the disk failed")
        return find(chat_id, context)

    monkeypatch.setattr(service, "_find", fail_at_last)
    assert 1 == run(["chats", "--all", "--delete", "-y"])
    expected = "2 of 3 chats are erased.\nllavachat: The disk failed.\n"
    assert expected == capsys.readouterr().err


BEFORE = ["chats", "--before", "2026-11-30T00:00Z", "--delete"]


def use(service, chat_id):
    """Have somebody use a chat after that time."""
    service.chats[chat_id].update_time.FromDatetime(datetime(2026, 12, 1))


def test_a_chat_that_is_used_while_the_question_stands_is_left(service, capsys, monkeypatch):
    """It is none of those that were asked about any more; nor is one that has come since."""
    service.keep_chats(3)

    class Answer(io.StringIO):
        def isatty(self):
            return True

        def readline(self):
            use(service, "chat-2")
            service.keep_chats(1)
            return "y\n"

    monkeypatch.setattr(sys, "stdin", Answer())
    assert 0 == run(BEFORE)
    told = "2 chats are erased.\n1 chat was used or erased meanwhile.\n"
    assert capsys.readouterr().err.endswith(told)
    assert {"chat-2", "chat-4"} == set(service.chats)


def test_a_chat_that_is_used_while_others_are_erased_is_left(service, capsys, monkeypatch):
    """What is erased was looked at some fifty chats before, with `--yes` too."""
    service.keep_chats(61)
    find = service._find

    def use_last(chat_id, context):
        use(service, "chat-61")
        return find(chat_id, context)

    monkeypatch.setattr(service, "_find", use_last)
    assert 0 == run([*BEFORE, "--yes"])
    told = "60 chats are erased.\n1 chat was used or erased meanwhile.\n"
    assert ("", told) == capsys.readouterr()
    assert {"chat-61"} == set(service.chats)
