"""The report: numbers counted by hand, readable files, and a report without kept chains."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.training.board_chains import build_chain, make_sample

from act2see.errors import CorpusError
from act2see.training.corpus.records import Attempt, Chain, Cost
from act2see.training.corpus.report import Bin, FilterReport, SweepPoint, make_report, write_report


class Encoder:
    name, window, longer = "some|encoder", 256, 7

    def encode(self, texts: object) -> object:
        raise AssertionError("a report measures nothing")


def attempts(n: int) -> tuple[Attempt, ...]:
    cost = Cost(read=1_000, written=50, requests=2, dollars=0.25)
    return (
        *(Attempt(outcome="wrong", seconds=3.0, cost=cost) for _ in range(n - 1)),
        Attempt(outcome="right", seconds=3.0, cost=cost),
    )


def words(n: int) -> str:
    """Return a thought that has `n` words together with the four words of the closing."""
    return "so " * (n - 4)


def ten_chains() -> list[Chain]:
    """Return ten chains: two dropped in construction, one by format, two by similarity (one of them without a
    human chain), one by a person, and four kept."""
    wrong, refused = (Attempt(outcome="wrong"),) * 3, (Attempt(outcome="refused", why="no"),)
    return [
        build_chain(make_sample(0), attempts=wrong, dropped="wrong after 3 attempts"),
        build_chain(make_sample(1), attempts=refused, dropped="refused after 1 attempts: no").model_copy(
            update={"trace": None}
        ),
        build_chain(
            make_sample(2),
            "retrieve",
            attempts=attempts(1),
            dropped="filter format: a stray tag: </retrieve>",
        ),
        build_chain(
            make_sample(3),
            "retrieve",
            attempts=attempts(1),
            similarity=0.72,
            dropped="filter similarity: not above 0.8",
        ),
        build_chain(make_sample(4, ""), attempts=attempts(1), dropped="filter similarity: no human chain"),
        build_chain(
            make_sample(5),
            attempts=attempts(1),
            similarity=0.9,
            dropped="filter person: rejected: no | sense",
        ),
        build_chain(make_sample(6), thought=words(10), attempts=attempts(1), similarity=0.82),
        build_chain(make_sample(7), "retrieve", thought=words(12), attempts=attempts(2), similarity=0.86),
        build_chain(
            make_sample(8),
            "retrieve",
            "generate",
            "generate",
            thought=words(25),
            attempts=attempts(1),
            similarity=0.96,
        ),
        build_chain(make_sample(9, ""), "generate", thought=words(30), attempts=attempts(3)),
    ]


@pytest.fixture(scope="module")
def report() -> FilterReport:
    return make_report(iter(ten_chains()), encoder=Encoder())  # type: ignore[arg-type]


def test_report_counts_dropped_chains_by_step_and_reason(report: FilterReport) -> None:
    assert (report.total, report.kept, report.not_compared) == (10, 4, 1)
    assert [(s.name, s.came, s.fell, s.why) for s in report.steps] == [
        ("construction", 10, 2, {"wrong": 1, "refused": 1}),
        ("format", 8, 1, {"a stray tag": 1}),
        ("similarity", 7, 2, {"not above 0.8": 1, "no human chain": 1}),
        ("person", 5, 1, {"rejected": 1}),
    ]


def test_report_counts_kept_chains(report: FilterReport) -> None:
    assert (report.with_frames, report.call_rate, report.retrieved, report.generated) == (3, 0.75, 2, 3)
    assert report.words == tuple(
        Bin(start=s, stop=s + 2, count=s in (10, 12, 24, 30)) for s in range(0, 32, 2)
    )
    assert report.calls == {0: 1, 1: 2, 3: 1}
    assert report.attempts == {1: 7, 2: 1, 3: 2}
    assert report.teachers == {"scripted": 10}


def test_report_cost_includes_all_attempts(report: FilterReport) -> None:
    assert report.cost == Cost(read=11_000, written=550, requests=22, dollars=2.75)
    assert report.seconds == 33.0


def test_report_percentiles_and_sweep(report: FilterReport) -> None:
    # The values are 0.72, 0.82, 0.86, 0.90 and 0.96, including the chain that a person rejected.
    assert report.similarity == {0: 0.72, 5: 0.74, 25: 0.82, 50: 0.86, 75: 0.9, 95: 0.948, 100: 0.96}
    found = {p.threshold: (p.kept, p.call_rate) for p in report.sweep}
    assert list(found) == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert found[0.7] == (5, 0.8)
    assert found[0.75] == found[0.8] == (4, 0.75)
    assert found[0.85] == (3, 1.0)
    assert found[0.9] == found[0.95] == (2, 1.0)
    assert found[report.threshold] == (report.kept, report.call_rate)
    assert SweepPoint(threshold=0.85, kept=3, call_rate=1.0) in report.sweep


def test_report_files_hold_the_numbers(report: FilterReport, tmp_path: Path) -> None:
    from PIL import Image

    path = write_report(report, tmp_path / "out")
    assert FilterReport.model_validate_json((tmp_path / "out" / "report.json").read_text()) == report
    text = path.read_text()
    for line in (
        "4 of 10 chains were kept. Teacher: scripted (10). Encoder: some|encoder, window of 256 tokens. "
        "For 7 longer texts",
        "| construction | 10 | 2 | wrong (1); refused (1) |",
        "1 kept chains have no human chain",
        "|  | here | the paper's |",
        "| chains | 4 | 3,373 |",
        "| share with a frame | 75.00 % | 47.67 % |",
        "| frames retrieved | 2 | 1,026 |",
        "| frames generated | 3 | 582 |",
        "| 0.85 | 3 | 100.00 % |",
        "| 24-25 | 1 |",
        "| dollars | 2.7500 | 0.6875 |",
    ):
        assert line in text
    for name in ("sweep.png", "lengths.png"):
        assert f"]({name})" in text
        with Image.open(tmp_path / "out" / name) as image:
            assert image.width > image.height > 300
            assert len(image.convert("L").getcolors() or ()) > 20
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    write_report(report, path.parent)
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before


def test_a_report_without_kept_chains(tmp_path: Path) -> None:
    for chains in ([], ten_chains()[:3]):
        report = make_report(chains)
        assert (report.kept, report.call_rate, report.similarity, report.words) == (0, None, {}, ())
        text = write_report(report, tmp_path / str(len(chains))).read_text()
        assert f"0 of {len(chains)} chains were kept" in text
        assert "No similarity was measured." in text
        assert "| share with a frame | - | 47.67 % |" in text


def test_reasons_are_escaped_in_the_table(tmp_path: Path) -> None:
    chains = [build_chain(make_sample(1), attempts=(), dropped="a | b\n<script>*x* `y`")]
    text = write_report(make_report(chains), tmp_path).read_text()
    assert r"| construction | 1 | 1 | a \| b &lt;script>\*x\* \`y\` (1) |" in text


def test_long_chains_get_wider_bins() -> None:
    chains = [build_chain(make_sample(n), thought=words(n), similarity=0.9) for n in (5, 900, 45_000)]
    bins = make_report(chains).words
    assert len(bins) <= 20
    assert sum(b.count for b in bins) == 3
    assert bins[-1].start <= 45_000 < bins[-1].stop


def test_an_unwritable_report_folder_raises_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CorpusError, match="use another folder"):
        write_report(make_report([]), tmp_path / "file" / "out")
