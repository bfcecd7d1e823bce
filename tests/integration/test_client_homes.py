"""A client away from home: in a process forked since its first call, or in a second event loop."""

import asyncio
import subprocess
import sys

import pytest
from llavachat import AsyncClient, Client, ConfigurationError

FORK = """
import multiprocessing, os, sys
from llavachat import Client, ConfigurationError

def expect(call):
    try:
        call()
    except ConfigurationError as error:
        assert "does not outlive" in str(error) or "used in another process" in str(error), error
    else:
        raise AssertionError("it was asked")

def child():
    expect(client.server_info)
    expect(lambda: client.start(None, "What?"))
    expect(client.is_healthy)
    expect(lambda: next(pieces))
    reply.close()
    client.close()

client = Client(sys.argv[1])
reply = client.start(None, "What is this?")
pieces = iter(reply)
next(pieces)
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(60)
print(process.exitcode, bool("".join(pieces)), bool(client.server_info().device))
"""

UNUSED = """
import multiprocessing, sys
from llavachat import Client

def child():
    assert client.server_info().device

client = Client(sys.argv[1])
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(60)
print(process.exitcode)
"""

TWIN = """
import asyncio, os, sys
from llavachat import AsyncClient, ConfigurationError

async def child():
    for call in (client.server_info(), client.start(None, "What?").read()):
        try:
            await call
        except ConfigurationError:
            continue
        os._exit(1)
    await client.close()
    os._exit(0)

client = AsyncClient(sys.argv[1])

async def parent():
    await client.server_info()
    await asyncio.get_running_loop().shutdown_default_executor()
    process_id = os.fork()
    if process_id == 0:
        # The loop that runs here is the parent's; a child that goes on has one of its own.
        asyncio.events._set_running_loop(None)
        asyncio.run(child())
    _, status = os.waitpid(process_id, 0)
    print(os.waitstatus_to_exitcode(status), bool((await client.server_info()).device))
    await client.close()

asyncio.run(parent())
"""


def run(code, address):
    """What a program says that calls and forks."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert 0 == done.returncode, done.stderr
    return done.stdout.split()


def test_a_forked_process_is_refused_and_its_parent_goes_on(server_address):
    """The child is told at each call and ends well; the parent's answer comes whole."""
    assert ["0", "True", "True"] == run(FORK, server_address)


def test_a_client_that_was_not_used_may_come_along_in_a_fork(server_address):
    """As a server's that is made before its workers are."""
    assert ["0"] == run(UNUSED, server_address)


def test_a_forked_twin_is_refused(server_address):
    """And may be closed; the parent's goes on."""
    assert ["0", "True"] == run(TWIN, server_address)


def test_a_second_event_loop_is_refused(server_address):
    """Told what to do, for calls with one answer and with many; the first loop's stream, too."""
    client = AsyncClient(server_address)
    reply = client.start(None, "What is this?")

    async def begin():
        return await anext(aiter(reply))

    async def go_on():
        with pytest.raises(ConfigurationError, match="make one client in each loop"):
            await client.server_info()
        with pytest.raises(ConfigurationError, match="make one client in each loop"):
            await client.start(None, "What?").read()
        with pytest.raises(ConfigurationError, match="make one client in each loop"):
            await client.is_healthy()
        with pytest.raises(ConfigurationError, match="make one client in each loop"):
            await reply.read()

    with asyncio.Runner() as first:
        assert first.run(begin())
        with asyncio.Runner() as second:
            second.run(go_on())
        assert first.run(client.server_info()).device
        first.run(client.close())


def test_threads_share_a_client_in_one_process(server_address):
    """Home is the process, not the thread."""
    with Client(server_address) as client:
        assert client.server_info().device

        async def ask_from_threads():
            return await asyncio.gather(*(asyncio.to_thread(client.server_info) for _ in range(3)))

        assert 3 == len(asyncio.run(ask_from_threads()))
