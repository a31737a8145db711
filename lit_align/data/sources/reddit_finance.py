"""reddit_finance_43_250k: posts about money matters with the comments that were liked best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from lit_align.data.sources.read_rows import read_rows
from lit_align.data.sources.rows import Row, describe, usable_rows
from lit_align.types import Conversation, ConversationSource, Message, stop_at

_SOURCE = "reddit-finance"
_GONE = ("[deleted]", "[removed]")


@dataclass(frozen=True)
class Comment:
    """A reply to a post.

    Attributes:
        text: What it says.
        score: How well it was liked, from 0 to 1, comparable within its subreddit alone.
    """

    text: str
    score: float


@dataclass(frozen=True)
class Post:
    """A post with its replies.

    Attributes:
        id: Reddit's.
        subreddit: Where it stands.
        title: Its title; may be blank.
        text: Its text; may be blank where the title is not.
        comments: At least one, the best liked first.
    """

    id: str
    subreddit: str
    title: str
    text: str
    comments: tuple[Comment, ...]


def read_posts(path: str, refuse: Callable[[str, ValueError], None] = stop_at) -> list[Post]:
    """Read the posts of a file whose rows are a post with one comment each, in whatever order.

    Args:
        path: Id on the hub; or a JSON, JSON Lines or Parquet file, or a folder of such files.
        refuse: Given the source's name and the error of a row that breaks a rule; may raise it.

    Returns:
        The posts, in the order of their first rows.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The hub cannot be reached.
    """
    posts: dict[str, Post] = {}

    def add(row: Row) -> None:
        post = post_of(row)
        known = posts.setdefault(post.id, replace(post, comments=()))
        if (post.title, post.text) != (known.title, known.text):
            raise ValueError(
                f"{row.where}: id: post {post.id} has another title or text than in an earlier row; drop one of them"
            )
        posts[post.id] = replace(known, comments=(*known.comments, *post.comments))

    for _ in usable_rows(read_rows(path), add, lambda _: _SOURCE, refuse):
        pass
    # The rows of a post are not side by side: all are read before its comments are ranked.
    return [replace(post, comments=tuple(sorted(post.comments, key=lambda one: -one.score))) for post in posts.values()]


@dataclass(frozen=True)
class RedditFinance(ConversationSource):
    """Posts of reddit_finance_43_250k (winddude; GPL-3.0), each with the comment that was liked best as its answer.

    250,000 rows of 43 subreddits, a post and one of its up to three best comments each, the most liked first. Columns
    that are read: ``id``, ``title``, ``selftext``, ``subreddit``, ``body``, ``comment_normalized_score``. The group of
    a conversation is the post's id, so a split by group is one by posts.

    Args:
        path: Id on the hub; or a JSON, JSON Lines or Parquet file, or a folder of such files, with the same columns.
        instruction: What is asked for below the post.

    Raises:
        ValueError: ``instruction`` is blank.
    """

    path: str = "winddude/reddit_finance_43_250k"
    instruction: str = "Write a reply that helps: friendly, specific and practical."

    def __post_init__(self) -> None:
        if not self.instruction.strip():
            raise ValueError("RedditFinance.instruction: must not be blank: the model would not know what to do")

    def prompt(self, post: Post) -> tuple[Message, ...]:
        """How a model is asked to reply to a post; training and benchmarks ask alike.

        Args:
            post: Any.

        Example:
            >>> post = Post("p1", "investing", "Bonds?", "Are they safe?", ())
            >>> print(RedditFinance(instruction="Reply.").prompt(post)[0].content)
            A post in r/investing:
            <BLANKLINE>
            Bonds?
            <BLANKLINE>
            Are they safe?
            <BLANKLINE>
            Reply.
        """
        parts = (f"A post in r/{post.subreddit}:", post.title, post.text, self.instruction)
        return (Message("user", "\n\n".join(part for part in parts if part)),)

    def conversations(self) -> list[Conversation]:
        """Read the posts, in the order of their first rows; ids are the posts'.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: The hub cannot be reached.
            ValueError: A row lacks a column or holds something else than it must; a post or a comment is blank or was
                deleted; two rows of a post disagree. The message names file, row, column and value.
        """
        return self.usable(stop_at)

    def usable(self, refuse: Callable[[str, ValueError], None]) -> list[Conversation]:
        """See :class:`~lit_align.types.ConversationSource`."""
        return [
            Conversation(
                (*self.prompt(post), Message("assistant", post.comments[0].text)), post.id, _SOURCE, group=post.id
            )
            for post in read_posts(self.path, refuse)
        ]


def post_of(row: Row) -> Post:
    """The post of a row, with the one comment that stands beside it.

    Args:
        row: A row of the file.

    Raises:
        ValueError: A column is missing, blank, deleted or not what it must be; the message names file, row and column.
    """
    title, text = ("" if row.value(column) is None else row.text(column).strip() for column in ("title", "selftext"))
    named = {column: row.text(column).strip() for column in ("id", "subreddit", "body")}
    for column, value in named.items():
        if not value:
            raise ValueError(f"{row.where}: {column}: is blank; drop the row")
    for column, value in (("selftext", text), ("body", named["body"])):
        if value in _GONE:
            raise ValueError(f"{row.where}: {column}: was deleted ({value}); drop the row")
    if not title and not text:
        raise ValueError(f"{row.where}: title, selftext: the post is blank; drop the row")
    score = row.value("comment_normalized_score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score < math.inf:
        raise ValueError(f"{row.where}: comment_normalized_score: must be a number >= 0, not {describe(score)}")
    return Post(named["id"], named["subreddit"], title, text, (Comment(named["body"], float(score)),))
