"""Round-robin jobs: a later short job ends first, requests share a job, and cancelled jobs are dropped."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError

import pytest

from act2see.tools.runtime.round_robin import RoundRobin

Steps = Generator[tuple[int, int], None, str]


class Jobs:
    """Jobs whose steps each take one of `permits`."""

    def __init__(self) -> None:
        self.permits = threading.Semaphore(0)
        self.steps: list[str] = []
        self.ended: list[str] = []

    def named(self, name: str, pieces: int) -> Callable[[], Steps]:
        def begin() -> Steps:
            try:
                for done in range(1, pieces + 1):
                    assert self.permits.acquire(timeout=30)
                    self.steps.append(name)
                    yield done, pieces
            finally:
                self.ended.append(name)
            return f"{name} made"

        return begin

    def allow(self, pieces: int) -> None:
        for _ in range(pieces):
            self.permits.release()


def until(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_short_job_does_not_wait_for_a_long_one() -> None:
    jobs, rotation = Jobs(), RoundRobin[str](workers=1)
    long = rotation.join("film", jobs.named("film", 40))
    jobs.allow(3)
    until(lambda: len(jobs.steps) == 3)
    short = rotation.join("clip", jobs.named("clip", 2))
    jobs.allow(5)
    assert short.result(30) == "clip made"
    assert not long.done()
    assert jobs.steps.count("film") <= 3 + 3
    jobs.allow(40)
    assert long.result(30) == "film made"


def test_jobs_of_one_owner_run_in_order_and_take_turns_with_others() -> None:
    jobs, rotation = Jobs(), RoundRobin[str](workers=1)
    parts = [rotation.join(n, jobs.named(f"part {n}", 3), owner="film") for n in range(5)]
    other = rotation.join("clip", jobs.named("clip", 3))
    jobs.allow(18)
    assert [f.result(30) for f in (*parts, other)] == [*(f"part {n} made" for n in range(5)), "clip made"]
    film = [s for s in jobs.steps if s != "clip"]
    assert film == sorted(film)
    assert jobs.ended.index("clip") <= 1


def test_a_second_request_shares_the_unfinished_job() -> None:
    jobs, rotation = Jobs(), RoundRobin[str]()
    seen: list[tuple[int, int]] = []
    one = rotation.join("film", jobs.named("film", 3))
    two = rotation.join("film", jobs.named("film", 3), lambda *step: seen.append(step))
    jobs.allow(3)
    assert [f.result(30) for f in (one, two)] == ["film made"] * 2
    assert jobs.steps == ["film"] * 3
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_job_runs_until_all_requests_are_cancelled() -> None:
    jobs, rotation = Jobs(), RoundRobin[str]()
    one, two = (rotation.join("film", jobs.named("film", 9)) for _ in range(2))
    jobs.allow(1)
    until(lambda: len(jobs.steps) == 1)
    one.cancel()
    jobs.allow(2)
    until(lambda: len(jobs.steps) == 3)
    assert jobs.ended == []
    two.cancel()
    jobs.allow(1)  # the running step
    until(lambda: jobs.ended == ["film"])
    assert len(jobs.steps) <= 4
    with pytest.raises(CancelledError):
        two.result(0)
    jobs.allow(9)
    assert rotation.join("film", jobs.named("film", 2)).result(30) == "film made"  # from its first step


def test_a_job_that_fails_fails_for_all_its_waiters_and_no_others(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Steps:
        yield 1, 2
        raise OSError("the disk is full")

    def deaf(done: int, total: int) -> None:
        raise ValueError("no ears")

    jobs, rotation = Jobs(), RoundRobin[str]()
    jobs.allow(2)
    with caplog.at_level(logging.WARNING):
        waiting = [rotation.join("bad", broken, deaf), rotation.join("bad", broken)]
        good = rotation.join("good", jobs.named("good", 2))
        for future in waiting:
            with pytest.raises(OSError, match="the disk is full"):
                future.result(30)
    assert good.result(30) == "good made"
    assert "a listener to the progress of bad failed" in caplog.text


def test_at_most_max_started_jobs_are_started() -> None:
    jobs, rotation = Jobs(), RoundRobin[str](workers=1, max_started=2, name="here-only")
    waiting = [rotation.join(n, jobs.named(str(n), 2)) for n in range(4)]
    jobs.allow(3)
    until(lambda: len(jobs.steps) == 3)
    assert set(jobs.steps) == {"0", "1"}
    jobs.allow(5)
    assert [f.result(30) for f in waiting] == [f"{n} made" for n in range(4)]
    until(lambda: not any(t.name == "here-only" for t in threading.enumerate()))


def test_closing_drops_all_jobs_after_the_steps_under_way() -> None:
    jobs, rotation = Jobs(), RoundRobin[str](workers=1, name="closed-here")
    one = rotation.join("film", jobs.named("film", 40))
    two = rotation.join("clip", jobs.named("clip", 2))
    jobs.allow(1)
    until(lambda: jobs.steps == ["film"])
    closing = threading.Thread(target=rotation.close, args=(30.0,))
    closing.start()
    until(lambda: one.cancelled() and two.cancelled())
    jobs.allow(1)  # a step that is under way is completed
    closing.join(30)
    assert not rotation.unfinished
    assert "film" in jobs.ended
    assert len(jobs.steps) <= 2
    assert not [thread for thread in threading.enumerate() if thread.name == rotation.name]


def test_a_later_request_hears_the_progress_so_far() -> None:
    jobs, rotation = Jobs(), RoundRobin[str](workers=1)
    rotation.join("film", jobs.named("film", 3))
    jobs.allow(1)
    said: list[tuple[int, int]] = []
    until(lambda: _progress(rotation) == (1, 3))
    later = rotation.join("film", jobs.named("film", 3), lambda done, of: said.append((done, of)))
    assert said == [(1, 3)]
    jobs.allow(2)
    assert later.result(30) == "film made"
    assert said == [(1, 3), (2, 3), (3, 3)]


def _progress(rotation: RoundRobin[str]) -> tuple[int, int] | None:
    return rotation._jobs["film"].progress
