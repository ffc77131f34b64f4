"""Forks while threads of the package are running. Each test forks in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

BEGIN = """
import os, threading
from act2see.tools.runtime.batching import MicroBatcher
from act2see.tools.runtime.forks import Lock, RLock, leak, native, natively
from act2see.tools.runtime.round_robin import RoundRobin
from act2see.tools.runtime.sharing import KeyedLocks, Shared

def in_child(work):
    \"\"\"What `work` returns in a forked child, as text.\"\"\"
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            said = repr(work())
        except BaseException as e:
            said = f"{type(e).__name__}: {e}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as f:
        said = f.read()
    os.waitpid(child, 0)
    return said

def hold(context):
    \"\"\"Another thread enters `context` and stays in it until the event that is returned is set.\"\"\"
    entered, end = threading.Event(), threading.Event()
    def work():
        with context:
            entered.set()
            end.wait()
    threading.Thread(target=work, daemon=True).start()
    entered.wait()
    return end
"""


def run(code: str) -> list[str]:
    """Return the lines that a script prints. It is killed if it hangs."""
    script = BEGIN + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_lock_held_by_another_thread_is_free_in_a_child() -> None:
    code = """
    lock, again, keyed, shared = Lock(), RLock(), KeyedLocks(), Shared()
    for context in lock, again, keyed("a"), shared._lock:
        hold(context)

    def work():
        with lock, again, again, keyed("a"):
            return shared.get("x", lambda: "made")

    print(in_child(work))
    """
    assert run(code) == ["'made'"]


def test_the_thread_that_forks_keeps_the_lock_that_it_holds() -> None:
    code = """
    lock = RLock()

    def work():
        with lock:
            return lock._depth

    with lock:
        print(in_child(work))
        print(work())
    """
    assert run(code) == ["2", "2"]


def test_a_fork_waits_for_native_work_and_blocks_new_work() -> None:
    code = """
    end = hold(native())
    begun, order = threading.Event(), []

    def fork():
        begun.set()
        order.append(in_child(lambda: "child"))

    forks = threading.Thread(target=fork)
    forks.start()
    begun.wait()
    from act2see.tools.runtime.forks import _process
    while not _process._forks:
        pass
    more = threading.Thread(target=natively(lambda: order.append("more")))
    more.start()
    order.append("still")
    end.set()
    forks.join()
    more.join()
    print(order[0], sorted(order[1:]))
    """
    assert run(code) == ["still [\"'child'\", 'more']"]


def test_native_work_of_the_thread_that_forked_runs_in_a_new_thread() -> None:
    code = """
    where = natively(threading.get_ident)
    assert where() == threading.get_ident()
    print(in_child(lambda: where() != threading.get_ident()))

    @natively
    def fail():
        raise ValueError("no")

    print(in_child(fail))
    """
    assert run(code) == ["True", "ValueError: no"]


def test_a_child_can_fork() -> None:
    code = """
    lock = Lock()
    print(in_child(lambda: in_child(lambda: natively(lambda: lock.__enter__())())))
    """
    assert run(code) == ["'None'"]


def test_requests_queued_in_the_parent_are_not_run_in_the_child() -> None:
    code = """
    busy, end = threading.Event(), threading.Event()

    def work(key, items, stop):
        if key == "slow":
            busy.set()
            end.wait()
        return [f"{key} {item}" for item in items]

    batcher = MicroBatcher(work, max_size=4, gather=0)
    made = []
    first = threading.Thread(target=lambda: made.append(batcher.run("slow", 1)))
    first.start()
    busy.wait()
    second = threading.Thread(target=lambda: made.append(batcher.run("quick", 2)))
    second.start()
    while not batcher.queued:
        pass
    print(in_child(lambda: (batcher.run("quick", 3), batcher.batches[-1])))
    end.set()
    first.join()
    second.join()
    print(sorted(made))
    """
    assert run(code) == ["('quick 3', 1)", "['quick 2', 'slow 1']"]


def test_a_job_continues_in_the_parent_and_starts_again_in_the_child() -> None:
    code = """
    busy, end, closed = threading.Event(), threading.Event(), []

    def job(wait):
        try:
            yield 0, 2
            busy.set()
            if wait:
                end.wait()
            yield 1, 2
            return "made"
        finally:
            closed.append(1)

    def other():
        try:
            yield 0, 1
            return "other"
        finally:
            closed.append(2)

    rotation = RoundRobin(workers=1)
    future = rotation.join("a", lambda: job(True))
    waits = rotation.join("b", other)
    busy.wait()
    print(in_child(lambda: (rotation.join("a", lambda: job(False)).result(), closed)))
    end.set()
    print(future.result(), waits.result())
    """
    assert run(code) == ["('made', [1])", "made other"]


def test_a_chat_model_opens_its_own_connections_in_the_child() -> None:
    code = """
    import asyncio
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage
    from act2see.agent.reasoners.base import Request
    from act2see.agent.reasoners.chat.reasoner import ChatModelReasoner
    from act2see.agent.rollout import Rollout, TextPiece

    def reasoner():
        return ChatModelReasoner(GenericFakeChatModel(messages=iter([AIMessage("B")] * 2)), None)

    def ask(engine):
        async def write():
            rollout = Rollout((TextPiece("What?", "plain"),))
            said = engine.stream(Request(rollout, 9))
            return [item async for item in said][0].text
        return asyncio.run(write())

    asked, new = reasoner(), reasoner()
    print(ask(asked), in_child(lambda: ask(new)), ask(asked))
    print(in_child(lambda: ask(asked)))
    """
    first, second = run(code)
    assert first == "B 'B' B"
    assert second.startswith(
        "SetupError: chat: its connections belong to the parent process, which has already used it"
    )
    assert second.endswith('fork before the first question, or start processes with the "spawn" method')


def test_a_child_cannot_use_a_model_on_an_accelerator() -> None:
    code = """
    from act2see.tools.runtime.forks import check_inherited
    check_inherited("m", "cpu")
    print(in_child(lambda: check_inherited("m", "cuda")))
    """
    assert run(code)[0].startswith("SetupError: m was loaded on cuda before this process was forked")
