"""Prefork servers: a process loads its models, asks, and forks children that ask too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from act2see.micro.questions import make_item
from act2see.micro.world import write_clip

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    pytest.mark.timeout(300),
]

SCRIPT = """
import multiprocessing, sys, threading
from act2see import ask, create_act2see

when, *given = sys.argv[1:]
asked = [(given[i], given[i + 1], given[i + 2].split(",")) for i in (0, 3)]
graph = create_act2see("micro")
fork = multiprocessing.get_context("fork")
children = []

def child(queue, question):
    try:
        queue.put(ask(graph, *question).answer)
    except BaseException as e:
        queue.put(f"{type(e).__name__}: {e}")

def begin(n):
    queue = fork.Queue()
    process = fork.Process(target=child, args=(queue, asked[n % 2]))
    process.start()
    children.append((queue, process))

def answers():
    for queue, process in children:
        try:
            yield queue.get(timeout=100)
        except Exception:
            process.kill()
            yield "hangs"
        process.join()

if when == "loading":
    parent = threading.Thread(target=lambda: print(ask(graph, *asked[0]).answer))
    parent.start()
    while not any(t.name.startswith("asyncio") for t in threading.enumerate()):
        pass
    begin(0)
    begin(1)
    parent.join()
else:
    tokens = 0
    def event(event):
        global tokens
        tokens += event.type == "token"
        # After the view, while the model writes, and while a tool runs.
        if event.type in ("view", "call") or tokens == 20:
            tokens += 1
            begin(len(children))
    print(ask(graph, *asked[0]).answer)
    print(ask(graph, *asked[1], on_event=event).answer)
    begin(0)
print(*answers(), sep="\\n")
"""


def asked(folder: Path) -> tuple[list[str], list[str]]:
    """Two questions, as arguments for the script, and their answers."""
    given, answers = [], []
    for family, n in (("blink", 4), ("imagine", 3)):
        item = make_item(family, n, "test")
        write_clip(item.clip, folder / f"{family}.mp4")
        given += [str(folder / f"{family}.mp4"), item.text, ",".join(item.options)]
        answers.append(item.answer)
    return given, answers


def run(tmp_path: Path, when: str, threads: str) -> tuple[list[str], list[str]]:
    given, answers = asked(tmp_path)
    # A forked child lacks the threads of its parent, so the models need several, whatever the runner sets.
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "ACT2SEE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", SCRIPT, when, *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), answers


@pytest.mark.parametrize("threads", ["2"])  # with more than one, OpenMP's own threads do not survive the fork
def test_children_that_are_forked_after_a_question_and_during_one(tmp_path: Path, threads: str) -> None:
    said, (blink, imagine) = run(tmp_path, "asked", threads)
    assert said[:2] == [blink, imagine]
    children = said[2:]
    assert len(children) >= 4
    assert children[:-1] == [(blink, imagine)[n % 2] for n in range(len(children) - 1)]
    assert children[-1] == blink


def test_children_that_are_forked_while_models_are_loaded(tmp_path: Path) -> None:
    said, (blink, imagine) = run(tmp_path, "loading", "2")
    assert said == [blink, blink, imagine]
