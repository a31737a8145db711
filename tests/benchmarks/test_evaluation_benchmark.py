"""The two sides of a row answer alike, and only one of them shares its prompts."""

from __future__ import annotations

from benchmarks import evaluation
from benchmarks.evaluation import Timed, _timed, without_shared_prompts
from lit_align.evals import generate


def test_sharing_is_off_inside_of_the_block_alone() -> None:
    own = generate.prompt_cache
    with without_shared_prompts():
        assert generate.prompt_cache(None, [[1, 2, 3, 4], [1, 2, 3, 5]]) is None
    assert generate.prompt_cache is own


def test_a_row_tells_ratios_and_the_answers_that_differ() -> None:
    found = _timed("case", {"ours": lambda: ["a", "b"], "theirs": lambda: ["a", "c"]}, 2.0, rounds=3)
    assert found.alike == 0.5
    assert [len(values) for values in (*found.cpu, *found.wall)] == [3] * 4

    row = Timed("case", ("ours", "theirs"), 3.0, 1.0, ([1.0, 2.0, 1.0], [4.0, 4.0, 2.0]), ([1.0], [3.0])).row()
    assert "| 2.00 [2.00, 4.00] | 0.50 | 3.00 | ≥ 3: missed | 100% |" in row


def test_batches_answer_as_one_by_one() -> None:
    found = evaluation.batched("tiny-qwen3", 4, rounds=1)
    assert found.alike == 1.0
