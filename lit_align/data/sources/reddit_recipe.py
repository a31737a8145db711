"""The Reddit pairs of the recipe that the project re-implements, faults included, for comparisons."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from lit_align.data.sources.reddit_finance import Post
from lit_align.data.sources.reddit_listing import SOURCE, Listed, list_comments, read_comments, told
from lit_align.types import Message, PairSource, PreferencePair, stop_at

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecipeRedditPairs(PairSource):
    """The best liked comment of a post against the first one far enough below it, and else against the last.

    Known faults, kept: the fallback breaks the rules of score and length, and a gap of 0.10 in a score that is scaled
    over a subreddit is so wide that it decides nearly always (the log says how often); a post is cut at its end, where
    its question stands; the lower limit of a post's length is held against the whole prompt and binds never; the
    training prompt is not the one that a benchmark asks with. Two faults are not: a comment that stands twice under its
    post is read once, and the sample is drawn before the split by posts, not instead of it.

    Args:
        path: Id on the hub; or a JSON, JSON Lines or Parquet file, or a folder of such files, with the same columns.
        min_post_chars: Characters of the prompt, at least.
        min_comment_chars: Characters of a comment, at least.
        max_post_chars: A post's text is cut there.
        score_margin: Difference of the scores, at least.
        length_tolerance: Difference of the lengths over that of the chosen comment, at most.
        sample_rate: Share of the pairs that is drawn, in (0, 1].
        seed: Seed of the draw.

    Raises:
        ValueError: ``sample_rate`` is out of its range.
    """

    path: str = "winddude/reddit_finance_43_250k"
    min_post_chars: int = 120
    min_comment_chars: int = 40
    max_post_chars: int = 2000
    score_margin: float = 0.10
    length_tolerance: float = 0.6
    sample_rate: float = 0.3
    seed: int = 42

    def __post_init__(self) -> None:
        if not 0 < self.sample_rate <= 1:
            raise ValueError(f"RecipeRedditPairs.sample_rate: must be in (0, 1], not {self.sample_rate}")

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """Read the pairs of one side of a split, in the order of their posts' first rows; ids are the posts'.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: The hub cannot be reached.
            ValueError: A row breaks a rule, or no post has two comments. The message names file, row, column and value.
        """
        return self.usable(keep, stop_at)

    def usable(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> list[PreferencePair]:
        """See :class:`~lit_align.types.PairSource`."""
        listing = list_comments(self.path, self._unfit, refuse)
        found = {post: self._choose(comments) for post, comments in listing.comments.items() if len(comments) > 1}
        size = int(self.sample_rate * len(found))
        if not size:
            raise ValueError(
                f"{self.path}: no pair: {len(found)} of {len(listing.comments)} posts have two comments; comments left "
                f"out: {told(listing.left_out)}; look at the file, or raise RecipeRedditPairs.sample_rate"
            )
        drawn = set(Random(self.seed).sample(sorted(found), size))
        kept = {post: chosen for post, chosen in found.items() if post in drawn and keep(post)}
        fallen = sum(fallback for *_, fallback in found.values())
        logger.info(
            f"{self.path}: {len(found)} pairs of {len(listing.comments)} posts, {fallen / len(found):.1%} of them by "
            f"the fallback; {size} are drawn, {len(kept)} of these are on this side of the split"
        )
        rows = read_comments(self.path, {one.row for better, worse, _ in kept.values() for one in (better, worse)})
        return [
            PreferencePair(
                prompt=(Message("user", self._prompt(rows[better.row])),),
                chosen=rows[better.row].comments[0].text,
                rejected=rows[worse.row].comments[0].text,
                id=post,
                source=SOURCE,
                group=post,
            )
            for post, (better, worse, _) in kept.items()
        ]

    def _choose(self, comments: list[Listed]) -> tuple[Listed, Listed, bool]:
        """Chosen, rejected, and whether the fallback chose it."""
        best, *others = comments
        for one in others:
            near = abs(best.length - one.length) <= self.length_tolerance * best.length
            if best.score - one.score >= self.score_margin and near:
                return best, one, False
        return best, others[-1], True

    def _unfit(self, post: Post) -> str:
        if len(self._prompt(post)) < self.min_post_chars:
            return "under a prompt that is too short"
        return "too short" if len(post.comments[0].text) < self.min_comment_chars else ""

    def _prompt(self, post: Post) -> str:
        return (
            f"SUBREDDIT: r/{post.subreddit}\nTITLE: {post.title or '(no title)'}\n"
            f"POST: {post.text[: self.max_post_chars] or '(no selftext)'}\n---\n"
            "Reply like a helpful finance assistant. Be specific, polite, and practical."
        )
