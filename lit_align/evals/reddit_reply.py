"""Replies to held-out posts of Reddit about money matters."""

from __future__ import annotations

from dataclasses import dataclass

from lit_align.data.sources.reddit_finance import RedditFinance
from lit_align.evals.answering import Generation
from lit_align.evals.scored_answers import ScoredAnswersBenchmark


@dataclass(frozen=True)
class RedditReplyBenchmark(ScoredAnswersBenchmark):
    """Replies to posts of ``reddit_finance_43_250k`` that training holds out, scored by a scorer.

    A post is held out by its id, with all of its comments, and is one item; the comment that was liked best is the
    reference.

    Args:
        scorer: See :class:`~lit_align.evals.scored_answers.ScoredAnswersBenchmark`, like all that is not said here.
        val_fraction: ``data.val_fraction``, or 1 for a file that training does not see.
        source: The source of the training data, with the same options.
        split_seed: ``data.split_seed``.
        limit: Posts, at least 1, taken at random; null takes all that are held out.
        threshold: What counts as a success; null counts none.
        max_prompt_length: Tokens of a prompt, >= 0; a longer one is dropped and counted. 0 sets no limit.
        bad_rows: ``data.bad_rows``.
        generation: How the answers are generated.
        name: Names the benchmark in tables, files and log keys.
    """

    source: RedditFinance = RedditFinance()
    generation: Generation = Generation(max_new_tokens=256)
    name: str = "reddit-reply"
