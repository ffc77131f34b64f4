"""A trace with thousands of options: shown in time in proportion to them, and named beyond the letter Z."""

from __future__ import annotations

import pytest
from tests.trace.page_parts import Page, Store, make

from act2see.trace import options
from act2see.trace.answer_words import make_bare
from act2see.trace.explorer import explorer_data
from act2see.trace.page import trace_html
from act2see.trace.record import Answer, Question
from act2see.trace.terminal import answer_lines, question_lines
from act2see.trace.trace import Trace

COUNT = 2_000


@pytest.fixture
def store() -> Store:
    return Store()


def ask(store: Store, count: int, answer: str) -> Trace:
    shapes = tuple(f"the shape of number {place}" for place in range(count))
    said = Answer(text=f"<answer>{answer}</answer>", body=answer)
    return make(store, said, initial=0, question=Question(text="Which?", options=shapes))


def test_each_option_is_read_a_few_times(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = ask(store, COUNT, f"the shape of number {COUNT - 1}")
    read: list[str] = []

    def clean(text: str) -> str:
        read.append(text)
        return make_bare(text)

    monkeypatch.setattr(options, "make_bare", clean)
    page = Page(trace_html(trace, store))
    data = explorer_data(trace, store)[0]
    assert COUNT < len(read) < 10 * COUNT  # COUNT² when each option had all of them read
    assert len([a for tag, a in page.tags if tag == "li" and a.get("class") == "chosen"]) == 1
    assert [option[0] for option in data["options"] if option[2]] == [str(COUNT)]


def test_options_beyond_the_alphabet_have_numbers(store: Store) -> None:
    trace = ask(store, 30, "the shape of number 27")
    assert answer_lines(trace).plain.startswith("Answer: 28. the shape of number 27")
    shown = question_lines(trace.question, trace.choice).plain
    assert "  Z. the shape of number 25\n  27. the shape of number 26\n" in shown
