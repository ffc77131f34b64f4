"""Questions about videos as tasks of the package `verifiers`, which trainers use: frames in the prompt, tools
to call, rewards for the answer.

A model sees the initial frames, may call `retrieve` and `generate` as tools of its own chat format, and
ends with `<answer>`. The tools run in a server of their own for each rollout, since a call that imagines
needs the frames that were returned before. Rewards: `right` (1), `form` (0.1: one answer, in the last
reply) and `calls` (0.1: the calls that the question needs, no others, where that is known).

`verifiers` names a set of tasks by a module at the top level, so the board's is `act2see_board`, beside this
package: `vf-eval act2see-board`. Its harness is the package's own chat program, run with this Python instead
of an environment that `uv` downloads, so that it works offline.
"""

from __future__ import annotations

import asyncio
import base64
import re
import sys
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from act2see.errors import ConfigError, ToolError as FrameToolError
from act2see.evaluation.replies import Reply
from act2see.evaluation.samples import Sample
from act2see.evaluation.scoring import score_sample
from act2see.graphs.initial_frames import initial_frames
from act2see.graphs.parts import Parts, build_parts
from act2see.tools.base import LoadsModels, NeedsIndex, ToolContext, checked_result
from act2see.tools.frames import FrameRef
from act2see.trace.options import LETTERS
from act2see.trace.pictures import encode_picture

INSTALL = "pip install verifiers"

try:
    import verifiers.v1 as vf
    from verifiers.v1.harnesses.null.harness import NullHarness
    from verifiers.v1.harnesses.utils.launch import CHAT_PROGRAM_SOURCE, launch_chat_program
except ModuleNotFoundError as e:
    raise ConfigError(f"this needs verifiers 0.4: {INSTALL} (in an environment of its own)") from e

BOARD = "act2see-board"
"""The name of the board's tasks."""
SYSTEM = (
    "You answer a question about a video. You see some of its frames, with their times. "
    "Call retrieve with a description to find frames of the video that you do not see. "
    "Call generate with a change to imagine how a frame would look after it. "
    "Think, call what you need, and end with the answer, such as <answer>A</answer>."
)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class FrameToolsetConfig(vf.ToolsetConfig):  # type: ignore[misc]
    """Which tools answer the calls."""

    preset: str = "micro"
    """The preset or config file whose `retrieve` and `generate` are called."""


class FrameTaskConfig(vf.TaskConfig):  # type: ignore[misc]
    """The settings of a task."""

    tools: FrameToolsetConfig = FrameToolsetConfig()


class FrameTasksetConfig(vf.TasksetConfig):  # type: ignore[misc]
    """The settings of a set of tasks."""

    task: FrameTaskConfig = FrameTaskConfig()
    questions: int = 100
    """How many questions there are."""


class FrameData(vf.TaskData):  # type: ignore[misc]
    """A question with its initial frames, in JSON."""

    sample: Sample


class FrameToolset(vf.Toolset[FrameToolsetConfig, vf.State]):  # type: ignore[misc]
    """The tools of one rollout."""

    TOOL_PREFIX = None

    async def setup(self) -> None:
        """Build the tools."""
        self.parts = build_parts(self.config.preset)

    async def setup_task(self, task: Any) -> None:
        """Take the video, and the frames that the prompt shows."""
        self.video = task.sample.clip
        self.shown = await find_initial(self.parts, self.config.preset, self.video)

    @vf.tool  # type: ignore[untyped-decorator]
    async def retrieve(self, query: str):  # type: ignore[no-untyped-def]  # else it has a structured result
        """Find the frames of the video that best match a description."""
        return await self._call("retrieve", query)

    @vf.tool  # type: ignore[untyped-decorator]
    async def generate(self, query: str):  # type: ignore[no-untyped-def]
        """Imagine how a frame would look after a change that the query describes."""
        return await self._call("generate", query)

    async def _call(self, tag: str, query: str) -> list[Any]:
        tool = self.parts.tools[tag]
        try:
            if isinstance(tool, LoadsModels):
                await asyncio.to_thread(tool.load_models)
            if isinstance(tool, NeedsIndex):
                await tool.index_of.ready(self.video)
            returned = await tool.call(query, ToolContext(self.video, self.shown))
            result = checked_result(tag, returned, self.parts.resources.store)
        except FrameToolError as e:
            return [_text(f"The call failed: {e}")]
        self.shown = (*self.shown, *result.frames)
        content = [_text(result.note)] if result.note else []
        for frame in result.frames:
            content += [_text(describe(frame)), self._picture(frame)]
        return content

    def _picture(self, frame: FrameRef) -> Any:
        from mcp.types import ImageContent

        data, mime_type = encode_picture(frame, self.parts.resources.store(frame))
        return ImageContent(type="image", data=base64.b64encode(data).decode(), mime_type=mime_type)


class FrameTask(vf.Task[FrameData, vf.State, FrameTaskConfig]):  # type: ignore[misc]
    """A question with its tools and rewards."""

    @classmethod
    def toolsets(cls, config: FrameTaskConfig) -> list[Any]:
        """Return the server of the tools."""
        return [FrameToolset(config.tools)]

    @vf.reward(weight=1.0)  # type: ignore[untyped-decorator]
    async def right(self, trace: vf.Trace) -> float:
        """Return the score of the answer, as `act2see eval` gives it."""
        bodies = _ANSWER.findall(trace.last_reply)
        return float(score_sample(self.data.sample, Reply(body=bodies[-1] if bodies else None)).score)

    @vf.reward(weight=0.1)  # type: ignore[untyped-decorator]
    async def form(self, trace: vf.Trace) -> float:
        """Return 1 for exactly one answer, at the end of the last reply."""
        texts = [message.content or "" for message in trace.assistant_messages]
        count = sum(text.count("<answer>") for text in texts)
        last = trace.last_reply
        return float(count == 1 and len(_ANSWER.findall(last)) == 1 and last.endswith("</answer>"))

    @vf.reward(weight=0.1)  # type: ignore[untyped-decorator]
    async def calls(self, trace: vf.Trace) -> float:
        """Return how well the calls are those that the answer needs: F1 over their tags, 0 if not known."""
        needed = self.data.sample.needed
        return 0.0 if needed is None else match_calls(called(trace), needed)

    @vf.metric  # type: ignore[untyped-decorator]
    async def retrieved(self, trace: vf.Trace) -> float:
        """Return the number of calls of `retrieve`."""
        return float(called(trace).count("retrieve"))

    @vf.metric  # type: ignore[untyped-decorator]
    async def generated(self, trace: vf.Trace) -> float:
        """Return the number of calls of `generate`."""
        return float(called(trace).count("generate"))


class FrameTaskset(vf.Taskset[FrameTask, FrameTasksetConfig]):  # type: ignore[misc]
    """Tasks made from samples."""

    @abstractmethod
    def samples(self) -> Iterable[Sample]:
        """Return the questions; their videos exist."""

    def load(self) -> Iterator[FrameTask]:
        """Yield a task for each question, with its initial frames in the prompt."""
        preset = self.config.task.tools.preset
        parts = build_parts(preset)
        with ThreadPoolExecutor(1) as pool:  # the caller may have a running loop, in which none can be run
            for sample in self.samples():
                frames = pool.submit(asyncio.run, find_initial(parts, preset, sample.clip)).result()
                data = FrameData(
                    id=sample.id,
                    prompt=write_prompt(parts, sample, frames),
                    system_prompt=SYSTEM,
                    sample=sample,
                )
                yield FrameTask(data, self.config.task)


class LocalHarness(NullHarness):  # type: ignore[misc]
    """The chat program of `verifiers` (tools of the task and no others), run by this Python."""

    async def setup(self, runtime: Any) -> None:
        """Do nothing: what the program imports, `verifiers` has installed."""

    async def launch(
        self,
        ctx: Any,
        trace: Any,
        runtime: Any,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: Any,
        tool_interception_url: str | None = None,
    ) -> Any:
        """Run the program until the model answers without a call."""
        gate = [f"--tool-interception-url={tool_interception_url}"] if tool_interception_url else []
        return await launch_chat_program(
            CHAT_PROGRAM_SOURCE,
            self.config,
            ctx,
            trace,
            _Local(runtime),
            endpoint,
            secret,
            mcp_urls,
            *self.resolve_prompt(data),
            extra_args=gate,
        )


class _Local:
    """A runtime that runs a script with this Python, whatever the script says it depends on."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    async def prepare_uv_script(self, script: str, env: Any = None, *, activate: bool = True) -> list[str]:
        path = "act2see_chat.py"
        await self._runtime.write(path, script.encode())
        return [sys.executable, path]


def load_environment(questions: int = 100, preset: str = "micro", **agent: Any) -> Any:
    """Return the board world as an environment of `verifiers`.

    Args:
        questions: How many questions there are.
        preset: The preset whose tools answer the calls.
        **agent: More of the agent's settings, such as `max_turns`. It runs as a process of this machine.
    """
    from verifiers.v1.utils.loaders import load_environment as load, resolve_env_config

    taskset = {"id": BOARD, "questions": questions, "task": {"tools": {"preset": preset}}}
    runtime = {"runtime": {"type": "subprocess"}}
    return load(resolve_env_config({"taskset": taskset, "agent": runtime | agent}))


async def find_initial(parts: Parts, preset: str, video: str) -> tuple[FrameRef, ...]:
    """Return the frames that a question begins with."""
    from act2see.graphs.config import load_config

    _, frames = await initial_frames(parts, load_config(preset).view, video)
    return tuple(frames)


def write_prompt(parts: Parts, sample: Sample, frames: Sequence[FrameRef]) -> list[Any]:
    """Return the first message: the frames, each with its time, and the question with its options."""
    content: list[Any] = []
    for frame in frames:
        data, mime_type = encode_picture(frame, parts.resources.store(frame))
        url = f"data:{mime_type};base64,{base64.b64encode(data).decode()}"
        content += [
            vf.TextContentPart(text=describe(frame)),
            vf.ImageUrlContentPart(image_url=vf.ImageUrlSource(url=url)),
        ]
    options = [f"({letter}) {option}" for letter, option in zip(LETTERS, sample.options, strict=False)]
    content.append(vf.TextContentPart(text="\n".join([sample.question, *options])))
    return [vf.UserMessage(content=content)]


def describe(frame: FrameRef) -> str:
    """Return one line about a frame. It begins with whether the frame is in the video."""
    return f"NOT IN THE VIDEO: {frame.describe()}" if frame.imagined else f"A real {frame.describe()}"


def called(trace: Any) -> list[str]:
    """Return the tags of the calls of a rollout, in order."""
    return [call.name for message in trace.assistant_messages for call in message.tool_calls or ()]


def match_calls(made: Sequence[str], needed: Sequence[str]) -> float:
    """Return the F1 of calls that were made and calls that were needed, by their tags."""
    if not made and not needed:
        return 1.0
    common = (Counter(made) & Counter(needed)).total()
    return 2 * common / (len(made) + len(needed))


def _text(text: str) -> Any:
    from mcp.types import TextContent

    return TextContent(type="text", text=text)


if __name__ == "__main__":
    FrameToolset.run()
