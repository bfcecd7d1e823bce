"""`ask` and `chats` against a scripted service, in this process: stdout, stderr and exit codes."""

import io
import json
import sys
from datetime import UTC, datetime

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from llavachat.cli.app import run
from llavachat.v1 import chat_pb2, error_details_pb2
from PIL import Image
from scripted_service import abort, deltas, finished, refuse_field, started

pytestmark = pytest.mark.usefixtures("scripted_in_environment")


def test_stdout_carries_the_answer_alone(service, picture, capsys):
    """So that it pipes: the text, a newline, and nothing on stderr."""
    assert 0 == run(["ask", picture, "What is this?"])
    assert ("A red circle.\n", "") == capsys.readouterr()


def test_usage_goes_to_stderr(service, picture, capsys):
    """`--usage` leaves stdout as it is."""
    assert 0 == run(["ask", picture, "What?", "--usage"])
    output = capsys.readouterr()
    assert "A red circle.\n" == output.out
    assert "104 tokens asked (64 picture, 8 cached), 11 answered" in output.err


def test_a_pipe_is_told_an_answer_as_it_is(service, picture, capsys):
    """All but the listing, whose lines and fields programs take apart."""
    obeyed, spelt = "\x1b]52;c;ZXZpbA==\x07\u202e", "�]52;c;ZXZpbA==��"
    service.words = (f"Told {obeyed}.",)
    assert 0 == run(["ask", picture, f"Q {obeyed}"])
    assert f"Told {obeyed}.\n" == capsys.readouterr().out
    assert 0 == run(["chats"])
    assert f"chat-1\t1\t\tQ {spelt}\n" == capsys.readouterr().out


def test_json_is_one_object(service, picture, capsys):
    """Everything of the answer, in one line."""
    assert 0 == run(["ask", picture, "What?", "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    answer = json.loads(line)
    assert ("A red circle.", "chat-1", "turn-1", "eos", 7) == (
        answer["answer"],
        answer["chat_id"],
        answer["turn_id"],
        answer["finish_reason"],
        answer["params"]["seed"],
    )


def test_flags_reach_the_server(service, picture):
    """Each flag finds its field."""
    flags = (
        "-s Brief. --max-tokens 5 -t 0.5 --top-p 0.9 --top-k 40 --repetition-penalty 1.5 "
        "--seed 3 --stop END --stop . --overflow drop -l job=7"
    )
    assert 0 == run(["ask", *flags.split(), picture, picture, "What?"])
    request = service.requests[0]
    expected = chat_pb2.GenerationParams(
        max_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        repetition_penalty=1.5,
        seed=3,
        stop=["END", "."],
    )
    assert expected == request.params
    assert ("Brief.", {"job": "7"}, 2, chat_pb2.OVERFLOW_POLICY_DROP_OLDEST_TURNS) == (
        request.system_prompt,
        dict(request.labels),
        len(request.images),
        request.overflow_policy,
    )


def test_continue_goes_on_with_the_last_chat(service, picture, capsys):
    """`-c` finds the chat of the last `ask`; `--chat` names one."""
    run(["ask", picture, "What?"])
    run(["ask", picture, "What?"])
    assert 0 == run(["ask", "-c", "And behind it?"])
    assert 0 == run(["ask", "--chat", "chat-1", "And?", "--json"])
    assert ["chat-2", "chat-1"] == [request.chat_id for request in service.requests[-2:]]
    assert 0 == run(["ask", "-c", picture, "And here?"])
    assert ("chat-1", 1) == (service.requests[-1].chat_id, len(service.requests[-1].images))


def test_a_picture_from_stdin(service, picture, monkeypatch):
    """`cat x.png | llavachat ask - "What?"`."""
    with open(picture, "rb") as file:  # noqa: PTH123 - the test wants a raw stream
        data = file.read()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert 0 == run(["ask", "-", "What?"])
    assert data == service.requests[0].images[0].data


def test_a_question_from_stdin(service, picture, monkeypatch):
    """`echo "What?" | llavachat ask x.png`."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Größe?\n".encode()), "utf-8"))
    assert 0 == run(["ask", picture])
    assert "Größe?" == service.requests[0].prompt


def test_a_question_about_two_pictures_from_stdin(service, picture, tmp_path, monkeypatch):
    """`echo "What has changed?" | llavachat ask a.png b.png` sends both."""
    second = tmp_path / "second.png"
    Image.new("RGB", (4, 4), "blue").save(second)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"What has changed?\n")))
    assert 0 == run(["ask", picture, str(second)])
    (request,) = service.requests
    assert ("What has changed?", 2) == (request.prompt, len(request.images))
    assert second.read_bytes() == request.images[1].data


def test_a_question_from_stdin_that_is_no_utf_8_is_told(service, picture, monkeypatch, capsys):
    """`printf 'caf\\xe9?' | llavachat ask x.png`, where the locale takes every byte."""
    stdin = io.TextIOWrapper(io.BytesIO(b"caf\xe9?"), "utf-8", errors="surrogateescape")
    monkeypatch.setattr(sys, "stdin", stdin)
    assert 2 == run(["ask", picture])
    sentence = "The question is not UTF-8; set a UTF-8 locale, or convert it."
    assert ("", f"llavachat: {sentence}\n") == capsys.readouterr()
    assert [] == service.requests


@pytest.mark.parametrize(
    ("reason", "code", "sentence"),
    [
        (chat_pb2.FINISH_REASON_MAX_TOKENS, 0, "stopped at the limit of 64 tokens"),
        (chat_pb2.FINISH_REASON_TIME_LIMIT, 1, "time limit"),
        (chat_pb2.FINISH_REASON_SHUTDOWN, 1, "going down"),
        (chat_pb2.FINISH_REASON_CANCELLED, 1, "The answer was stopped."),
        (chat_pb2.FINISH_REASON_ERROR, 1, "The server failed"),
    ],
)
def test_an_answer_that_is_cut_is_told(service, picture, capsys, reason, code, sentence):
    """stdout keeps what came; stderr says why there is no more."""

    def answer(request, context):
        yield started()
        yield from deltas("A red")
        yield finished(reason)

    service.answer = answer
    assert code == run(["ask", picture, "What?"])
    output = capsys.readouterr()
    assert "A red\n" == output.out
    assert sentence in output.err


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 1, "The server says no. Try again in 2 s."),
        (grpc.StatusCode.UNAUTHENTICATED, 1, "LLAVACHAT_API_KEY"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 1, "Try again in 2 s."),
        (grpc.StatusCode.UNAVAILABLE, 3, "The server says no. Try again in 2 s."),
        (grpc.StatusCode.INTERNAL, 1, "The server says no."),
        (grpc.StatusCode.UNIMPLEMENTED, 1, "The server says no."),
    ],
)
def test_a_refusal_is_a_sentence(service, picture, capsys, status, code, sentence):
    """One line on stderr, the status's exit code, nothing on stdout."""

    def answer(request, context):
        detail = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2))
        abort(context, status, "the server says no", detail)
        yield

    service.answer = answer
    assert code == run(["ask", picture, "What?"])
    output = capsys.readouterr()
    assert "" == output.out
    assert sentence in output.err
    assert 1 == output.err.count("\n")


def test_a_failure_on_the_way_keeps_what_came(service, picture, capsys):
    """The text until then stays on stdout, the sentence is on a line of its own."""

    def answer(request, context):
        yield started()
        yield from deltas("A red")
        abort(context, grpc.StatusCode.INTERNAL, "the model failed on this request")

    service.answer = answer
    assert 1 == run(["ask", picture, "What?"])
    assert ("A red\n", "llavachat: The model failed on this request.\n") == capsys.readouterr()
    run(["ask", "-c", "Once more?"])
    assert "chat-1" == service.requests[-1].chat_id


def test_a_slow_answer_meets_its_deadline(service, picture, capsys):
    """`--timeout` ends it, with a sentence."""

    def answer(request, context):
        context.add_callback(service.cancelled.set)
        yield started()
        service.cancelled.wait(10)

    service.answer = answer
    assert 1 == run(["ask", "--timeout", "0.3", picture, "What?"])
    assert "did not come within" in capsys.readouterr().err


def test_a_closed_port_is_a_sentence(scripted, picture, capsys):
    """Exit code 3, the address, and what to do."""
    scripted.stop()
    assert 3 == run(["ask", picture, "What?"])
    output = capsys.readouterr()
    assert f"No llavachat server answers at {scripted.address}" in output.err
    assert "llavachat serve" in output.err
    assert 1 == output.err.count("\n")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["ask", "PICTURE", "\udce9"], "The question"),
        (["ask", "PICTURE", "What?", "--system", "\udce9"], "--system"),
        (["ask", "PICTURE", "What?", "--stop", "\udce9"], "--stop"),
        (["ask", "PICTURE", "What?", "--label", "\udce9=1"], "--label"),
        (["ask", "--chat", "\udce9", "What?"], "The chat's ID"),
        (["chats", "\udce9"], "The chat's ID"),
        (["chats", "\udce9", "--raw"], "The chat's ID"),
        (["chats", "\udce9", "--delete"], "The chat's ID"),
        (["chats", "--label", "key=\udce9"], "--label"),
        (["export", "\udce9"], "The chat's ID"),
        (["replay", "\udce9"], "The chat's ID"),
        (["replay", "chat-1", "\udce9"], "The turn's ID"),
    ],
)
def test_arguments_that_are_no_utf_8_are_told(service, picture, capsys, arguments, name):
    r"""$'\xe9' comes as a lone surrogate, which can not be sent."""
    assert 2 == run([picture if word == "PICTURE" else word for word in arguments])
    sentence = f"{name} is not UTF-8; set a UTF-8 locale, or convert it."
    assert ("", f"llavachat: {sentence}\n") == capsys.readouterr()
    assert [] == service.requests


def test_chats_are_listed(service, capsys):
    """A pipe gets tabs; `--json` an array without turns; no chats, a sentence."""
    assert 0 == run(["chats"])
    assert ("", "There are no chats.\n") == capsys.readouterr()
    for number in range(3):
        list(service.tell(chat_pb2.StartChatRequest(prompt=f"Question\n{number}"), None))
    assert 0 == run(["chats", "-n", "2"])
    assert "chat-1\t1\t\tQuestion 0\nchat-2\t1\t\tQuestion 1\n" == capsys.readouterr().out
    assert 0 == run(["chats", "-n", str(10**20)])
    assert "" == capsys.readouterr().err
    assert 0 == run(["chats", "--json", "-l", "a=b"])
    listed = json.loads(capsys.readouterr().out)
    assert ["chat-1", "chat-2", "chat-3"] == [chat["id"] for chat in listed]
    assert "turns" not in listed[0]
    assert {"a": "b"} == dict(service.requests[-1].labels)


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_that_there_are_more_chats_is_told(service, capsys, form):
    """On stderr, whatever stdout carries; `--all` lists them."""
    service.keep_chats(61)
    assert 0 == run(["chats", *form])
    output = capsys.readouterr()
    assert 20 == output.out.count("chat-")
    assert (
        "These are the 20 chats used last; there are more: see --limit and --all.\n" == output.err
    )
    assert 0 == run(["chats", "--all", *form])
    output = capsys.readouterr()
    assert (61, "") == (output.out.count("chat-"), output.err)


def test_a_coloured_pipe_is_a_pipe(service, capsys, monkeypatch):
    """FORCE_COLOR is about colours: a line is a chat, without a headline."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    service.keep_chats(2)
    assert 0 == run(["chats"])
    assert ["chat-1", "chat-2"] == [
        line.split("\t")[0] for line in capsys.readouterr().out.splitlines()
    ]


def test_chats_of_a_time_are_listed(service):
    """A time without a zone is of this machine's."""
    assert 0 == run(["chats", "--since", "2026-11-30", "--before", "2026-11-30T18:00:00Z"])
    request = service.requests[-1]
    assert datetime(2026, 11, 30).astimezone() == request.updated_since.ToDatetime(UTC)
    assert datetime(2026, 11, 30, 18, tzinfo=UTC) == request.updated_before.ToDatetime(UTC)


def test_a_chat_is_shown_and_erased(service, picture, capsys):
    """Markdown, JSON, the raw prompt; and once erased, it is not the last chat any more."""
    run(["ask", picture, "What?"])
    capsys.readouterr()
    assert 0 == run(["chats", "chat-1"])
    assert "**You:** What?" in capsys.readouterr().out
    assert 0 == run(["chats", "chat-1", "--json"])
    assert "A red circle." == json.loads(capsys.readouterr().out)["turns"][0]["answer"]
    assert 0 == run(["chats", "chat-1", "--raw"])
    assert "<s>USER: What? ASSISTANT:\n" == capsys.readouterr().out
    assert 0 == run(["chats", "chat-1", "--delete"])
    assert ("", "Chat chat-1 is erased.\n") == capsys.readouterr()
    assert 1 == run(["chats", "chat-1"])
    assert "llavachat: There is no such chat.\n" == capsys.readouterr().err
    assert 2 == run(["ask", "-c", "And?"])


def test_a_refused_picture_is_told_by_its_name(service, picture, tmp_path, capsys):
    """Whoever types has given no `images[1].data`."""
    other = tmp_path / "images[0].png"
    Image.new("RGB", (4, 4), "blue").save(other)

    def answer(request, context):
        refuse_field(context, "images[1].data", "this is a video")
        yield

    service.answer = answer
    assert 1 == run(["ask", picture, str(other), "What?"])
    assert f"llavachat: {other}: this is a video.\n" == capsys.readouterr().err
