"""The sections of the configuration, as pydantic models. `config.py` puts them together and loads them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from act2see.tools.base import MAX_FRAMES

Device = str
Positive = Annotated[float, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=True)]
"""A limit of time; infinity is no limit."""
Rate = Annotated[float, Field(gt=0, le=1000)]
"""Frames a second."""
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of all settings: immutable, and strict about unknown keys and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ReasonerConfig(Section):
    """The model that reasons."""

    use: Literal["transformers", "chat", "vllm", "vllm-http", "llama-cpp"] = "transformers"
    """transformers: a model in this process. vllm: a vLLM engine in this process. vllm-http: a vLLM server.
    llama-cpp: a `llama-server` of llama.cpp. chat: a LangChain chat model."""
    weights: str
    """A folder, a hub name, or `micro:...` for weights in the package. For `chat` it is `provider:model`, and
    for `vllm-http` and `llama-cpp` the model's name on the server."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The settings of the chat model, the arguments of the engine, or the server's `url` (docs/models.md)."""
    continuation: bool = False
    """Whether the server of a `chat` model continues an unfinished turn, as `act2see serve openai` does
    (docs/models.md)."""
    adapter: str | None = None
    """A LoRA adapter: a folder or a hub name."""
    device: Device = "auto"
    dtype: str = "auto"
    temperature: Annotated[float, Field(ge=0)] | None = None
    """The temperature; 0 is greedy. If this or one of the next four is None, the checkpoint's
    `generation_config.json` decides; without one, decoding is greedy and nothing is left out."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    """The number of most probable tokens that may be drawn; 0 is all."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """The least share of the largest probability that a token must have to be drawn."""
    repetition_penalty: Positive | None = None
    """A divisor of the logits of tokens that the rollout has already."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """A number that is subtracted from the logits of tokens that were written already."""
    rows: Annotated[int, Field(ge=1, le=4096)] = 16
    """The number of rollouts that are decoded together. Each has its own cache."""
    context: Count | None = None
    """The maximum number of tokens in a rollout; by default the model's limit."""
    prompt: Literal["paper", "short", "zero-shot", "auto"] = "paper"
    """The instruction. paper: the paper's, for a model fine-tuned on it. short: that of the micro models.
    zero-shot: plain words and an example, for a model that was not. auto: zero-shot, or paper with an
    `adapter`."""

    @property
    def prompt_style(self) -> str:
        """The style of the prompt, with `auto` resolved."""
        if self.prompt == "auto":
            return "paper" if self.adapter else "zero-shot"
        return self.prompt


RUN_KEYS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "prompt",
)
"""Keys of the reasoner that each run applies itself, so that models are shared whatever they are."""


class EncoderConfig(Section):
    """The model that ranks frames by text."""

    use: Literal["blip2", "transformers", "sentence-transformers"] = "blip2"
    """blip2: the paper's encoder. transformers: an encoder with one vector for a picture or a text, such as
    CLIP or SigLIP. sentence-transformers: the same, for checkpoints of that library."""
    weights: str
    device: Device = "auto"
    dtype: str = "auto"
    batch: Count = 32
    """The number of frames in one forward."""


class ViewConfig(Section):
    """The initial frames."""

    fps: Rate = 1.0
    """The number of frames a second. The paper shows 1."""
    frames: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """The number of frames, spread evenly over the video. It replaces `fps`."""
    max_frames: Count = 64
    """The maximum number of initial frames."""
    choose: Literal["evenly", "changes"] = "evenly"
    """Which frames are shown of a video with more of them than `max_frames`. evenly: frames spread over the
    video. changes: the first, the last, and those whose picture differs most from the one before."""
    max_side: Annotated[int, Field(ge=16)] = 448
    """The maximum length of a frame's longer side in pixels. It applies to retrieved frames too."""
    guard: str | None = None
    """The `module:Class` of a `Guard`, which may refuse a video."""
    crop: str | None = None
    """The `module:Class` of a `Framer`, which finds the part of a video's pictures that is shown and
    searched, and their light. None for whole pictures."""


class VideoConfig(Section):
    """The decoding of videos."""

    decoder: Literal["pyav", "decord"] = "pyav"
    """`decord` needs the extra `decord`. Files that decord decodes wrongly are decoded by PyAV."""


class IndexConfig(Section):
    """The index of a video, which `retrieve` searches."""

    fps: Rate = 3.0
    """The number of indexed frames a second. The paper indexes 3."""
    keep_frames: bool = False
    """Whether to store the pixels of all indexed frames: faster, but takes more disk space."""
    workers: Count = 2
    """The number of videos that are decoded at the same time; others wait for their turn."""


class ToolConfig(Section):
    """The tool of a tag."""

    use: str
    """The tool's name, or its `module:Class`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The tool's own options."""
    timeout: Seconds = 300.0
    """The maximum duration of a call in seconds."""
    retries: Annotated[int, Field(ge=0)] = 1
    """The number of times that a failed call is retried."""
    max_frames: Count = MAX_FRAMES
    """The maximum number of frames that a call shows."""
    approve: bool = False
    """Whether a person must approve each call."""


class Budget(Section):
    """The limits of a run. When one is reached, the graph opens the answer and the model must complete it."""

    calls: Annotated[int, Field(ge=0)] = 4
    """The maximum number of calls. Unknown and malformed calls do not count."""
    malformed: Count = 8
    """The maximum number of unknown and malformed calls. A note tells the model of each."""
    tokens: Count = 4096
    """The maximum number of tokens that the model writes, without a forced answer."""
    thinking_tokens: Count = 32768
    """The maximum number of tokens that a chat model thinks without showing them. They are counted apart from
    `tokens`, after each turn."""
    seconds: Seconds = 600.0
    """The maximum duration in seconds, counted from the initial frames."""
    answer_tokens: Count = 64
    """The maximum number of tokens of a forced answer."""
    query: Count = 400
    """The maximum number of characters of a query."""


class NeedsConfig(Section):
    """The gigabytes (10^9 bytes) that a machine must have, for `act2see doctor`."""

    gpu: Annotated[float, Field(ge=0)] = 0
    """Memory of one GPU."""
    ram: Annotated[float, Field(ge=0)] = 0
    """Memory of the CPU."""
    ram_16bit: Annotated[float, Field(ge=0)] | None = None
    """The same if the reasoner computes in 16 bits, in this process; None if that makes no difference."""
    disk: Annotated[float, Field(ge=0)] = 0
    """Disk space for the weights."""
