"""`act2see calibrate`: finds the score below which a frame does not match, at a stated false-alarm rate."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from act2see.cli.find import build_index, guard_refusal
from act2see.cli.options import ConfigFile, Preset, chosen_config
from act2see.cli.output import complain, note, print_json, progress_bar, say
from act2see.errors import CalibrationError

if TYPE_CHECKING:
    from act2see.cli.queries import NamedQuery
    from act2see.graphs.config import Config
    from act2see.tools.base import Resources
    from act2see.tools.search.calibration import BestFrame, Query, ScoredQuery
    from act2see.tools.search.finder import Finder
    from act2see.tools.search.thresholds import Calibration

_HIGHEST = 5  # false alarms that are listed
_UNSEPARATED = (
    "the threshold does not tell videos apart: queries find no more frames in their own than in others"
)
_HOW = (
    "write a .tsv file with a line for each query, VIDEO and QUERY separated by a tab, and name it with "
    "--queries"
)


def calibrate(
    videos: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Video files.", show_default=False)],
    queries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="The queries, and the videos that they are about: a .tsv or .csv table (video, query), JSON "
            "lines, or saved traces. Default: the traces that the web page and the MCP server have kept.",
        ),
    ] = None,
    false_alarms: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=0.5,
            help="The share of queries about other videos that may find a frame.",
        ),
    ] = 0.05,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do not store the threshold.")] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Store a threshold that does not tell videos apart."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    preset: Preset = None,
    config: ConfigFile = None,
) -> None:
    """Calibrate the score below which a frame does not match a query.

    Needs a few of your videos, and queries about them. Queries about other videos give the threshold. It is
    stored for the encoder, and applies unless a configuration sets `tools.retrieve.options.no_match`. It is
    not stored if the queries about your videos do not find frames in them more often than in others.
    """
    from act2see.cli.thresholds import configured_threshold
    from act2see.graphs.parts import build_resources
    from act2see.tools.search.calibration import calibrate as calibrate_scores
    from act2see.tools.search.thresholds import save_calibration

    chosen = chosen_config(preset, config)
    resources = build_resources(chosen)
    finder = resources.finder
    by_digest = _open_videos(finder, videos)
    asked = _collect_queries(_read(queries, finder.cache), queries, by_digest)
    _check_queries(asked, by_digest, false_alarms)
    _check_videos(chosen, resources, by_digest.values())
    scored = _score(finder, by_digest, asked)
    result = calibrate_scores(finder, chosen.encoder.weights, scored, false_alarms)
    is_refused = not (result.separates or force or dry_run)
    file = None if dry_run or is_refused else save_calibration(finder.cache, result)
    highest = _highest(scored)
    if json:
        print_json(_to_json(result, highest, file))
    else:
        _print_result(result, highest, file)
    configured = configured_threshold(chosen)
    if configured is not None:
        note(f"{chosen.name} sets its own threshold, {configured:g}, which takes precedence", "yellow")
    if result.found_interval is None:
        note("no query is about a given video, so it is unknown what the threshold misses", "yellow")
    elif result.separates and result.found_interval[0] <= result.rate:
        note("too few matches to be sure that the threshold tells videos apart: add queries", "yellow")
    if is_refused:
        raise CalibrationError(
            f"{_UNSEPARATED}, so it is not stored: check the videos that the queries name, add queries, or "
            "use another encoder; --force stores it"
        )
    if not result.separates:
        complain(_UNSEPARATED, label="warning")


def _open_videos(finder: Finder, videos: Sequence[str]) -> dict[str, str]:
    """Return the paths of the videos by digest. Copies of a video are reported and left out."""
    by_digest: dict[str, str] = {}
    for video in videos:
        digest = finder.library.probe(video).info.digest
        known = by_digest.setdefault(digest, video)
        if known != video:
            note(f"{video} is the same video as {known}, and is left out", "yellow")
    return by_digest


def _read(path: Path | None, cache: Path) -> list[NamedQuery]:
    """Return the queries of `--queries`, or else of the kept traces."""
    from act2see.cli.queries import read_queries
    from act2see.tools.video.store import default_cache

    if path is not None:
        found = read_queries(path)
        if not found:
            raise CalibrationError(f"there are no queries in {path}: {_HOW}")
        return found
    kept: list[NamedQuery] = []
    for folder in dict.fromkeys((cache / "traces", default_cache() / "runs")):
        if folder.is_dir():
            kept += read_queries(folder)
    if not kept:
        raise CalibrationError(f"no traces are kept, so there are no queries: {_HOW}")
    note(f"{len(kept)} queries of kept traces")
    return kept


def _collect_queries(
    named: Iterable[NamedQuery], path: Path | None, by_digest: dict[str, str]
) -> list[Query]:
    """Return each query once, with the digests of the videos that it is about."""
    from act2see.tools.search.calibration import Query, merge_queries

    places = {os.path.realpath(video): digest for digest, video in by_digest.items()}
    names = Counter(os.path.basename(video) for video in by_digest.values())
    by_name = {os.path.basename(v): d for d, v in by_digest.items() if names[os.path.basename(v)] == 1}
    folders = [os.curdir] if path is None else [str(path.parent), os.curdir]

    def find(query: NamedQuery) -> str:
        """Return the digest of the query's video; its name if it is not one of the given videos."""
        if query.digest:
            return query.digest
        for folder in folders:
            place = os.path.join(folder, query.video)
            if os.path.realpath(place) in places:
                return places[os.path.realpath(place)]
            if os.path.exists(place):
                return query.video
        return by_name.get(os.path.basename(query.video), query.video)

    queries, absent = [], Counter[str]()
    for one in named:
        about = find(one)
        if about not in by_digest:
            absent[one.video] += 1
        queries.append(Query(one.query, frozenset((about,))))
    if absent:
        shown = ", ".join(list(absent)[:3]) + (", ..." if len(absent) > 3 else "")
        note(f"{sum(absent.values())} queries are about videos that were not given ({shown})")
    merged = merge_queries(queries)
    if len(merged) < len(queries):
        note(f"{len(queries)} queries are {len(merged)} different texts, each of which counts once")
    return merged


def _check_queries(queries: Sequence[Query], by_digest: dict[str, str], rate: float) -> None:
    """Raise `CalibrationError` if the rate needs more queries, before anything is indexed."""
    from act2see.tools.search.calibration import check_count

    usable = sum(any(digest not in query.about for digest in by_digest) for query in queries)
    if not usable and len(by_digest) == 1:
        raise CalibrationError("all queries are about the only video: name more videos, or add queries")
    check_count(usable, rate)


def _check_videos(config: Config, resources: Resources, videos: Iterable[str]) -> None:
    """Raise `CalibrationError` if the models cannot understand a video: its scores would mean nothing."""
    for video in videos:
        if refusal := guard_refusal(config, resources, video):
            raise CalibrationError(f"{video} cannot be used: {refusal}")


def _score(finder: Finder, by_digest: dict[str, str], queries: Sequence[Query]) -> list[ScoredQuery]:
    from act2see.tools.search.calibration import score_queries

    for video in by_digest.values():
        build_index(finder, video)
    with progress_bar() as bar:
        task = bar.add_task("searching", total=len(by_digest))
        return score_queries(
            finder, by_digest, queries, lambda done, total: bar.update(task, completed=done, total=total)
        )


def _highest(scored: Sequence[ScoredQuery]) -> list[BestFrame]:
    """Return the frames with the highest scores for queries about other videos."""
    frames = [frame for query in scored for frame in query.others]
    return sorted(frames, key=lambda frame: -frame.score)[:_HIGHEST]


def _to_json(result: Calibration, highest: Sequence[BestFrame], file: Path | None) -> str:
    import json
    from dataclasses import asdict

    data = result.model_dump(mode="json")
    data["separates"] = result.separates
    data["file"] = None if file is None else str(file)
    data["highest"] = [asdict(frame) for frame in highest]
    return json.dumps(data, ensure_ascii=False)


def _print_result(result: Calibration, highest: Sequence[BestFrame], file: Path | None) -> None:
    say(f"threshold {result.threshold:g}", "bold")
    say(
        f"false alarms: {_percent(result.false_alarms, result.interval)} of {result.queries} queries find a "
        f"frame in other videos; asked for: at most {100 * result.rate:g}%"
    )
    if result.found is not None and result.found_interval is not None:
        found = _percent(result.found, result.found_interval)
        say(f"matches: {found} of {result.own_queries} queries find a frame in their own videos")
    say("highest scores in other videos (remove a query if the video does show it):")
    for frame in highest:
        name = os.path.basename(frame.video)
        say(f"  {frame.score:.4f}  {name}, {frame.seconds:.1f} s: {frame.query}")
    if file is None:
        say("not stored")
    else:
        say(f"stored for the encoder {result.encoder}: {file}")


def _percent(share: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{100 * share:.1f}% (95% interval {100 * low:.1f}% to {100 * high:.1f}%)"
