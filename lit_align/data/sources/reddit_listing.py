"""The comments of a Reddit file: listed without their texts, chosen from, and only then read."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from lit_align.data.sources.read_rows import read_rows
from lit_align.data.sources.reddit_finance import Post, post_of
from lit_align.data.sources.rows import Row, usable_rows

logger = logging.getLogger(__name__)

SOURCE = "reddit-finance"


@dataclass(frozen=True, slots=True)
class Listed:
    """A comment without its text: the texts of 250,000 rows would not fit beside a model.

    Attributes:
        row: Its place among the file's rows, from 0.
        score: How well it was liked, >= 0, comparable within its subreddit alone.
        length: Characters of its text.
        said: Hash of its text.
    """

    row: int
    score: float
    length: int
    said: int


@dataclass(frozen=True)
class Listing:
    """What a file holds.

    Attributes:
        comments: The comments of each post that may be used, the best liked first, by the post's id; in the order of
            the posts' first rows. A post without a usable comment has an empty list.
        left_out: Why so many comments may not be used.
        rows: Rows that could be read.
    """

    comments: dict[str, list[Listed]]
    left_out: Counter[str]
    rows: int


def list_comments(path: str, unfit: Callable[[Post], str], refuse: Callable[[str, ValueError], None]) -> Listing:
    """List the comments of a file, by posts; the rows of a post are not side by side, so the whole file is read.

    Args:
        path: As for :func:`~lit_align.data.sources.reddit_finance.read_posts`.
        unfit: Given a post with one of its comments; says in a few words why it may not be used, else nothing.
        refuse: Given the source's name and the error of a row that breaks a rule; may raise it.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The hub cannot be reached.
        ValueError: The file is not what its name says.
    """
    comments: dict[str, list[Listed]] = {}
    asked: dict[str, int] = {}  # hash of each post
    left_out: Counter[str] = Counter()
    number = -1

    def add(row: Row) -> None:
        nonlocal number
        number += 1
        post = post_of(row)
        if asked.setdefault(post.id, hash((post.title, post.text))) != hash((post.title, post.text)):
            raise ValueError(
                f"{row.where}: id: post {post.id} has another title or text than in an earlier row; drop one of them"
            )
        listed = comments.setdefault(post.id, [])
        [comment] = post.comments
        said = hash(comment.text)
        why = unfit(post) or ("said before under the post" if any(one.said == said for one in listed) else "")
        if why:
            left_out[why] += 1
        else:
            listed.append(Listed(number, comment.score, len(comment.text), said))

    rows = sum(1 for _ in usable_rows(read_rows(path), add, lambda _: SOURCE, refuse))
    for listed in comments.values():
        listed.sort(key=lambda one: -one.score)
    return Listing(comments, left_out, rows)


def read_comments(path: str, wanted: Collection[int]) -> dict[int, Post]:
    """Read some of the comments that were listed.

    Args:
        path: The file that was listed.
        wanted: Places of their rows; a set, or what is as quick to ask.

    Returns:
        For each place the post with that one comment; the rows of a post share its texts.
    """
    posts: dict[str, Post] = {}
    found: dict[int, Post] = {}
    for number, row in enumerate(read_rows(path)):
        if number in wanted:
            one = post_of(row)
            first = posts.setdefault(one.id, one)
            # The post stands in each of its rows again: one copy of it is kept.
            found[number] = Post(one.id, first.subreddit, first.title, first.text, one.comments)
    return found


def told(counts: Counter[str]) -> str:
    """Counts in a line for the log.

    Example:
        >>> told(Counter({"too short": 2, "a bot": 1}))
        '2 too short, 1 a bot'
    """
    return ", ".join(f"{number} {what}" for what, number in counts.most_common()) or "none"
