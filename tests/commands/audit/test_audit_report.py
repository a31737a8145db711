"""The report: token classes in colour on the page and the terminal, everything escaped, nothing secret shown."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import chain

import numpy as np
import pytest

from lit_align.commands.audit.body import Report, as_json
from lit_align.commands.audit.coloured import Coloured, coloured
from lit_align.commands.audit.page import page
from lit_align.commands.audit.terminal import report_lines, table_lines
from lit_align.data.audit.examples import Example
from lit_align.data.audit.table import Check, Measured, Table
from lit_align.forest import TokenPath
from lit_align.tokenizer import load_tokenizer

FAILED = Check("audit.max_leaked", "validation: <b>x</b>", 0.25, 0.0, "take them out")
MEASURED = Measured(
    (
        Table(
            "rows", "What <i>is</i> there.", ("source", "n", "cut, share", "bars"), (("a<b", 12345, 0.25, (0, 4, 8)),)
        ),
    ),
    (FAILED, Check("audit.max_cut", "training: x", 0.1, 0.5, "")),
)


def _example(prompt: str, scaffold: str, *answers: str) -> tuple[Example, ...]:
    tokenizer = load_tokenizer("tiny-qwen3")
    paths = []
    for answer in answers:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, scaffold, answer)]
        classes = np.repeat(np.array([0, 2, 1], np.uint8), [len(one) for one in ids])
        paths.append(TokenPath(np.array([*chain(*ids)], np.int32), classes, "row 1"))
    return (Example("training", "x.jsonl", "row 1", "g", tuple(paths)),)


def _coloured(prompt: str, scaffold: str, *answers: str) -> tuple[Coloured, ...]:
    return coloured(_example(prompt, scaffold, *answers), load_tokenizer("tiny-qwen3"))


class _Page(HTMLParser):
    """Texts of the page by the class of their element, and whatever it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.by_class: dict[str, list[str]] = {}
        self.open: list[tuple[str, str]] = []
        self.loaded: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        held = dict(attrs)
        self.loaded += [f"{tag} {key}" for key in ("src", "href") if key in held and not str(held[key]).startswith("#")]
        if tag not in {"meta", "link", "img", "br"}:
            self.open.append((tag, held.get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open:
            self.by_class.setdefault(self.open[-1][1], []).append(data)


def test_the_page_holds_each_token_under_its_class() -> None:
    samples = _coloured("Which table?", "<think>\n\n</think>\n\n", "This <one> & no other.", "That one.")
    found = _Page(page("run", MEASURED, samples)).by_class
    # The first of each stands in the legend.
    assert found["prompt"][1:] == ["Which table?"]
    assert found["scaffold"][1:] == ["<think>\n\n</think>\n\n"] * 2
    assert found["answer"][1:] == ["This <one> & no other.", "That one."]


def test_the_page_loads_nothing_and_escapes_every_text() -> None:
    text = page("<script>alert(1)</script>", MEASURED, _coloured("<script>alert(2)</script>", "", "</pre><b>"))
    read = _Page(text)
    assert read.loaded == []
    assert not re.search(r"<script|<b>|<i>is|</pre><b|url\(|@import", text)
    assert "&lt;script&gt;alert(2)" in text
    assert "prefers-color-scheme: dark" in text


def test_the_page_shows_what_failed_with_its_reason() -> None:
    text = page("run", MEASURED, [])
    assert "1 of 2 limits hold." in text
    assert "`audit.max_leaked` = 0: validation: &lt;b&gt;x&lt;/b&gt;: found 0.25; take them out" in text
    assert "12,345" in text
    assert "25.0%" in text


def test_a_long_text_is_shortened_on_the_page() -> None:
    text = page("run", Measured(), _coloured("a" * 9000, "", "yes"))
    assert "… 3000 characters …" in text
    assert "a" * 3001 not in text


@pytest.mark.parametrize("secret", ["anna@example.org", "AKIA" + "IOSFODNN7EXAMPLE"])
def test_a_secret_in_an_example_is_shown_nowhere(secret: str) -> None:
    samples = _coloured(f"Use {secret} now", "", f"It is {secret}.")
    shown = [page("run", Measured(), samples), *report_lines(Measured(), samples, colour=True)]
    assert secret not in " ".join(shown)
    assert "It is [" in shown[0]


def test_the_terminal_paints_classes_or_names_them() -> None:
    samples = _coloured("Which?", "<think>\n\n</think>\n\n", "This.")
    plain = "\n".join(report_lines(MEASURED, samples, colour=False))
    assert "[prompt: Which?][scaffold: <think>\\n\\n</think>\\n\\n][answer: This.]" in plain
    assert "\033" not in plain
    painted = "\n".join(report_lines(MEASURED, samples, colour=True))
    assert "\033[36mWhich?\033[0m" in painted
    assert "\033[1;32mThis.\033[0m" in painted
    assert plain.splitlines()[-2:] == [f"failed {FAILED}", "1 of 2 limits hold"]


def test_columns_are_aligned_and_long_texts_stand_below() -> None:
    table = Table("t", "", ("source", "n", "n, share", "such as"), (("a", 5, 0.5, "x" * 60), ("bcd", 12000, 1.0, "")))
    assert list(table_lines(table)) == [
        "source       n   share",
        "a            5   50.0%",
        f"    such as: {'x' * 60}",
        "bcd     12,000  100.0%",
    ]


def test_the_file_for_programs_holds_tables_checks_and_what_failed() -> None:
    held = json.loads(as_json(Report("run", MEASURED, ())))
    assert held["tables"]["rows"]["rows"] == [{"source": "a<b", "n": 12345, "cut, share": 0.25, "bars": [0, 4, 8]}]
    assert [check["holds"] for check in held["checks"]] == [False, True]
    assert held["failed"] == [str(FAILED)]
    assert "torch" in held["environment"]["packages"]
