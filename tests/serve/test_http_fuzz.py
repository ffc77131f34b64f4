"""Drawn requests to the OpenAI server: none is answered with 500.

`python -m benchmarks.fuzz.http` draws more.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

import pytest
from benchmarks.fuzz.http import attack

from act2see.agent.parser import StopReason
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.serve.openai.model import ServedModel
from act2see.serve.openai.rollout import RequestPictures
from act2see.serve.openai.server import build_app, serving


class Brief(Reasoner):
    """Answers every chat with one word, or fails if it is told to."""

    name = "brief"
    fails = False

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        if self.fails:
            raise KeyError("x")
        yield Delta("yes")
        yield Done(StopReason.EOS, decoded=1)


def test_no_drawn_request_is_answered_with_500(caplog: pytest.LogCaptureFixture) -> None:
    served = ServedModel(Brief(), RequestPictures(), "brief", context=4096)
    with serving(build_app(served)) as url:
        answers = attack(f"{url.removesuffix('/v1')}/openapi.json", examples=15, seed=1)
    assert answers.failures == []
    assert answers.statuses[200] > 15
    assert answers.statuses[400] > 15
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


def test_a_500_is_found() -> None:
    reasoner = Brief()
    reasoner.fails = True
    with serving(build_app(ServedModel(reasoner, RequestPictures(), "brief"))) as url:
        answers = attack(f"{url.removesuffix('/v1')}/openapi.json", examples=2, seed=1)
    assert answers.failures
    assert answers.statuses[500] == len(answers.failures)
