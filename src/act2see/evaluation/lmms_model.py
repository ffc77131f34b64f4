"""The class that lmms-eval runs. It loads this module, since its base class is lmms-eval's own.

The answer is the body of `<answer>` and nothing else, so that lmms-eval's scorers read what ours read. Where
a task gives lettered options, it is the letter of the option that the body names, as ours reads it: a model
may write the option's words, and lmms-eval's scorers of choices know letters alone. `answer=body` gives them
the body as it is.

A task's own settings of generation (`max_new_tokens`, `until`, `temperature`) are for the text of a model
that only answers; here the preset says how much may be thought, and they are left alone. A video that
cannot be read, and a refusal, are an empty answer, which counts as wrong; the reason is logged. Any other
error ends the run.
"""

from __future__ import annotations

import asyncio
from typing import Any

from act2see.errors import ConfigError, ContextError, RefusedError, VideoError
from act2see.evaluation.asking import GraphArm, Question, tell_apart
from act2see.evaluation.lmms import missing_lmms, read_messages
from act2see.graphs.config import load_config
from act2see.graphs.state import AskContext
from act2see.tools.runtime.text import first_line
from act2see.trace.options import LETTERS

try:
    from lmms_eval.api.instance import GenerationResult, TokenCounts
    from lmms_eval.api.model import lmms
    from lmms_eval.protocol import ChatMessages
    from loguru import logger
except ModuleNotFoundError as e:
    raise missing_lmms() from e


class Act2See(lmms):  # type: ignore[misc]
    """The graph with a preset.

    Args:
        preset: The name of a preset, or the path of a config file.
        seed: The seed of every question.
        concurrency: How many questions are asked at one time.
        max_calls: How many calls a question may make; by default the preset's number.
        max_tokens: How many tokens a question may write; by default the preset's number.
        answer: What answers a choice: `letter`, or `body` for the words of the model.
        batch_size, max_batch_size, device: What lmms-eval passes to every model. They have no effect.

    Raises:
        Act2SeeError: The configuration cannot be used.
    """

    is_simple = False

    def __init__(
        self,
        preset: str = "micro",
        seed: int = 0,
        concurrency: int = 4,
        max_calls: int | None = None,
        max_tokens: int | None = None,
        answer: str = "letter",
        *,
        batch_size: Any = None,
        max_batch_size: Any = None,
        device: Any = None,
    ) -> None:
        super().__init__()
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency}: at least one question is asked at a time")
        if answer not in ("letter", "body"):
            raise ConfigError(f"answer is {answer!r}: say letter or body")
        self.batch_size = batch_size
        self._letters = answer == "letter"
        self._seed = seed
        self._concurrency = concurrency
        self._arm = GraphArm(
            load_config(preset), context=AskContext(max_calls=max_calls, max_tokens=max_tokens)
        )

    def generate_until(self, requests: list[Any]) -> list[Any]:
        """Answer questions, in their order."""
        return asyncio.run(self._ask_all(requests))

    async def _ask_all(self, requests: list[Any]) -> list[Any]:
        places = asyncio.Semaphore(self._concurrency)

        async def ask(request: Any) -> Any:
            async with places:
                return await self._ask(request)

        return list(await asyncio.gather(*map(ask, requests)))

    async def _ask(self, request: Any) -> Any:
        _, doc_to_messages, _, doc_id, task, split = request.args
        messages = ChatMessages(messages=doc_to_messages(self.task_dict[task][split][doc_id])).messages
        asked = read_messages(messages)
        options = tell_apart(asked.options)
        question = Question(asked.video, asked.text, options, seed=self._seed)
        try:
            trace = await self._arm.ask(question)
        except (VideoError, ContextError, RefusedError) as e:
            logger.warning(f"{task}, question {doc_id}: no answer: {first_line(e)}")
            return GenerationResult(text="", token_counts=TokenCounts())
        loops = trace.usage.loops
        counts = TokenCounts(
            input_tokens=sum(loop.prefilled for loop in loops),
            output_tokens=sum(loop.decoded for loop in loops),
            reasoning_tokens=sum(loop.thinking for loop in loops),
        )
        text = trace.answer or ""
        if self._letters and trace.choice in options:
            text = LETTERS[options.index(trace.choice)]
        return GenerationResult(text=text, token_counts=counts)

    def loglikelihood(self, requests: list[Any]) -> list[Any]:
        """Raise, since an answer after calls has no likelihood of its own."""
        raise ConfigError("act2see only answers questions: choose tasks with output_type generate_until")

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Raise, since a task of several rounds shows a model its own earlier pictures."""
        raise ConfigError("act2see only answers questions: choose tasks with output_type generate_until")
