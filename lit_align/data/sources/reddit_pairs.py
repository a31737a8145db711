"""Pairs of comments under one Reddit post: the better liked against the less liked."""

from __future__ import annotations

import logging
import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import combinations

from lit_align.data.sources.reddit_finance import Post, RedditFinance
from lit_align.data.sources.reddit_listing import SOURCE, Listed, list_comments, read_comments, told
from lit_align.types import PairSource, PreferencePair, stop_at

logger = logging.getLogger(__name__)

_CUT = "\n[…]\n"
_NO_LETTERS = re.compile(r"[^\w\s]+|[\d_]+")


class LikedBetter(ABC):
    """When a comment was liked so much better than another of its post that the two are a pair."""

    @abstractmethod
    def gap(self, comments: Sequence[Listed], better: int, worse: int) -> float:
        """How far two comments are apart; the widest gaps are taken first.

        Args:
            comments: Those of the post, the best liked first.
            better: Place of one of them.
            worse: Place of a later one.

        Returns:
            A positive number, or 0 where they are no pair; always 0 for two that were liked equally.
        """


@dataclass(frozen=True)
class ByRank(LikedBetter):
    """A comment stands at least so many places above the other; comments with equal scores share a place.

    A score of the set is scaled over a whole subreddit, so that a fixed difference means some votes in a small one and
    thousands in a large one. Ranks within a post know no scale. The set has three comments a post at most.

    Args:
        min_gap: Places, at least 1.

    Raises:
        ValueError: ``min_gap`` is below 1.

    Example:
        >>> liked = [Listed(0, 0.9, 80, 1), Listed(1, 0.2, 80, 2), Listed(2, 0.2, 80, 3)]
        >>> ByRank().gap(liked, 0, 2), ByRank().gap(liked, 1, 2), ByRank(min_gap=2).gap(liked, 0, 2)
        (1, 0, 0)
    """

    min_gap: int = 1

    def __post_init__(self) -> None:
        if self.min_gap < 1:
            raise ValueError(f"ByRank.min_gap: must be at least 1, not {self.min_gap}")

    def gap(self, comments: Sequence[Listed], better: int, worse: int) -> float:
        """See :class:`LikedBetter`."""
        first, second = (sum(one.score > comments[i].score for one in comments) for i in (better, worse))
        return second - first if second - first >= self.min_gap else 0


@dataclass(frozen=True)
class ByRatio(LikedBetter):
    """A comment has at least so many times the score of the other.

    The subreddit's scale cancels in a ratio, as it does not in a difference; its zero stays, which is the votes of the
    least liked comment of the subreddit (four or so in this set).

    Args:
        min_ratio: Above 1, finite.

    Raises:
        ValueError: ``min_ratio`` is out of its range.

    Example:
        >>> liked = [Listed(0, 0.75, 80, 1), Listed(1, 0.25, 80, 2), Listed(2, 0.0, 80, 3)]
        >>> ByRatio(2.0).gap(liked, 0, 1), ByRatio(4.0).gap(liked, 0, 1), ByRatio(4.0).gap(liked, 0, 2)
        (3.0, 0.0, inf)
    """

    min_ratio: float = 1.5

    def __post_init__(self) -> None:
        if not 1 < self.min_ratio < math.inf:
            raise ValueError(f"ByRatio.min_ratio: must be above 1 and finite, not {self.min_ratio}")

    def gap(self, comments: Sequence[Listed], better: int, worse: int) -> float:
        """See :class:`LikedBetter`."""
        high, low = comments[better].score, comments[worse].score
        if high == low:
            return 0.0  # also where both are 0
        ratio = high / low if low else math.inf
        return ratio if ratio >= self.min_ratio else 0.0


@dataclass(frozen=True)
class RedditFinancePairs(PairSource):
    """Pairs of comments of reddit_finance_43_250k (winddude; GPL-3.0), each of one post.

    A pair obeys every rule or is not made: there is no second choice. The file has one to three comments a post, all
    well liked, so a rejected answer is only a less popular one; many posts have one comment and no pair. The share of
    posts that have a pair is logged, as is why the others have none. The group of a pair is its post's id: a split
    never parts the pairs of a post.

    Two passes are made over the whole file, whose rows are sorted by popularity and not by posts; the first keeps no
    text.

    Args:
        path: Id on the hub; or a JSON, JSON Lines or Parquet file, or a folder of such files, with the same columns.
        instruction: What is asked for below the post; the prompt is that of
            :class:`~lit_align.data.sources.reddit_finance.RedditFinance`.
        rule: When a comment was liked better than another: ``ByRatio``, or ``ByRank``.
        pairs_per_post: At most so many pairs of a post, those with the widest gaps, at least 1.
        max_length_ratio: The longer comment has at most so many times the characters of the shorter, >= 1.
        min_comment_chars: Characters of a comment, at least; >= 0.
        max_comment_chars: Characters of a comment, at most; null for no limit.
        min_post_chars: Characters of a post's text without its title, at least; >= 0.
        max_post_chars: A longer text of a post loses its middle, at white space and marked by ``[…]``: posts end with
            their question. At least 40; null cuts nothing.
        min_letters: Share of letters and white space among the characters of a comment, at least; in [0, 1].
        max_links: Links in a comment, at most, >= 0; null for no limit.
        unwanted: A comment that holds one of these texts is left out, whatever its case: a bot's, or one that was
            edited after it was liked.
        subreddits: Read these subreddits only, named without ``r/``; empty reads all.
        without_subreddits: Subreddits that are not read.

    Raises:
        ValueError: A value is out of its range.
    """

    path: str = "winddude/reddit_finance_43_250k"
    instruction: str = RedditFinance.instruction
    rule: LikedBetter = ByRatio()
    pairs_per_post: int = 1
    max_length_ratio: float = 2.0
    min_comment_chars: int = 40
    max_comment_chars: int | None = None
    min_post_chars: int = 0
    max_post_chars: int | None = None
    min_letters: float = 0.6
    max_links: int | None = 2
    unwanted: list[str] = field(default_factory=lambda: ["i am a bot", "edit:", "edited to add"])
    subreddits: list[str] = field(default_factory=list)
    without_subreddits: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        RedditFinance(self.path, self.instruction)  # which checks the instruction
        for name, value, right, wanted in (
            ("pairs_per_post", self.pairs_per_post, self.pairs_per_post >= 1, "at least 1"),
            ("max_length_ratio", self.max_length_ratio, self.max_length_ratio >= 1, "at least 1"),
            ("min_comment_chars", self.min_comment_chars, self.min_comment_chars >= 0, "at least 0"),
            ("min_post_chars", self.min_post_chars, self.min_post_chars >= 0, "at least 0"),
            ("min_letters", self.min_letters, 0 <= self.min_letters <= 1, "in [0, 1]"),
            ("max_links", self.max_links, self.max_links is None or self.max_links >= 0, "at least 0, or null"),
            (
                "max_post_chars",
                self.max_post_chars,
                self.max_post_chars is None or self.max_post_chars >= 40,
                "at least 40, or null",
            ),
            (
                "max_comment_chars",
                self.max_comment_chars,
                self.max_comment_chars is None or self.max_comment_chars >= max(1, self.min_comment_chars),
                "at least min_comment_chars, or null",
            ),
            ("unwanted", self.unwanted, all(text.strip() for text in self.unwanted), "without a blank text"),
        ):
            if not right:
                raise ValueError(f"RedditFinancePairs.{name}: must be {wanted}, not {value}")

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """Read the pairs of one side of a split, in the order of their posts' first rows; ids are ``post/1-3``.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: The hub cannot be reached.
            ValueError: A row lacks a column or holds something else than it must; a post or a comment is blank or was
                deleted; two rows of a post disagree; a subreddit that is named does not occur; or no post has a pair.
                The message names file, row, column and value.
        """
        return self.usable(keep, stop_at)

    def usable(self, keep: Callable[[str], bool], refuse: Callable[[str, ValueError], None]) -> list[PreferencePair]:
        """See :class:`~lit_align.types.PairSource`."""
        subreddits: set[str] = set()

        def unfit(post: Post) -> str:
            subreddits.add(post.subreddit.casefold())
            return self._unfit(post)

        listing = list_comments(self.path, unfit, refuse)
        self._refuse_unknown(subreddits)
        without: Counter[str] = Counter()
        chosen: list[tuple[str, int, int, Listed, Listed]] = []
        paired = 0
        for post, comments in listing.comments.items():
            found = self._choose(comments)
            if isinstance(found, str):
                without[found] += 1
            else:
                paired += 1
                chosen += [(post, i, j, comments[i], comments[j]) for i, j in found]
        told_all = (
            f"{self.path}: {len(chosen)} pairs of {paired} of {len(listing.comments)} posts (accepted: "
            f"{paired / max(1, len(listing.comments)):.1%}), {listing.rows} rows; posts without a pair: "
            f"{told(without)}; comments left out: {told(listing.left_out)}"
        )
        if not chosen:
            raise ValueError(f"{told_all}; loosen the rules of RedditFinancePairs that name most of them")
        kept = [one for one in chosen if keep(one[0])]
        rows = read_comments(self.path, {listed.row for one in kept for listed in one[3:]})
        asks = RedditFinance(self.path, self.instruction)
        prompts = {post.id: post for post in rows.values()}
        asked = {name: asks.prompt(self._shortened(post)) for name, post in prompts.items()}
        shortened = sum(len(post.text) > (self.max_post_chars or math.inf) for post in prompts.values())
        logger.info(f"{told_all}; {len(kept)} of the pairs are on this side of the split; {shortened} posts shortened")
        return [
            PreferencePair(
                prompt=asked[post],
                chosen=rows[better.row].comments[0].text,
                rejected=rows[worse.row].comments[0].text,
                id=f"{post}/{i + 1}-{j + 1}",
                source=SOURCE,
                group=post,
            )
            for post, i, j, better, worse in kept
        ]

    def _choose(self, comments: Sequence[Listed]) -> list[tuple[int, int]] | str:
        """Places of the two comments of each pair of a post; or why there is none."""
        if len(comments) < 2:
            return "fewer than two comments left"
        if comments[0].score == comments[-1].score:
            return "all comments liked equally"
        gaps = {(i, j): self.rule.gap(comments, i, j) for i, j in combinations(range(len(comments)), 2)}
        apart = sorted((places for places, gap in gaps.items() if gap > 0), key=lambda places: -gaps[places])
        if not apart:
            return "liked too nearly equally"
        alike = [(i, j) for i, j in apart if self._lengths_alike(comments[i].length, comments[j].length)]
        return alike[: self.pairs_per_post] or "lengths too unlike"

    def _lengths_alike(self, first: int, second: int) -> bool:
        return max(first, second) <= self.max_length_ratio * min(first, second)

    def _unfit(self, post: Post) -> str:
        text = post.comments[0].text
        name = post.subreddit.casefold()
        if (self.subreddits and name not in map(str.casefold, self.subreddits)) or name in map(
            str.casefold, self.without_subreddits
        ):
            return "of other subreddits"
        if len(post.text) < self.min_post_chars:
            return "under a post that is too short"
        if len(text) < self.min_comment_chars:
            return "too short"
        if len(text) > (self.max_comment_chars or math.inf):
            return "too long"
        folded = text.casefold()
        if any(one.casefold() in folded for one in self.unwanted):
            return "with an unwanted text"
        links = folded.count("://") + folded.replace("://www.", "").count("www.")
        if self.max_links is not None and links > self.max_links:
            return "with too many links"
        if sum(map(len, _NO_LETTERS.findall(text))) > (1 - self.min_letters) * len(text):
            return "with too few letters"
        return ""

    def _refuse_unknown(self, subreddits: set[str]) -> None:
        for option in ("subreddits", "without_subreddits"):
            for name in getattr(self, option):
                if name.casefold() not in subreddits:
                    near = get_close_matches(name.casefold(), subreddits, n=1)
                    nearest = f"; did you mean '{near[0]}'?" if near else ""
                    raise ValueError(f"RedditFinancePairs.{option}: {self.path} has no row of {name!r}{nearest}")

    def _shortened(self, post: Post) -> Post:
        if self.max_post_chars is None or len(post.text) <= self.max_post_chars:
            return post
        room = self.max_post_chars - len(_CUT)
        # The end holds the question; two thirds go to the beginning, which tells the case.
        head, tail = post.text[: room - room // 3], post.text[-(room // 3) :]
        head = head[: max(head.rfind(" "), head.rfind("\n"))] if any(map(str.isspace, head)) else head
        start = next((i for i, one in enumerate(tail) if one.isspace()), -1)
        return replace(post, text=f"{head.rstrip()}{_CUT}{tail[start + 1 :].lstrip()}")
