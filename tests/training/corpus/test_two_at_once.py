"""Two processes that write one folder: one does, the other says so. Nothing is lost, and no lock is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from act2see.errors import CorpusError
from act2see.training.corpus.files import new_folder, only_writer


def test_a_second_pack_leaves_the_first_alone(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    with new_folder(corpus) as part:
        (part / "a").write_text("first")
        with (
            pytest.raises(CorpusError, match=r"another process is writing to .*corpus: wait"),
            new_folder(corpus),
        ):
            pass
        assert (part / "a").read_text() == "first"
    assert (corpus / "a").read_text() == "first"
    with pytest.raises(CorpusError, match="already exists"), new_folder(corpus):
        pass
    assert os.listdir(tmp_path) == ["corpus"]


def test_what_a_killed_pack_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".corpus.lock").touch()
    (tmp_path / "corpus.part").mkdir()
    (tmp_path / "corpus.part" / "half").touch()
    with new_folder(tmp_path / "corpus") as part:
        (part / "a").touch()
    assert os.listdir(tmp_path / "corpus") == ["a"]
    assert os.listdir(tmp_path) == ["corpus"]


def test_the_working_folder_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with new_folder(Path(".")) as part:
        (part / "a").touch()
    assert os.listdir(tmp_path / "here") == ["a"]


def test_a_failed_pack_leaves_neither_part_nor_lock(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="free some space"), new_folder(tmp_path / "corpus"):
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(CorpusError, match="free some space"), new_folder(tmp_path / "file" / "corpus"):
        pass


def test_a_second_filter_waits_for_nobody(tmp_path: Path) -> None:
    lock = tmp_path / ".filter.lock"
    with (
        only_writer(lock, tmp_path),
        pytest.raises(CorpusError, match="another process is writing to"),
        only_writer(lock, tmp_path),
    ):
        pass
    assert os.listdir(tmp_path) == []
