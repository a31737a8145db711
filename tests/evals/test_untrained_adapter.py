"""An untrained adapter is the base: under greedy decoding every benchmark measures a difference of exactly 0."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tat_qa_tables import table_of

from lit_align.data.chat import ChatFormat
from lit_align.data.sources.scale_answers import ScalePairs
from lit_align.data.sources.table_skills import TableSkillItems, TableSkills
from lit_align.evals.answering import Generation
from lit_align.evals.benchmark import Benchmark
from lit_align.evals.drift import DriftBenchmark
from lit_align.evals.exact_match import ExactMatchBenchmark
from lit_align.evals.pair_accuracy import PairAccuracyBenchmark
from lit_align.evals.preferred_answer import PreferredAnswerBenchmark
from lit_align.evals.tat_qa import TATQABenchmark
from lit_align.metrics.statistics import paired_summary
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import BaseReference
from lit_align.tokenizer import load_tokenizer

GREEDY = Generation(max_new_tokens=12)


def tat_qa() -> Benchmark:
    Path("tables.json").write_text(json.dumps([table_of(0)]), encoding="utf-8")
    return TATQABenchmark(1.0, "tables.json", max_prompt_length=0, generation=GREEDY)


BENCHMARKS: dict[str, Callable[[], Benchmark]] = {
    "drift": lambda: DriftBenchmark({"tables": TableSkills(n=20)}, val_fraction=1.0),
    "exact match": lambda: ExactMatchBenchmark(TableSkillItems(n_per_skill=2), generation=GREEDY),
    "pairs": lambda: PairAccuracyBenchmark(ScalePairs("eval", 12), val_fraction=1.0),
    "preferred": lambda: PreferredAnswerBenchmark(ScalePairs("eval", 12), generation=GREEDY),
    "tat-qa": tat_qa,
}


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat(load_tokenizer("tiny-qwen3"))


@pytest.fixture(scope="module")
def policy() -> Policy:
    torch.manual_seed(0)
    # Dropout in train mode, so that an adapter that is not in evaluation mode would show.
    return Policy("tiny-qwen3", Weights(dtype="float32"), LoRA(rank=4, dropout=0.3), "tree_sdpa").train()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_difference_is_exactly_zero(name: str, policy: Policy, chat: ChatFormat) -> None:
    benchmark = BENCHMARKS[name]()

    after = benchmark.run(policy, chat)
    with BaseReference().active(policy):
        before = benchmark.run(policy, chat)

    assert after == before
    for measure, bounds in benchmark.measures.items():
        scores = [[item.scores[measure] for item in results] for results in (before, after)]
        difference = paired_summary(*scores, [item.cluster for item in after], bounds=bounds).difference
        assert difference.mean == 0


def test_an_adapter_that_has_moved_shows(policy: Policy, chat: ChatFormat) -> None:
    torch.manual_seed(1)
    moved = Policy("tiny-qwen3", Weights(dtype="float32"), LoRA(rank=4), "tree_sdpa")
    for key, parameter in moved.adapter_parameters().items():
        if ".lora_B." in key:
            parameter.data.normal_()
    for make in (BENCHMARKS["drift"], BENCHMARKS["exact match"]):
        before, after = make().run(policy, chat), make().run(moved, chat)
        assert [one.scores for one in before] != [one.scores for one in after]
