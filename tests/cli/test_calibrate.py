"""`act2see calibrate` on board clips with micro's encoder, and what `find`, `ask` and `doctor` make of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.cli.helpers import assert_one_line_error, write_footage
from typer.testing import CliRunner

from act2see.cli.app import app
from act2see.cli.queries import NamedQuery, read_queries
from act2see.errors import CalibrationError
from act2see.micro.questions import Item, ToolCall, items
from act2see.micro.world import write_clip
from act2see.tools.search.thresholds import Calibration
from act2see.trace.record import Call, Frames, Question, Versions, Video
from act2see.trace.trace import Trace

CLIPS = 5
# Texts that no clip shows, so that there are enough queries for a rate of 10%.
ABSENT = ("a dog", "a street", "two people talk", "a car turns left", "rain", "a page of a book")


@dataclass
class Place:
    """A folder with board clips, queries about them, and a configuration with a cache of its own."""

    folder: Path
    clips: list[str]
    config: Path
    queries: Path

    @property
    def stored(self) -> list[Path]:
        return list((self.folder / "cache").glob("calibrations/*.json"))

    def run(self, *args: object, code: int = 0) -> Any:
        result = CliRunner().invoke(app, [*map(str, args), "--config", str(self.config)])
        assert result.exit_code == code, result.output
        return result

    def calibrate(self, *args: object, code: int = 0) -> Any:
        queries = () if "--queries" in args else ("--queries", self.queries)
        return self.run("calibrate", *self.clips, *queries, "--false-alarms", "0.1", *args, code=code)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Item, str]]:
    """Clips with the query of each chain, which is true of no other clip."""
    folder = tmp_path_factory.mktemp("board")
    found: list[tuple[str, Item, str]] = []
    for item in items(200, "test", ("blink",)):
        calls = [step.query for step in item.chain if isinstance(step, ToolCall)]
        known = ["a shape blinks", *(query for _, _, query in found)]
        if calls and calls[0] not in known:
            found.append((str(write_clip(item.clip, folder / f"{len(found)}.mp4")), item, calls[0]))
        if len(found) == CLIPS:
            return found
    raise AssertionError("too few clips")


@pytest.fixture(scope="module")
def indexed(board: list[tuple[str, Item, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the indexes of the clips and nothing else."""
    cache = tmp_path_factory.mktemp("indexed") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACT2SEE_CACHE", str(cache))
        result = CliRunner().invoke(app, ["index", "--preset", "micro", *(clip for clip, _, _ in board)])
    assert result.exit_code == 0, result.output
    return cache


@pytest.fixture
def fresh(board: list[tuple[str, Item, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("ACT2SEE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "240")
    config = tmp_path / "mine.yaml"
    config.write_text("preset: micro\n", encoding="utf-8")
    queries = tmp_path / "queries.tsv"
    lines = [f"{Path(clip).name}\t{query}" for clip, _, query in board]
    lines += [f"elsewhere.mp4\t{text}" for text in ABSENT]
    queries.write_text("video\tquery\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return Place(tmp_path, [clip for clip, _, _ in board], config, queries)


@pytest.fixture
def place(fresh: Place, indexed: Path) -> Place:
    """A place whose clips are indexed, so that only the first test indexes them by calibrating."""
    shutil.copytree(indexed, fresh.folder / "cache")
    return fresh


def test_a_calibrated_threshold_is_stored_shown_and_used(
    fresh: Place, board: list[tuple[str, Item, str]]
) -> None:
    clip, item, _ = board[0]
    before = fresh.run("doctor").stdout
    assert "of the weights" in before
    said = fresh.calibrate()
    assert "6 queries are about videos that were not given (elsewhere.mp4)" in said.stderr
    [file] = fresh.stored
    made = Calibration.model_validate_json(file.read_text())
    assert made.weights == "micro:encoder"
    assert made.encoder == file.stem
    assert (made.queries, made.own_queries, made.videos) == (11, 5, 5)
    assert made.false_alarms <= made.rate == 0.1
    for words in (
        f"threshold {made.threshold:g}",
        "of 11 queries find a frame in other videos; asked for: at most 10%",
        "of 5 queries find a frame in their own videos",
        f"stored for the encoder {made.encoder}: {file}",
    ):
        assert words in said.stdout
    after = fresh.run("doctor").stdout
    assert f"{made.threshold:g} (calibrated: 10% false alarms, 11 queries, 5 videos)" in after
    asked = fresh.run("ask", clip, item.text, *[w for o in item.options for w in ("-o", o)], "--json").stdout
    version = Trace.from_json(asked).versions.tools["retrieve"]
    assert version == f"retrieve {made.encoder}, no match below {made}"


def test_find_marks_frames_below_the_threshold(place: Place, board: list[tuple[str, Item, str]]) -> None:
    clip, _, query = board[0]
    page = place.folder / "page.html"
    good = place.run("find", clip, query, "--top", "3", "--html", page)
    assert "No match" not in good.stdout
    absent = place.run("find", clip, "a dog", "--top", "2", "--html", page)
    assert absent.stdout.count("no match") == 2
    assert "No match: the closest frame, at " in absent.stdout
    assert "threshold: " in absent.stdout
    assert "of the weights" in absent.stdout
    assert page.read_text(encoding="utf-8").count("no match, score") == 2
    segments = place.run("find", clip, "a dog", "--segments")
    assert "No match: the closest frame, at " in segments.stdout
    place.config.write_text("preset: micro\ntools: {retrieve: {options: {no_match: -1}}}\n")
    every = place.run("find", clip, "a dog", "--top", "2")
    assert "o match" not in every.stdout
    assert "o match" not in place.run("find", clip, "a dog", "--segments").stdout


def test_json_and_a_dry_run(place: Place) -> None:
    data = json.loads(place.calibrate("--json", "--dry-run").stdout)
    assert (data["rate"], data["queries"], data["file"]) == (0.1, 11, None)
    scores = [frame["score"] for frame in data["highest"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 5
    assert set(data["highest"][0]) == {"query", "video", "seconds", "score"}
    assert not place.stored
    stored = json.loads(place.calibrate("--json").stdout)
    assert [stored["file"]] == [str(file) for file in place.stored]
    assert stored["threshold"] == data["threshold"]


def test_too_few_queries_are_refused_before_anything_is_indexed(fresh: Place) -> None:
    result = fresh.calibrate("--false-alarms", "0.05", code=2)
    for words in ("5% needs 19 queries", "there are 11", "--false-alarms 0.084"):
        assert words in result.stderr
    assert not list((fresh.folder / "cache").glob("indexes/*"))
    one = fresh.run("calibrate", fresh.clips[0], "--queries", fresh.queries, "--false-alarms", "0.01", code=2)
    assert "there are 10" in one.stderr


def test_footage_that_the_models_cannot_understand_is_refused(place: Place, tmp_path: Path) -> None:
    street = write_footage(tmp_path / "street.mp4")
    result = place.calibrate(street, code=2)
    assert "street.mp4 cannot be used: this clip does not show a 3 x 3 board" in result.stderr
    assert not place.stored


def test_a_damaged_calibration_is_reported_and_can_be_replaced(place: Place) -> None:
    place.calibrate()
    [file] = place.stored
    file.write_text("rubbish")
    assert "cannot be read" in place.run("doctor", code=1).stdout
    assert_one_line_error(place.run("find", place.clips[0], "a ring", code=2), "delete it, or run")
    place.calibrate()
    assert "calibrated: 10% false alarms" in place.run("doctor").stdout


def test_the_configuration_takes_precedence(place: Place) -> None:
    place.config.write_text("preset: micro\ntools: {retrieve: {options: {no_match: 0.5}}}\n")
    assert "sets its own threshold, 0.5, which takes precedence" in place.calibrate().stderr
    assert "0.5, set in the configuration" in place.run("doctor").stdout


def test_a_copy_of_a_video_counts_once(place: Place) -> None:
    copy = place.folder / "copy.mp4"
    copy.write_bytes(Path(place.clips[0]).read_bytes())
    result = place.run("calibrate", *place.clips, copy, "--queries", place.queries, "--false-alarms", "0.1")
    assert "is the same video as" in result.stderr
    assert "5 videos" in place.run("doctor").stdout


def trace_of(queries: dict[str, str], digest: str, tools: dict[str, str]) -> Trace:
    """A trace with a call of each tag, and its result."""
    segments: list[Any] = []
    for tag, query in queries.items():
        segments.append(Call(text=f"<{tag}>{query}</{tag}>", tag=tag, query=query))
        segments.append(Frames(tag=tag, note="nothing"))
    segments.append(Call(text="<retrieve></retrieve>", tag="retrieve", query="", outcome="empty"))
    video = Video(path="old/place.mp4", digest=digest, seconds=4, width=48, height=48, frames=48, fps=12)
    return Trace(
        id="run",
        video=video,
        question=Question(text="?"),
        segments=tuple(segments),
        versions=Versions(tools=tools),
    )


def test_traces_give_the_queries_that_retrieve_searched_for(tmp_path: Path) -> None:
    tools = {"look": "retrieve abc, no match below 0.3", "generate": "generate m", "retrieve": "retrieve abc"}
    trace = trace_of({"look": "the ring", "generate": "it in blue", "retrieve": "a cross"}, "d" * 32, tools)
    expected = [NamedQuery(q, "old/place.mp4", "d" * 32) for q in ("the ring", "a cross")]
    saved = tmp_path / "saved" / "run"
    saved.mkdir(parents=True)
    trace.save(saved / "trace.json")
    (saved / "other.json").write_text('{"schema": 1}')
    (saved / "broken.json").write_text("{")
    assert read_queries(saved / "trace.json") == expected
    assert read_queries(tmp_path / "saved") == expected
    lines = tmp_path / "many.jsonl"
    chain = json.dumps({"chains_version": 1, "trace": json.loads(trace.to_json())})
    lines.write_text(
        f'{trace.to_json()}\n\n{chain}\n{{"trace": null}}\n{{"video": "a.mp4", "query": "rain"}}\n'
    )
    assert read_queries(lines) == [*expected, *expected, NamedQuery("rain", "a.mp4")]


def test_kept_traces_are_the_default(place: Place) -> None:
    cache = place.folder / "cache"
    assert_one_line_error(place.run("calibrate", *place.clips, code=2), "no traces are kept", "--queries")
    (cache / "traces").mkdir(parents=True)
    for n, text in enumerate(ABSENT):
        trace_of({"retrieve": text}, "e" * 32, {"retrieve": "retrieve abc"}).save(cache / f"traces/{n}.json")
    said = place.run("calibrate", *place.clips, "--false-alarms", "0.2")
    assert "6 queries of kept traces" in said.stderr
    assert "of 6 queries find a frame in other videos" in said.stdout


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.tsv", "clip.mp4 the ring\n", "line 1: write a video and a query, separated by a tab"),
        ("a.csv", "clip.mp4\n", "line 1: write a video and a query, separated by a comma"),
        ("a.csv", "a.mp4,ring\n,cross\n", "line 2: write a video"),
        ("a.jsonl", '{"video": "a.mp4"}\n', r'line 1: write {"video": "FILE", "query": "TEXT"}, or a trace'),
        ("a.jsonl", "[1]\n", "line 1 is not an object"),
        ("a.jsonl", "rubbish\n", "line 1 is not JSON"),
        ("a.tsv", "a.mp4\tring\nb.mp4\tcaf\udce9\n", "line 2 is not UTF-8: save the file as UTF-8"),
        ("a.jsonl", "\n\udcff\n", "line 2 is not UTF-8"),
        ("a.csv", "a.mp4,ring\nb.mp4,a\0b\n", "line 2 has a NUL character"),
        ("a.csv", "a.mp4,a man, a dog\n", r"line 1 has 3 cells instead of 2 \(video, query\): put a query"),
        ("a.tsv", "a.mp4\tring\tcross\n", r"line 1 has 3 cells .*: name each column in the first line"),
        (
            "a.csv",
            'a.mp4,"two\nlines"\nb.mp4,"ring\nc.mp4,cross\n',
            "line 3 is not a row .* check its quotes",
        ),
        ("a.csv", f"a.mp4,ring\nb.mp4,{'x' * 200_000}\n", "line 2 is not a row .*field limit"),
        ("a.txt", "a\tb\n", "cannot be read from .*: name a .tsv, .csv, .jsonl or .json file"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, name: str, text: str, why: str) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(CalibrationError, match=why):
        read_queries(file)


def test_a_missing_or_empty_file_is_named(place: Place) -> None:
    missing = place.folder / "none.tsv"
    assert_one_line_error(
        place.calibrate("--queries", missing, code=2), "cannot read the queries", "none.tsv"
    )
    missing.write_text("video\tquery\n")
    assert_one_line_error(place.calibrate("--queries", missing, code=2), "there are no queries in")


def test_tables_with_a_byte_order_mark_and_quotes_are_read(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_bytes('\ufeffvideo,query\r\n"a, b.mp4","a ring, then a cross"\r\n'.encode())
    assert read_queries(table) == [NamedQuery("a ring, then a cross", "a, b.mp4")]
    table.write_text('a.mp4, "two\nlines"\r\rb.mp4,cross,,\r', newline="")
    assert read_queries(table) == [NamedQuery("two lines", "a.mp4"), NamedQuery("cross", "b.mp4")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_tables_of_spreadsheets_in_utf_16_are_read(tmp_path: Path, encoding: str) -> None:
    table = tmp_path / "a.tsv"
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    table.write_bytes(f"{mark}Video\tQuery\r\na.mp4\tun café\r\n".encode(encoding))
    assert read_queries(table) == [NamedQuery("un café", "a.mp4")]


def test_quotes_in_a_tsv_file_are_text_unless_they_enclose_a_cell(tmp_path: Path) -> None:
    table = tmp_path / "a.tsv"
    table.write_text('a.mp4\t"a man says "hi"\nb.mp4\tlook\nc.mp4\t"he says ""hi"""\nd.mp4\t5" disk\n')
    expected = ['"a man says "hi"', "look", 'he says "hi"', '5" disk']
    assert [query.query for query in read_queries(table)] == expected


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_a_header_names_columns_in_any_case_and_order(tmp_path: Path, name: str) -> None:
    table = tmp_path / name
    rows = [("Note", "QUERY", "Video"), ("x", "a ring", "a  b.mp4"), ("", "cross", "c.mp4")]
    table.write_text("".join(("\t" if name == "a.tsv" else ",").join(row) + "\n" for row in rows))
    assert read_queries(table) == [NamedQuery("a ring", "a  b.mp4"), NamedQuery("cross", "c.mp4")]


def mixed_up(place: Place) -> Path:
    """Queries of which none is about a clip that shows it."""
    rows = [row.split("\t") for row in place.queries.read_text().splitlines()[1:]]
    names = [name for name, _ in rows]
    table = place.folder / "mixed.tsv"
    mixed = zip([*names[CLIPS:], *names[:CLIPS]], [text for _, text in rows], strict=True)
    table.write_text("".join(f"{name}\t{text}\n" for name, text in mixed))
    return table


def test_a_threshold_that_separates_nothing_is_stored_only_by_force(place: Place) -> None:
    table = mixed_up(place)
    refused = place.calibrate("--queries", table, code=2)
    assert "threshold " in refused.stdout
    assert "not stored" in refused.stdout
    assert refused.stderr.count("error: the threshold does not tell videos apart") == 1
    assert "--force stores it" in refused.stderr
    assert not place.stored
    tried = place.calibrate("--queries", table, "--dry-run", "--json")
    assert json.loads(tried.stdout)["separates"] is False
    assert "warning: the threshold does not tell videos apart" in tried.stderr
    forced = place.calibrate("--queries", table, "--force")
    assert "warning: the threshold does not tell videos apart" in forced.stderr
    assert len(place.stored) == 1


def test_repeats_and_missing_own_queries_are_reported(place: Place) -> None:
    table = place.folder / "absent.tsv"
    table.write_text("".join(f"elsewhere.mp4\t{text}\n" for text in (*ABSENT, *ABSENT, "a cat", "A  dog")))
    said = place.calibrate("--queries", table, "--false-alarms", "0.2")
    assert "14 queries are 7 different texts, each of which counts once" in said.stderr
    assert "no query is about a given video, so it is unknown what the threshold misses" in said.stderr
    assert len(place.stored) == 1
