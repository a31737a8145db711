"""Answers to held-out questions of Finance-Instruct."""

from __future__ import annotations

from dataclasses import dataclass

from lit_align.data.sources.finance_instruct import FinanceInstruct
from lit_align.evals.scored_answers import ScoredAnswersBenchmark


@dataclass(frozen=True)
class FinanceInstructBenchmark(ScoredAnswersBenchmark):
    """Answers to questions of Finance-Instruct that training holds out, scored by a scorer.

    A question is held out by the hash of its text, so it is held out with all of its answers and under every system
    turn; that holds for training on ``FinanceInstruct``, and for pairs that ``lit-align sample`` made of it.

    Args:
        scorer: See :class:`~lit_align.evals.scored_answers.ScoredAnswersBenchmark`, like all that is not said here.
        val_fraction: ``data.val_fraction``, or 1 for a file that training does not see.
        source: The source of the training data, with the same options.
        split_seed: ``data.split_seed``.
        limit: Questions, at least 1, taken at random; null takes all that are held out.
        threshold: What counts as a success; null counts none.
        max_prompt_length: Tokens of a prompt, >= 0; a longer one is dropped and counted. 0 sets no limit.
        bad_rows: ``data.bad_rows``: a part of the published set is malformed.
        generation: How the answers are generated.
        name: Names the benchmark in tables, files and log keys.
    """

    source: FinanceInstruct = FinanceInstruct()
    name: str = "finance-instruct"
