"""Posts are put together from rows that are not side by side, each with its best comment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lit_align.data.sources.reddit_finance import Comment, RedditFinance, read_posts
from lit_align.types import Message

ROW = {
    "id": "abc", "title": "Sell now?", "selftext": "I hold bonds.", "z_score": 3.1, "normalized_score": 0.9,
    "subreddit": "investing", "body": "No, wait.", "comment_normalized_score": 0.4, "combined_score": 1.3,
}  # fmt: skip


def write(tmp_path: Path, *rows: dict[str, Any]) -> str:
    path = tmp_path / "top.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_the_comments_of_a_post_come_together_the_best_first(tmp_path: Path) -> None:
    other = {**ROW, "id": "xyz", "title": "Buy?", "comment_normalized_score": 0.35}
    path = write(
        tmp_path,
        {**ROW, "comment_normalized_score": 0.3},
        other,
        {**ROW, "body": "Yes!", "comment_normalized_score": 0.8},
        {**ROW, "body": "Maybe.", "comment_normalized_score": 0.3},
    )

    first, second = read_posts(path)

    assert (first.id, first.subreddit, first.title, first.text) == ("abc", "investing", "Sell now?", "I hold bonds.")
    assert first.comments == (Comment("Yes!", 0.8), Comment("No, wait.", 0.3), Comment("Maybe.", 0.3))
    assert (second.id, second.comments) == ("xyz", (Comment("No, wait.", 0.35),))


def test_a_conversation_is_a_post_and_its_best_comment(tmp_path: Path) -> None:
    path = write(tmp_path, ROW, {**ROW, "body": "Yes!", "comment_normalized_score": 1})

    [one] = RedditFinance(path, instruction="Reply.").conversations()

    asked = "A post in r/investing:\n\nSell now?\n\nI hold bonds.\n\nReply."
    assert one.messages == (Message("user", asked), Message("assistant", "Yes!"))
    assert (one.id, one.group, one.source) == ("abc", "abc", "reddit-finance")


@pytest.mark.parametrize(("blank", "left"), [("title", "I hold bonds."), ("selftext", "Sell now?")])
def test_a_post_without_title_or_text_has_no_gap(tmp_path: Path, blank: str, left: str) -> None:
    for value in ("", None, " \n"):
        [one] = RedditFinance(write(tmp_path, {**ROW, blank: value}), instruction="Reply.").conversations()
        assert one.messages[0].content == f"A post in r/investing:\n\n{left}\n\nReply."


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**ROW, "body": "[removed]"}, r"body: was deleted \(\[removed\]\)"),
        ({**ROW, "selftext": "[deleted]"}, "selftext: was deleted"),
        ({**ROW, "body": " "}, "body: is blank"),
        ({**ROW, "id": ""}, "id: is blank"),
        ({**ROW, "title": "", "selftext": None}, "title, selftext: the post is blank"),
        ({**ROW, "comment_normalized_score": "0.4"}, "comment_normalized_score: must be a number >= 0, not text"),
        ({**ROW, "comment_normalized_score": None}, "comment_normalized_score: must be a number >= 0, not null"),
        ({**ROW, "comment_normalized_score": float("nan")}, "comment_normalized_score: must be a number >= 0"),
        ({**ROW, "comment_normalized_score": -0.1}, "comment_normalized_score: must be a number >= 0"),
        ({**ROW, "id": "first", "title": "Another"}, "id: post first has another title or text"),
        ({name: value for name, value in ROW.items() if name != "body"}, "no column 'body'"),
    ],
)
def test_a_malformed_row_is_refused_by_name_or_handed_over(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    path = write(tmp_path, {**ROW, "id": "first"}, row)
    refused: list[str] = []

    with pytest.raises(ValueError, match=rf"top.jsonl:2: {said}"):
        RedditFinance(path).conversations()
    assert [one.id for one in RedditFinance(path).usable(lambda _, error: refused.append(str(error)))] == ["first"]
    assert len(refused) == 1


def test_an_instruction_is_needed() -> None:
    with pytest.raises(ValueError, match=r"RedditFinance\.instruction: must not be blank"):
        RedditFinance(instruction=" ")
