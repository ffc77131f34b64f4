"""The paper's ablations on the board world: `act2see micro ablate`.

Every arm is a student that starts from the same base model and learns the same number of steps; what differs
is its corpus, its tools, or what its loss counts. Chains are made by the scripted teacher through the real
graph and tools, so the noisy arms show what stated faults do to a student, and not how often a real teacher
has them.

Each stage writes its result to `seed-N/STAGE.json` when it is done and is not run again while that file is
there: an interrupted run goes on. What is measured is read from those files alone (`ablate_report`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from act2see.agent.grammar import StopReason
from act2see.agent.packing import Packer
from act2see.agent.prompt import Prompt
from act2see.agent.reasoners.base import Delta, Done, Reasoner, Request
from act2see.agent.rollout import TextPiece, render
from act2see.errors import CorpusError
from act2see.graphs.config import Config, load_config
from act2see.graphs.state import AskContext
from act2see.micro.questions import FAMILIES, TAGS, items
from act2see.micro.recipe.corpus import after_view, shuffle_options, with_tools
from act2see.micro.source import THRESHOLD, load_world
from act2see.micro.study.evaluate import Asked, ask_all, one_thread
from act2see.micro.teacher import Faults, ScriptedTeacher
from act2see.tools.runtime.memory import release
from act2see.tools.video.store import FrameStore
from act2see.trace.record import Frames
from act2see.trace.trace import Trace
from act2see.training.corpus.construct import Limits, Plan, construct
from act2see.training.corpus.filtering import filter_chains
from act2see.training.corpus.records import Chain, read_chains, write_chains
from act2see.training.corpus.similarity import SentenceEncoder
from act2see.training.corpus.sources import Sample
from act2see.training.grpo import GrpoSettings, Reward, train_folder
from act2see.training.sft.finetune import finetune
from act2see.training.sft.loop import fast_bf16
from act2see.training.sft.settings import SftSettings

log = logging.getLogger(__name__)
Result = dict[str, Any]
_CONCLUDES = re.compile(r"(?<=\.)(?= \D)")  # a sentence that is not of the next second


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything: questions in a corpus, steps of SFT, questions asked of each arm, rounds of
    GRPO."""

    corpus: int = 800
    hinted: int = 100
    steps: int = 220
    asked: int = 160
    rounds: int = 12
    seeds: int = 3


QUICK = Sizes(corpus=400, hinted=50, steps=120, asked=80, rounds=4, seeds=1)
ENDS = 5  # how often the end of a chain is learnt for each time that it is learnt whole

Watch = Callable[[str, float], None]  # a stage that has ended, and its seconds
Wrap = Callable[[Reasoner], Reasoner]


def ablate(out: Path, sizes: Sizes, watch: Watch | None = None, only: Sequence[str] = ()) -> None:
    """Run whatever is not done yet, into `out`; `only` names stages, and is to hold those that they build on.

    Raises `CorpusError` where `out` holds results of other sizes.
    """
    _same_sizes(out, sizes)
    for seed in range(sizes.seeds):
        run = _Seed(out / f"seed-{seed}", seed, sizes)
        for name, stage in run.stages().items():
            if run.file(name).exists() or (only and name not in only):
                continue
            started = time.perf_counter()
            result = stage() | {
                "stage": name,
                "seed": seed,
                "seconds": round(time.perf_counter() - started, 1),
            }
            run.file(name).parent.mkdir(parents=True, exist_ok=True)
            part = run.file(name).with_suffix(".part")
            part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            part.replace(run.file(name))
            release()  # what a trainer leaves goes round in circles
            if watch:
                watch(f"seed {seed}, {name}", result["seconds"])


def _same_sizes(out: Path, sizes: Sizes) -> None:
    """Write the sizes down; or see that they are those written there. More seeds may be added."""
    file, given = out / "sizes.json", {k: v for k, v in asdict(sizes).items() if k != "seeds"}
    if not file.exists():
        out.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(given) + "\n", encoding="utf-8")
    elif json.loads(file.read_text(encoding="utf-8")) != given:
        raise CorpusError(f"{out} holds results of other sizes (was it --quick?): give another folder")


@dataclass(slots=True)
class _Seed:
    """The stages of one seed, in an order in which each finds what it needs."""

    folder: Path
    seed: int
    sizes: Sizes

    def file(self, stage: str) -> Path:
        return self.folder / f"{stage}.json"

    def stages(self) -> dict[str, Callable[[], Result]]:
        arms: dict[str, Callable[[], Result]] = {
            "corpus-reference": lambda: self.build("reference", Faults(0, 0, 0, 0)),
            "corpus-noisy": lambda: self.build("noisy", Faults()),
            "corpus-hinted": lambda: self.build("hinted", Faults(), hint=True, count=self.sizes.hinted),
            "base": lambda: self.ask("micro:base", TAGS),
            "insertion": lambda: self.ask("micro:base", TAGS, Inserted),
            "both": lambda: self.arm("both", self.reference(), TAGS),
            "text": lambda: self.arm("text", self.reference(()), ()),
            "retrieval": lambda: self.arm("retrieval", self.reference(TAGS[:1]), TAGS[:1]),
            "generation": lambda: self.arm("generation", self.reference(TAGS[1:]), TAGS[1:]),
            "unfiltered": lambda: self.arm("unfiltered", self.traces("noisy"), TAGS, "noisy"),
            "filtered": lambda: self.arm("filtered", self.filtered("noisy"), TAGS, "noisy"),
            "loss-on-frames": lambda: self.arm("loss-on-frames", self.reference(), TAGS, loss_on_frames=True),
            "frame-tokens": self.frame_tokens,
        }
        for calls in range(4):  # four are allowed anyway
            arms[f"budget-{calls}"] = lambda calls=calls: self.ask(
                str(self.weights("both")), TAGS, max_calls=calls
            )  # type: ignore[misc]
        return {**arms, "self-training": self.self_training, "grpo": self.grpo}

    def weights(self, arm: str) -> Path:
        return self.folder / "arms" / arm

    def config(self, weights: str = "micro:vlm") -> Config:
        cache, prompt = str(self.folder / "cache"), "short"
        return load_config(
            "micro", cache=cache, reasoner={"weights": weights, "prompt": prompt}, view={"guard": None}
        )

    # Corpora

    def build(self, name: str, faults: Faults, *, hint: bool = False, count: int | None = None) -> Result:
        """The teacher's first attempts, right or wrong: what is done about the wrong ones is the filter's
        arm."""
        folder = self.folder / name
        samples = list(load_world(count or self.sizes.corpus, self.folder / "clips", self.seed))
        teacher = ScriptedTeacher(faults, self.seed)
        plan = Plan(retries=0, seed=self.seed, hint=hint)
        with one_thread():
            asyncio.run(
                construct(samples, self.config(), folder, plan, Limits(concurrency=8), reasoner=teacher)
            )
        chains = self.chains(name)
        called = sum(
            any(isinstance(s, Frames) and s.frames for s in c.trace.segments) for c in chains if c.trace
        )
        kept = self._filter(name)
        return {
            "made": len(chains),
            "called": called,
            "right": sum(not c.dropped for c in chains),
            "kept": len(kept),
        }

    def _filter(self, name: str) -> list[Chain]:
        folder = self.folder / name
        done = filter_chains(
            read_chains(folder / "chains.jsonl"), SentenceEncoder("minilm"), threshold=THRESHOLD
        )
        write_chains(done, folder / "filtered.jsonl")
        return [c for c in self.chains(name, "filtered.jsonl") if not c.dropped]

    def chains(self, name: str, file: str = "chains.jsonl") -> list[Chain]:
        """Those with a trace, in an order that does not depend on which was done first."""
        return sorted(
            (c for c in read_chains(self.folder / name / file) if c.trace), key=lambda c: c.sample.id
        )

    def traces(self, name: str) -> list[Trace]:
        return [c.trace for c in self.chains(name) if c.trace]

    def filtered(self, name: str) -> list[Trace]:
        return [c.trace for c in self.chains(name, "filtered.jsonl") if c.trace and not c.dropped]

    def reference(self, tags: Sequence[str] = TAGS) -> list[Trace]:
        """The reference chains as they would have gone with these tools alone."""
        rng = Random(self.seed)
        return [with_tools(t, tags, rng) for t in self.filtered("reference")]

    # Students

    def arm(
        self,
        name: str,
        traces: list[Trace],
        tags: Sequence[str],
        run: str = "reference",
        *,
        loss_on_frames: bool = False,
    ) -> Result:
        """Learn, then ask."""
        learnt = self.learn(name, traces, run, loss_on_frames=loss_on_frames)
        return learnt | self.ask(str(self.weights(name)), tags)

    def learn(
        self,
        name: str,
        traces: list[Trace],
        run: str,
        *,
        base: str = "micro:base",
        loss_on_frames: bool = False,
    ) -> Result:
        # Who has learnt already goes on gently, and half as long.
        rate, steps = (
            (1e-3, self.sizes.steps) if base == "micro:base" else (3e-4, max(1, self.sizes.steps // 2))
        )
        settings = SftSettings(
            base=base,
            mode="full",
            learning_rate=rate,
            batch=32,
            max_steps=steps,
            warmup=20,
            weight_decay=0.01,
            prompt="short",
            device="cpu",
            bf16=fast_bf16("cpu"),
            gradient_checkpointing=False,
            loss_on_frames=loss_on_frames,
            save_steps=1_000_000,
            seed=self.seed,
        )
        # A chain is mostly description, which the base model knows: mostly what is learnt is what comes after
        # it.
        ends = [end for t in traces if (end := _end(t))]
        result = finetune(
            [*traces, *(t.model_copy(update={"id": f"{t.id}/{n}"}) for n in range(ENDS) for t in ends)],
            FrameStore(self.folder / run / "frames"),
            self.weights(name),
            settings,
            vary=shuffle_options,
        )
        return {
            "chains": len(traces),
            "steps": result.steps,
            "loss": result.losses[-1][1],
            "learning": result.seconds,
        }

    def ask(
        self, weights: str, tags: Sequence[str], wrap: Wrap | None = None, max_calls: int | None = None
    ) -> Result:
        """The arm's answers on the test questions, through the graph."""
        context = AskContext(tools=tuple(tags), seed=self.seed, max_calls=max_calls)
        questions = list(items(self.sizes.asked, "test"))
        answers, _ = asyncio.run(
            ask_all(self.config(weights), questions, self.folder / "test-clips", context, wrap=wrap)
        )
        return scored(answers)

    def new(self) -> list[Sample]:
        """Questions that no corpus has, half as many."""
        first = self.sizes.corpus
        return list(load_world(first + first // 2, self.folder / "clips", self.seed))[first:]

    def self_training(self) -> Result:
        """Rejection sampling: the student's own answers to new questions, filtered, are learnt beside the
        reference chains."""
        folder, new = self.folder / "own", self.new()
        plan = Plan(retries=1, seed=self.seed, temperature=0.7)
        with one_thread():
            asyncio.run(
                construct(new, self.config(str(self.weights("both"))), folder, plan, Limits(concurrency=32))
            )
        kept = self._filter("own")
        frames = FrameStore(folder / "frames")
        reference = FrameStore(self.folder / "reference" / "frames")
        for c in kept:
            for f in c.trace.shown if c.trace else ():
                reference.put(frames.get(f.digest))
        learnt = self.learn(
            "self-training",
            [*self.reference(), *(c.trace for c in kept if c.trace)],
            "reference",
            base=str(self.weights("both")),
        )
        return (
            {"sampled": len(new), "own": len(kept)}
            | learnt
            | self.ask(str(self.weights("self-training")), TAGS)
        )

    def grpo(self) -> Result:
        settings = GrpoSettings(
            rounds=self.sizes.rounds,
            questions=12,
            group=4,
            learning_rate=5e-5,
            batch=16,
            seed=self.seed,
            reward=Reward(call=0.1),
        )
        folder = self.weights("grpo")
        rounds = train_folder(folder, self.new(), self.config(str(self.weights("both"))), settings)
        seen = [{"reward": r.reward, "accuracy": r.accuracy, "calls": r.calls} for r in rounds]
        return {"rounds": seen} | self.ask(str(folder), TAGS)

    def frame_tokens(self) -> Result:
        """What the students would write where a tool's frame stands: with the loss on frames, and without."""
        traces = [t for t in self.filtered("reference") if t.calls][:40]
        store = FrameStore(self.folder / "reference" / "frames")
        return {arm: frame_writing(self.weights(arm), traces, store) for arm in ("both", "loss-on-frames")}


def _end(trace: Trace) -> Trace | None:
    """What follows the view; a chain that does not begin with the view has none."""
    try:
        return after_view(trace).model_copy(update={"id": f"{trace.id}/end"})
    except ValueError:
        return None


def scored(answers: Iterable[Asked]) -> Result:
    """Counts, from which the report makes rates."""
    answers = list(answers)
    by = {
        f: [sum(a.right for a in answers if a.item.family == f), sum(a.item.family == f for a in answers)]
        for f in FAMILIES
    }
    needed = [(set(a.item.needed), a.called) for a in answers]
    return {
        "asked": len(answers),
        "right": sum(a.right for a in answers),
        "families": by,
        "calls": sum(len(a.trace.calls) for a in answers),
        "needed": sum(len(n) for n, _ in needed),
        "needed and called": sum(len(n & c) for n, c in needed),
        "tokens": sum(a.trace.usage.tokens for a in answers),
    }


def frame_writing(weights: Path, traces: Sequence[Trace], store: FrameStore) -> Result:
    """Of the tokens inside returned frames, how many the model would write itself: `marks` and vision tokens,
    by argmax."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    packer = Packer.from_pretrained(weights)
    model: Any = Qwen3VLForConditionalGeneration.from_pretrained(weights, dtype=torch.float32).eval()
    vision = {
        packer.image_token_id,
        *(packer.codec.tokenizer.convert_tokens_to_ids(t) for t in ("<|vision_start|>", "<|vision_end|>")),
    }
    counts = {"vision": 0, "vision written": 0, "opened": 0, "opened itself": 0}
    for trace in traces:
        prompt = Prompt(dict.fromkeys(trace.versions.tools, ""), "short")
        packed = packer.pack(render(trace, prompt, end_of_turn=True))
        start = len(packer.pack(render(trace.model_copy(update={"segments": ()}), prompt)).ids)
        ids = torch.tensor([packed.ids])
        with torch.no_grad():
            model.model.rope_deltas = None
            best = (
                model(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    mm_token_type_ids=(ids == packer.image_token_id).int(),
                    pixel_values=packer.patches(packed.images, store),
                    image_grid_thw=torch.tensor(packed.grids),
                )
                .logits[0]
                .argmax(-1)
                .tolist()
            )
        opening = packer.codec.encode("<frame>", "plain")
        for i in range(start, len(packed.ids)):
            if packed.ids[i] in vision:
                counts["vision"] += 1
                counts["vision written"] += best[i - 1] in vision
            if packed.ids[i : i + len(opening)] == opening and not packed.trainable[i]:
                counts["opened"] += 1
                counts["opened itself"] += best[i - 1] == opening[0]
    return counts


class Inserted(Reasoner):
    """A reasoner for which a frame is fetched by rule: once it has said what its view shows, with the
    question itself as query."""

    def __init__(self, reasoner: Reasoner) -> None:
        self.reasoner = reasoner
        self.name = f"{reasoner.name} with a frame by rule"

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Done]:
        inserted = "</frame>" in str(request.rollout)
        said, done = "", Done(StopReason.EOS)

        def viewed(piece: str) -> bool:
            nonlocal said
            said += piece
            return _CONCLUDES.search(said) is not None

        stream = self.reasoner.stream(request if inserted else replace(request, until=viewed))
        async with aclosing(stream):
            async for item in stream:
                if inserted:
                    yield item
                elif isinstance(item, Done):
                    done = item
        if not inserted:
            asked = next(
                p.text
                for p in request.rollout.pieces
                if isinstance(p, TextPiece) and p.trust == "plain" and p.text.startswith("\n")
            )
            text = f"{_CONCLUDES.split(said)[0]}<retrieve>{asked.strip().splitlines()[0]}</retrieve>"
            request.until(text)
            yield Delta(text)
            yield replace(done, stop=StopReason.UNTIL)

    def forget(self, session: str) -> None:
        self.reasoner.forget(session)
