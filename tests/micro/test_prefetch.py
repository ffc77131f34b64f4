"""Batches of worker processes are those that one process makes, in order, and errors reach the caller."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from act2see.micro.recipe.prefetch import Mix, WorkerError, Workers, prefetch
from act2see.training.sft.forward import Batch


@dataclass(frozen=True)
class Drawn:
    """Random tensors of several types and growing sizes; text alone in every third batch."""

    seed: int

    def __call__(self, number: int) -> Batch:
        generator = torch.Generator().manual_seed(self.seed * 1000 + number)
        ids = torch.randint(99, (2, 3 + number), generator=generator)
        batch = {"ids": ids, "mask": ids > 9, "none": torch.empty(0, 4)}
        if number % 3:
            batch["pixels"] = torch.rand(50 * number, 7, generator=generator)
        return batch


@dataclass(frozen=True)
class Process:
    """Batches that name the process that made them."""

    def __call__(self, number: int) -> Batch:
        return {"pid": torch.tensor([os.getpid(), torch.get_num_threads()])}


@dataclass(frozen=True)
class Broken:
    def __call__(self, number: int) -> Batch:
        if number == 3:
            raise ValueError("there is no batch 3")
        return {"number": torch.tensor(number)}


class UnsendableError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


@dataclass(frozen=True)
class Unsendable:
    def __call__(self, number: int) -> Batch:
        raise UnsendableError("one", "two")


@dataclass(frozen=True)
class Unreadable:
    state: int = 1

    def __setstate__(self, state: object) -> None:
        raise ValueError("this cannot be read")

    def __call__(self, number: int) -> Batch:
        return {}


@dataclass(frozen=True)
class Killed:
    def __call__(self, number: int) -> Batch:
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"number": torch.tensor(number)}


@dataclass(frozen=True)
class Noted:
    """Leaves a file for each batch."""

    folder: Path

    def __call__(self, number: int) -> Batch:
        (self.folder / str(number)).touch()
        return {"number": torch.tensor(number)}


@pytest.fixture(scope="module")
def pool() -> Iterator[Workers]:
    with Workers(2) as workers:
        yield workers


def equal(one: Batch, other: Batch) -> bool:
    if list(one) != list(other):
        return False
    return all(one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one)


def test_batches_are_the_same_for_every_number_of_processes(pool: Workers) -> None:
    mix = Mix([Drawn(1), Drawn(2), Drawn(3)])
    with prefetch(mix, 11, 0) as inline, prefetch(mix, 11, 1) as one:
        wanted = list(inline)
        assert all(equal(*pair) for pair in zip(wanted, one, strict=True))
    assert all(equal(*pair) for pair in zip(wanted, pool.batches(mix, 11), strict=True))
    assert len(wanted) == 11
    assert equal(wanted[7], Drawn(2)(2))


def test_a_mix_takes_turns_and_repeats_no_batch() -> None:
    def first(number: int) -> Batch:
        return {"first": torch.tensor(number)}

    def second(number: int) -> Batch:
        return {"second": torch.tensor(number)}

    mix = Mix([first, second, first])
    drawn = [next((name, int(t)) for name, t in mix(i).items()) for i in range(6)]
    assert drawn == [("first", 0), ("second", 0), ("first", 1), ("first", 2), ("second", 1), ("first", 3)]


def test_a_pool_serves_several_lessons_by_turns_on_one_thread_each(pool: Workers) -> None:
    pids = [b["pid"].tolist() for b in pool.batches(Process(), 5)]
    assert {threads for _, threads in pids} == {1}
    assert [pid for pid, _ in pids] == [pids[0][0], pids[1][0]] * 2 + [pids[0][0]]
    assert os.getpid() not in {pid for pid, _ in pids}
    # A lesson that is left early leaves nothing for the next one.
    assert equal(next(pool.batches(Drawn(1), 50)), Drawn(1)(0))
    assert [b["pid"].tolist() for b in pool.batches(Process(), 5)] == pids
    assert list(pool.batches(Process(), 0)) == []


def test_a_pool_looks_ahead_only_so_far(pool: Workers, tmp_path: Path) -> None:
    batches = pool.batches(Noted(tmp_path), 50)
    next(batches)
    # The first batch was taken, so one more than four are asked for.
    while len(made := list(tmp_path.iterdir())) < 5:
        time.sleep(0.01)
    assert {int(path.name) for path in made} == set(range(5))
    assert int(next(batches)["number"]) == 1


def test_an_error_reaches_the_caller_with_its_traceback(pool: Workers) -> None:
    batches = pool.batches(Broken(), 9)
    assert [int(next(batches)["number"]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="there is no batch 3") as caught:
        next(batches)
    assert "in __call__" in str(caught.value.__cause__)
    with pytest.raises(
        WorkerError, match=r"(?s)a process that makes batches failed.*UnsendableError: onetwo"
    ):
        next(pool.batches(Unsendable(), 2))
    with pytest.raises(WorkerError, match=r"(?s)could not read the lesson.*this cannot be read"):
        next(pool.batches(Unreadable(), 2))
    assert equal(next(pool.batches(Drawn(5), 9)), Drawn(5)(0))


def test_a_killed_process_is_an_error() -> None:
    with pytest.raises(WorkerError, match="ended with exit code -9"), prefetch(Killed(), 9, 2) as batches:
        list(batches)


def test_a_pool_must_be_entered() -> None:
    with pytest.raises(WorkerError, match="use it in a `with` block"):
        next(Workers(2).batches(Process(), 1))


def test_processes_and_files_are_gone_afterwards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("act2see.micro.recipe.prefetch._SHARED", tmp_path / "none")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with prefetch(Process(), 3, 1) as batches:
        pid = next(batches)["pid"].tolist()[0]
        (folder,) = tmp_path.iterdir()
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not folder.exists()
