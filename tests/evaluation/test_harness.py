"""A run of a benchmark: its lines and its table, what it refuses, and what a kill leaves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.evaluation import InstantArm, comparable, kill, make_suite, run_instant, start_instant

from act2see.errors import BenchmarkError, ReasonerError, VideoError, WeightsError
from act2see.evaluation.asking import Question, tell_apart
from act2see.evaluation.benchmarks import Suite, load_benchmark
from act2see.evaluation.harness import Options, choose_questions, open_evaluation
from act2see.evaluation.inspecting import make_task, run_tasks
from act2see.evaluation.keeping import RunFolder
from act2see.evaluation.records import QUESTIONS, RunRecord, read_questions, read_run
from act2see.evaluation.samples import Sample
from act2see.evaluation.summary import describe
from act2see.graphs.config import load_config
from act2see.micro.study.board import load_board
from act2see.micro.study.peers import Study
from act2see.trace.record import Answer
from act2see.trace.trace import Trace
from tests.evaluation import records as r


class KnowingArm(InstantArm):
    """Answers with what the samples say is right, or with what is wrong, by the words that it is shown."""

    name = "knowing"

    def __init__(self, suite: Suite, right: bool = True) -> None:
        super().__init__()
        self.asked: list[Question] = []
        self._suite = suite
        self._right = right

    async def ask(self, question: Question) -> Trace:
        self.asked.append(question)
        trace = await super().ask(question)
        body = self._answer(question)
        return trace.model_copy(update={"segments": (Answer(text=f"<answer>{body}</answer>", body=body),)})

    def _answer(self, question: Question) -> str:
        sample = next(s for s in self._suite.samples if s.video == question.video)
        wanted = {sample.options["ABCDE".index(sample.answer)]}
        if sample.then and question.text.startswith("You chose"):
            wanted = {sample.then.options["ABCDE".index(sample.then.answer)]}
        elif question.text.startswith("Which of these"):
            wanted = {sample.options["ABCDE".index(letter)] for letter in sample.sensible}
        places = [n for n, option in enumerate(question.options) if (option in wanted) == self._right]
        return ", ".join("ABCDE"[n] for n in (places if len(wanted) > 1 else places[:1]))


class FailingArm(InstantArm):
    """Fails on the questions that it is told to, so many times."""

    name = "failing"

    def __init__(self, error: Exception, times: dict[str, int]) -> None:
        super().__init__()
        self.error = error
        self.times = times

    async def ask(self, question: Question) -> Trace:
        place = question.video
        if self.times.get(place, 0) > 0:
            self.times[place] -= 1
            raise self.error
        return await super().ask(question)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., RunRecord]]:
    """Run a suite in a folder to its end."""

    def go(suite: Suite, arm: InstantArm, options: Options, name: str = "run") -> RunRecord:
        evaluation = open_evaluation(suite, arm, options, tmp_path / name)
        try:
            run_tasks(evaluation)
            return evaluation.finish()
        finally:
            evaluation.folder.close()

    return go


Run = Callable[..., RunRecord]
QUICK = Options(pictures=False, retries=1)


def with_videos(name: str, rows: list[object], folder: Path) -> Suite:
    """Load records, and make an empty file for each video."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(rows))
    absent = load_benchmark(name, path, missing="wrong").absent
    for sample in absent:
        video = folder / "videos" / f"{sample.video}.mp4"
        video.parent.mkdir(exist_ok=True)
        video.touch()
    return load_benchmark(name, path, missing="wrong")


def test_a_run_writes_a_line_for_each_question_and_a_table(tmp_path: Path) -> None:
    suite = make_suite(12)
    done = run_instant(suite, tmp_path / "run")
    lines = list(read_questions(tmp_path / "run"))
    assert [line.id for line in lines] == list(suite.ids)
    first, second = lines[:2]
    assert (first.truth, first.answer, first.correct, first.status) == ("A", "A", True, "answered")
    assert (second.truth, second.answer, second.correct, second.task) == ("B", "A", False, "Counting")
    assert (first.tokens, first.read, first.seconds, first.calls.all, first.frames) == (5, 9, 0.01, 0, 0)
    assert first.trace is not None
    assert Trace.load(tmp_path / "run" / first.trace).answer == "A"
    assert read_run(tmp_path / "run") == done
    assert done.state == "finished"
    assert done.score is not None
    assert (done.score.headline, done.score.accuracy.n, done.of) == (50.0, 12, 12)
    assert 0.25 < done.score.accuracy.low < 0.5 < done.score.accuracy.high < 0.75  # Wilson
    assert done.totals.tokens == 60
    assert done.totals.statuses == {"answered": 12}
    assert {b.name: b.headline for b in done.baselines} == {
        "longest": 50.0,  # "a kite": of equals, the first
        "shortest": 50.0,
        "always A": 50.0,
        "always B": 50.0,
        "always C": 0.0,
        "always D": 0.0,
    }
    assert done.weights["reasoner"].startswith("micro:vlm@")
    text = "\n".join(describe(done))
    for part in ("50.0 % accuracy (12 questions)", "without the video", "answered 12", "commit", "seed 0"):
        assert part in text


def test_who_knows_all_has_100_in_shuffled_options_of_three_questions(run: Run, tmp_path: Path) -> None:
    suite = with_videos("egonormia", [r.egonormia(n, n % 4) for n in range(5)], tmp_path)
    options = replace(QUICK, shuffle=True, epochs=2)
    oracle = KnowingArm(suite)
    done = run(suite, oracle, options)
    assert done.score is not None
    assert done.score.headline == 100.0
    assert done.score.measures == {"action": 100.0, "both": 100.0, "justification": 100.0, "sensible": 100.0}
    assert done.score.accuracy.n == 5  # two answers to a question are not two questions
    assert done.totals.questions == 10
    assert len(oracle.asked) == 30
    orders = {question.options for question in oracle.asked if question.video == suite.samples[0].video}
    assert len(orders) > 2  # behaviours and reasons, by seed
    line = next(read_questions(tmp_path / "run"))
    assert line.more_traces
    assert line.options["ABCDE".index(line.truth)] == suite.samples[0].options[suite.samples[0].right]
    assert "You chose" in Trace.load(tmp_path / "run" / line.more_traces[0]).question.text
    wrong = run(suite, KnowingArm(suite, right=False), options, "wrong")
    assert wrong.score is not None
    assert wrong.score.headline == 0.0


def test_video_espresso_shows_three_frames(run: Run, tmp_path: Path) -> None:
    suite = with_videos(
        "video-espresso", [r.espresso(n) | {"video_path": f"{n}"} for n in range(2)], tmp_path
    )
    arm = KnowingArm(suite)
    done = run(suite, arm, QUICK)
    assert done.score is not None
    assert done.score.headline == 100.0
    assert {question.frames for question in arm.asked} == {3}


def test_two_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    suite = make_suite(60)
    wanted = comparable(run_instant(suite, tmp_path / "whole"), tmp_path / "whole")
    folder, log = tmp_path / "killed", tmp_path / "asked.txt"
    for lines in (5, 35):
        child = start_instant(suite, folder, log, pause=0.2)
        deadline = time.monotonic() + 60
        while _count(folder / QUESTIONS) < lines and time.monotonic() < deadline:
            time.sleep(0.005)
        assert not kill(child)
        assert lines <= _count(folder / QUESTIONS) < 60
    with (folder / QUESTIONS).open("ab") as file:
        file.write(b'{"schema_version":1,"id":"q0')  # a line that a kill cut
    assert read_run(folder).state == "running"
    assert comparable(run_instant(suite, folder, log), folder) == wanted
    asked = log.read_text().splitlines()
    assert len(set(asked)) == 60
    assert len(asked) - 60 <= 2 * 32  # those that were being asked when the process was killed
    again = run_instant(suite, folder, log)
    assert len(log.read_text().splitlines()) == len(asked)
    assert comparable(again, folder) == wanted


def _count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_fault_of_a_server_is_tried_again_and_one_of_a_video_is_counted(run: Run, tmp_path: Path) -> None:
    suite = make_suite(4)
    done = run(suite, FailingArm(ReasonerError("the server is busy"), {"clips/1.mp4": 1}), QUICK, "busy")
    assert done.totals.statuses == {"answered": 4}
    broken = FailingArm(VideoError("clips/2.mp4 has no frames"), {"clips/2.mp4": 1})
    done = run(suite, broken, QUICK)
    assert done.totals.statuses == {"answered": 3, "failed": 1}
    assert done.score is not None
    assert done.score.accuracy.n == 4
    failed = [line for line in read_questions(tmp_path / "run") if line.status == "failed"]
    assert [(line.id, line.score, line.error) for line in failed] == [
        ("q00002", 0.0, "clips/2.mp4 has no frames")
    ]
    assert "failed 1" in "\n".join(describe(done))
    done = run(suite, broken, QUICK)  # asked again, since the video may have been mended
    assert done.totals.statuses == {"answered": 4}


def test_a_fault_of_the_set_up_ends_the_run_and_keeps_what_was_answered(run: Run, tmp_path: Path) -> None:
    suite = make_suite(3)
    arm = FailingArm(WeightsError("not downloaded: act2see download x"), {"clips/2.mp4": 99})
    once = replace(QUICK, concurrency=1, retries=0)
    with pytest.raises(WeightsError, match="act2see download x"):
        run(suite, arm, once)
    assert [line.id for line in read_questions(tmp_path / "run")] == ["q00000", "q00001"]
    down = FailingArm(ReasonerError("the server is gone"), {"clips/2.mp4": 99})
    with pytest.raises(BenchmarkError, match=r"the server is gone.*run the same command again"):
        run(suite, down, once)
    down.times = {}
    done = run(suite, down, QUICK)
    assert done.totals.statuses == {"answered": 3}


def test_missing_videos_are_an_explicit_choice(run: Run, tmp_path: Path) -> None:
    suite = make_suite(6)
    suite = replace(suite, samples=suite.samples[:4], absent=suite.samples[4:])
    with pytest.raises(
        BenchmarkError, match=r"2 of 6 questions have no video.*--missing wrong.*--missing skip"
    ):
        open_evaluation(suite, InstantArm(), QUICK, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    wrong = run(suite, InstantArm(), replace(QUICK, missing="wrong"), "wrong")
    skip = run(suite, InstantArm(), replace(QUICK, missing="skip"), "skip")
    assert wrong.score is not None
    assert skip.score is not None
    assert (wrong.score.accuracy.share, wrong.score.accuracy.n) == (2 / 6, 6)
    assert (skip.score.accuracy.share, skip.score.accuracy.n, skip.score.left_out) == (0.5, 4, 2)
    assert wrong.totals.statuses == {"answered": 4, "missing": 2}
    assert wrong.missing.videos == ("clips/4.mp4", "clips/5.mp4")
    assert "2 questions count as wrong" in "\n".join(describe(wrong))
    assert "2 questions are left out" in "\n".join(describe(skip))


def test_a_run_without_any_video_counts_all_as_wrong(run: Run, tmp_path: Path) -> None:
    suite = make_suite(3)
    suite = replace(suite, samples=(), absent=suite.samples)
    options = replace(QUICK, missing="wrong")
    done = run(suite, InstantArm(), options)
    assert done.score is not None
    assert (done.score.headline, done.score.accuracy.n) == (0.0, 3)
    assert done.totals.statuses == {"missing": 3}
    assert "answers: missing 3" in "\n".join(describe(done))
    evaluation = open_evaluation(suite, InstantArm(), options, tmp_path / "run")
    with pytest.raises(BenchmarkError, match="no question of instant has its video"):
        make_task(evaluation)
    evaluation.folder.close()


def test_the_limit_of_the_board_can_grow(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for count in (3, 5):
        suite = load_board(count, tmp_path / "clips")
        done = run(suite, InstantArm(log), replace(QUICK, limit=count))
        assert done.totals.questions == count
    assert len(log.read_text().splitlines()) == 5  # the first ones were not asked again
    few = load_board(3, tmp_path / "clips")
    assert few.samples == suite.samples[:3]
    with pytest.raises(BenchmarkError, match="holds 5 questions and --limit asks for 3: a limit can only"):
        open_evaluation(few, InstantArm(), replace(QUICK, limit=3), tmp_path / "run")


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    suite, folder = make_suite(4), tmp_path / "run"
    run_instant(suite, folder)

    def refuse(why: str, suite: Suite = suite, options: Options = QUICK, folder: Path = folder) -> None:
        with pytest.raises(BenchmarkError, match=why):
            open_evaluation(suite, InstantArm(), options, folder)

    refuse(r"holds another run \(seed '0', not '1'\).*--out", options=replace(QUICK, seed=1))
    refuse(r"shuffled 'False', not 'True'", options=replace(QUICK, shuffle=True))
    refuse(r"digest", suite=make_suite(5))  # the file is of another version
    refuse(r"benchmark 'instant', not 'other'", suite=replace(suite, benchmark="other"))
    refuse("a limit can only grow", options=replace(QUICK, limit=2))
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.png").touch()
    refuse("holds other files.*cat.png", folder=other)
    (tmp_path / "file").touch()
    refuse("is a file", folder=tmp_path / "file")
    line = (folder / QUESTIONS).read_bytes().splitlines(keepends=True)[0]
    with (folder / QUESTIONS).open("ab") as file:
        file.write(line)
    refuse("has 'q00000' twice")
    with pytest.raises(BenchmarkError, match="is there twice"):
        list(read_questions(folder))
    (folder / QUESTIONS).write_text('{"schema_version": 9}\n')
    refuse("line 1 has schema version 9")
    (folder / QUESTIONS).write_text("no JSON\n")
    refuse("line 1 is not JSON")


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    evaluation = open_evaluation(make_suite(2), InstantArm(), QUICK, tmp_path / "run")
    with pytest.raises(BenchmarkError, match="another process is running"):
        RunFolder(tmp_path / "run", evaluation.folder.run)
    evaluation.folder.close()
    open_evaluation(make_suite(2), InstantArm(), QUICK, tmp_path / "run").folder.close()


def test_a_limit_draws_from_the_whole_file_and_can_grow(run: Run, tmp_path: Path) -> None:
    suite = make_suite(200)
    few, more = (choose_questions(suite, n, skip=False) for n in (10, 40))
    assert few < more
    assert (len(few), len(more)) == (10, 40)
    assert sum(int(id[1:]) >= 100 for id in more) in range(12, 29)
    done = run(suite, InstantArm(), replace(QUICK, limit=3))
    assert (done.limit, done.of, done.totals.questions) == (3, 200, 3)
    done = run(suite, InstantArm(), replace(QUICK, limit=5))
    assert done.totals.questions == 5
    groups = load_of_groups(tmp_path)
    assert len(choose_questions(groups, 5, skip=False)) == 8  # whole groups of four


def load_of_groups(folder: Path) -> Suite:
    return with_videos("video-mme-v2", [row for n in range(4) for row in r.video_mme_v2(n)], folder)


def test_a_free_answer_needs_a_judge(tmp_path: Path) -> None:
    sample = Sample(id="1", benchmark="own", video="a.mp4", question="Why?", kind="text", answer="It fell.")
    suite = Suite("own", (sample,), (), "wrong", (), ("1",))
    with pytest.raises(BenchmarkError, match=r"1 questions have free answers.*--judge"):
        open_evaluation(suite, InstantArm(), QUICK, tmp_path / "run")


def test_a_judge_without_json_is_asked_again_and_counted(run: Run, tmp_path: Path) -> None:
    class Judge:
        name = "muddled-1"
        replies = iter(("yes!", '{"same": true}', "{", "same", "true"))

        async def ask(self, prompt: str) -> str:
            return next(self.replies)

    samples = tuple(
        Sample(id=str(n), benchmark="own", video=f"{n}.mp4", question="Why?", kind="text", answer="A")
        for n in range(2)
    )
    suite = Suite("own", samples, (), "wrong", (), ("0", "1"))
    done = run(suite, InstantArm(), replace(QUICK, judge=Judge(), concurrency=1))
    assert done.score is not None
    assert (done.score.judge, done.score.malformed) == ("muddled-1", 4)
    assert done.totals.statuses == {"answered": 1, "malformed": 1}
    assert (done.score.accuracy.share, done.score.accuracy.n) == (0.5, 2)
    assert "4 of its replies were no valid JSON" in "\n".join(describe(done))


def test_options_with_the_same_words_are_told_apart() -> None:
    assert tell_apart(("Ann.", "Ann.", "Bo.", "Ann. (2)")) == ("Ann.", "Ann. (2)", "Bo.", "Ann. (2) (2)")


def test_a_reader_of_another_version_says_so(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="holds no run"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text('{"schema_version": 2}')
    with pytest.raises(BenchmarkError, match="schema version 2 and this act2see reads 1"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text('{"schema_version": 1, "sating": {}}')
    with pytest.raises(BenchmarkError, match=r"run\.json: "):
        read_run(tmp_path)


def test_a_study_of_peers_has_a_run_for_each_way_and_does_not_ask_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    study = Study(make_suite(8), load_config("micro"), tmp_path / "study")
    for _ in range(2):
        found = study.ask(InstantArm(log))
        assert (found.name, list(found.scores.values()), found.tokens) == ("instant", [1, 0] * 4, 14)
        assert found.weights["reasoner"].startswith("micro:vlm@")
        assert (found.cited, found.caption_tokens) == (0, [])
    assert len(log.read_text().splitlines()) == 8
    assert read_run(tmp_path / "study/instant").state == "finished"
