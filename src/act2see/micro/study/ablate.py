"""The paper's ablations on the board world: `act2see micro ablate`.

Every arm is a student that starts from the same base model and trains for the same number of steps; arms
differ in their corpus, their tools, or the tokens of their loss. The scripted teacher makes the chains
through the real graph and tools, so the noisy arms show the effect of given faults on a student, not how
often a real teacher makes them. The tables are those of the paper: 4 (`insertion`), 6 (`corpus-hinted`), 7
(`unfiltered`, `filtered`), 8 (`text`, `retrieval`, `generation`, `both`).

Each finished stage writes its result to `seed-N/STAGE.json`. It is not run again while that file exists, so
an interrupted run can be resumed. The report reads only these files (`ablate_report`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from act2see.agent.reasoners.base import Reasoner
from act2see.errors import CorpusError
from act2see.graphs.config import Config, load_config
from act2see.graphs.state import AskContext
from act2see.micro.questions import TAGS, items
from act2see.micro.recipe.corpus import after_view, shuffle_options, with_tools
from act2see.micro.source import THRESHOLD, load_world
from act2see.micro.study.evaluate import ask_all, count_answers, one_thread
from act2see.micro.study.probes import FrameByRule, count_written_frames
from act2see.micro.teacher import Faults, ScriptedTeacher
from act2see.tools.runtime.files import write_text
from act2see.tools.runtime.memory import release
from act2see.tools.video.store import FrameStore
from act2see.trace.record import Frames
from act2see.trace.trace import Trace
from act2see.training.corpus.construct import ConstructLimits, ConstructPlan, construct
from act2see.training.corpus.filtering import filter_chains
from act2see.training.corpus.records import Chain, read_chains, write_chains
from act2see.training.corpus.similarity import SentenceEncoder
from act2see.training.corpus.sources import Sample
from act2see.training.grpo import GrpoSettings, Reward, train_folder
from act2see.training.sft.finetune import finetune
from act2see.training.sft.loop import fast_bf16
from act2see.training.sft.settings import SftSettings

Result = dict[str, Any]
"""The figures of a stage, as they are saved."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the study."""

    corpus: int = 800
    """Questions in a corpus."""
    hinted: int = 100
    """Questions in the corpus of the hinted teacher."""
    steps: int = 220
    """Steps of SFT."""
    asked: int = 160
    """Questions that each arm is asked."""
    rounds: int = 12
    """Rounds of GRPO."""
    seeds: int = 3
    """Seeds with which every stage is repeated."""


QUICK = Sizes(corpus=400, hinted=50, steps=120, asked=80, rounds=4, seeds=1)
ENDS = 5
"""How often the end of a chain is used in training for each use of the whole chain."""

OnStage = Callable[[str, float], None]
"""A function that is called with the name of a finished stage and its seconds."""


def ablate(out: Path, sizes: Sizes, on_stage: OnStage | None = None, only: Sequence[str] = ()) -> None:
    """Run the stages that are not finished.

    Args:
        out: The folder of the results.
        sizes: The sizes of the study.
        on_stage: Called after each stage.
        only: The stages to run. Stages that they depend on must be included or finished. Default: all.

    Raises:
        CorpusError: If `out` holds results of other sizes.
    """
    _check_same_sizes(out, sizes)
    for seed in range(sizes.seeds):
        run = _SeedRun(out / f"seed-{seed}", seed, sizes)
        for name, stage in run.stages().items():
            if run.file(name).exists() or (only and name not in only):
                continue
            started = time.perf_counter()
            result = stage()
            seconds = round(time.perf_counter() - started, 1)
            result |= {"stage": name, "seed": seed, "seconds": seconds}
            write_text(run.file(name), json.dumps(result, indent=1) + "\n")
            release()  # a trainer leaves reference cycles, which hold its model
            if on_stage:
                on_stage(f"seed {seed}, {name}", seconds)


def _check_same_sizes(out: Path, sizes: Sizes) -> None:
    """Write the sizes to the folder or, if it has some, check that they are equal. Seeds can be added."""
    file = out / "sizes.json"
    given = {name: size for name, size in asdict(sizes).items() if name != "seeds"}
    if not file.exists():
        write_text(file, json.dumps(given) + "\n")
    elif json.loads(file.read_text(encoding="utf-8")) != given:
        raise CorpusError(f"{out} holds results of other sizes (was it --quick?): give another folder")


@dataclass(slots=True)
class _SeedRun:
    """The stages of one seed."""

    folder: Path
    seed: int
    sizes: Sizes

    def file(self, stage: str) -> Path:
        """Return the file of a stage's result."""
        return self.folder / f"{stage}.json"

    def stages(self) -> dict[str, Callable[[], Result]]:
        """Return all stages by name, each after those that it depends on."""
        arms: dict[str, Callable[[], Result]] = {
            "corpus-reference": lambda: self.build("reference", Faults(0, 0, 0, 0)),
            "corpus-noisy": lambda: self.build("noisy", Faults()),
            "corpus-hinted": lambda: self.build("hinted", Faults(), hint=True, count=self.sizes.hinted),
            "base": lambda: self.ask("micro:base", TAGS),
            "insertion": lambda: self.ask("micro:base", TAGS, FrameByRule),
            "both": lambda: self.arm("both", self.reference(), TAGS),
            "text": lambda: self.arm("text", self.reference(()), ()),
            "retrieval": lambda: self.arm("retrieval", self.reference(TAGS[:1]), TAGS[:1]),
            "generation": lambda: self.arm("generation", self.reference(TAGS[1:]), TAGS[1:]),
            "unfiltered": lambda: self.arm("unfiltered", self.traces("noisy"), TAGS, "noisy"),
            "filtered": lambda: self.arm("filtered", self.filtered("noisy"), TAGS, "noisy"),
            "loss-on-frames": lambda: self.arm("loss-on-frames", self.reference(), TAGS, loss_on_frames=True),
            "frame-tokens": self.frame_tokens,
        }
        for calls in range(4):  # every arm may make four
            arms[f"budget-{calls}"] = partial(self.ask, str(self.weights("both")), TAGS, max_calls=calls)
        return {**arms, "self-training": self.self_training, "grpo": self.grpo}

    def weights(self, arm: str) -> Path:
        """Return the folder of an arm's weights."""
        return self.folder / "arms" / arm

    def config(self, weights: str = "micro:vlm") -> Config:
        """Return the micro preset with this VLM."""
        return load_config(
            "micro",
            cache=str(self.folder / "cache"),
            reasoner={"weights": weights, "prompt": "short"},
            view={"guard": None},
        )

    # Corpora

    def build(self, name: str, faults: Faults, *, hint: bool = False, count: int | None = None) -> Result:
        """Build a corpus of the teacher's first attempts, right or wrong; only some arms filter them.

        Args:
            name: The name of the corpus.
            faults: The teacher's faults.
            hint: Whether the prompt contains the right answer.
            count: The number of questions. Default: that of `sizes`.
        """
        samples = list(load_world(count or self.sizes.corpus, self.folder / "clips", self.seed))
        plan = ConstructPlan(retries=0, seed=self.seed, hint=hint)
        teacher = ScriptedTeacher(faults, self.seed)
        self._construct(samples, self.config(), name, plan, concurrency=8, reasoner=teacher)
        chains = self.chains(name)
        kept = self._filter(name)
        return {
            "made": len(chains),
            "called": sum(_has_frame(c.trace) for c in chains if c.trace),
            "right": sum(not c.dropped for c in chains),
            "kept": len(kept),
        }

    def _construct(
        self,
        samples: Sequence[Sample],
        config: Config,
        name: str,
        plan: ConstructPlan,
        concurrency: int,
        reasoner: Reasoner | None = None,
    ) -> None:
        limits = ConstructLimits(concurrency=concurrency)
        with one_thread():
            asyncio.run(construct(samples, config, self.folder / name, plan, limits, reasoner=reasoner))

    def _filter(self, name: str) -> list[Chain]:
        folder = self.folder / name
        chains = read_chains(folder / "chains.jsonl")
        encoder = SentenceEncoder("minilm")
        write_chains(filter_chains(chains, encoder, threshold=THRESHOLD), folder / "filtered.jsonl")
        return [c for c in self.chains(name, "filtered.jsonl") if not c.dropped]

    def chains(self, name: str, file: str = "chains.jsonl") -> list[Chain]:
        """Return the chains with a trace, in an order that does not depend on the order of completion."""
        chains = [c for c in read_chains(self.folder / name / file) if c.trace]
        return sorted(chains, key=lambda c: c.sample.id)

    def traces(self, name: str) -> list[Trace]:
        """Return the traces of a corpus."""
        return [c.trace for c in self.chains(name) if c.trace]

    def filtered(self, name: str) -> list[Trace]:
        """Return the traces of a corpus that pass the filter."""
        return [c.trace for c in self.chains(name, "filtered.jsonl") if c.trace and not c.dropped]

    def reference(self, tags: Sequence[str] = TAGS) -> list[Trace]:
        """Return the reference chains as they would be with only these tools."""
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
        """Train an arm and ask it the test questions.

        Args:
            name: The name of the arm.
            traces: The traces to train on.
            tags: The tools of the test questions.
            run: The corpus whose folder holds the frames of the traces.
            loss_on_frames: Whether the loss includes the tokens of returned frames.
        """
        learning = self.learn(name, traces, run, loss_on_frames=loss_on_frames)
        return learning | self.ask(str(self.weights(name)), tags)

    def learn(
        self,
        name: str,
        traces: list[Trace],
        run: str,
        *,
        base: str = "micro:base",
        loss_on_frames: bool = False,
    ) -> Result:
        """Train a student.

        Args:
            name: The name of the arm.
            traces: The traces to train on.
            run: The corpus whose folder holds the frames of the traces.
            base: The weights to start from.
            loss_on_frames: Whether the loss includes the tokens of returned frames.
        """
        rate = 1e-3
        steps = self.sizes.steps
        if base != "micro:base":
            # The base is a trained student, which needs a lower rate and half the steps.
            rate = 3e-4
            steps = max(1, steps // 2)
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
        # A chain is mostly description, which the base model has learned: train mostly on the text after it.
        ends = [end for trace in traces if (end := _end_of_chain(trace))]
        repeated = []
        for n in range(ENDS):
            repeated += [end.model_copy(update={"id": f"{end.id}/{n}"}) for end in ends]
        result = finetune(
            [*traces, *repeated],
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
        self,
        weights: str,
        tags: Sequence[str],
        wrap: Callable[[Reasoner], Reasoner] | None = None,
        max_calls: int | None = None,
    ) -> Result:
        """Ask the test questions through the graph; return the counts.

        Args:
            weights: The VLM.
            tags: The tools that it can call.
            wrap: Wraps the reasoner in another one.
            max_calls: The number of calls allowed for a question. Default: that of the preset.
        """
        context = AskContext(tools=tuple(tags), seed=self.seed, max_calls=max_calls)
        questions = list(items(self.sizes.asked, "test"))
        answers, _ = asyncio.run(
            ask_all(self.config(weights), questions, self.folder / "test-clips", context, wrap=wrap)
        )
        return count_answers(answers)

    def new_questions(self) -> list[Sample]:
        """Return questions that are in no corpus, half as many as in a corpus."""
        first = self.sizes.corpus
        return list(load_world(first + first // 2, self.folder / "clips", self.seed))[first:]

    def self_training(self) -> Result:
        """Train a student on its own filtered answers to new questions, along with the reference chains."""
        student = str(self.weights("both"))
        new = self.new_questions()
        plan = ConstructPlan(retries=1, seed=self.seed, temperature=0.7)
        self._construct(new, self.config(student), "own", plan, concurrency=32)
        own = [c.trace for c in self._filter("own") if c.trace]
        frames = FrameStore(self.folder / "own" / "frames")
        reference = FrameStore(self.folder / "reference" / "frames")
        for trace in own:
            for frame in trace.shown:
                reference.put(frames.get(frame.digest))
        traces = [*self.reference(), *own]
        learning = self.learn("self-training", traces, "reference", base=student)
        answers = self.ask(str(self.weights("self-training")), TAGS)
        return {"sampled": len(new), "own": len(own)} | learning | answers

    def grpo(self) -> Result:
        """Train a student by GRPO on new questions."""
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
        rounds = train_folder(folder, self.new_questions(), self.config(str(self.weights("both"))), settings)
        seen = [{"reward": r.reward, "accuracy": r.accuracy, "calls": r.calls} for r in rounds]
        return {"rounds": seen} | self.ask(str(folder), TAGS)

    def frame_tokens(self) -> Result:
        """Count the frame tokens that students would write themselves, with and without the loss on
        frames."""
        traces = [t for t in self.filtered("reference") if t.calls][:40]
        store = FrameStore(self.folder / "reference" / "frames")
        counts: Result = {}
        for arm in ("both", "loss-on-frames"):
            counts[arm] = count_written_frames(self.weights(arm), traces, store)
        return counts


def _has_frame(trace: Trace) -> bool:
    return any(isinstance(s, Frames) and s.frames for s in trace.segments)


def _end_of_chain(trace: Trace) -> Trace | None:
    """Return the chain after its description of the view, or None if it does not begin with one."""
    try:
        return after_view(trace).model_copy(update={"id": f"{trace.id}/end"})
    except ValueError:
        return None
