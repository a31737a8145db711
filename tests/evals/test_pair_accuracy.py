"""Held-out pairs are those that training does not see, and their scores are the plain formula's."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from moved_policy import moved
from torch import Tensor

from lit_align.data.chat import ChatFormat
from lit_align.data.lengths import Lengths
from lit_align.data.mixture import group_of, is_held_out
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sources.preference_file import PreferenceFile
from lit_align.data.sources.scale_answers import ScalePairs
from lit_align.evals.benchmark import ItemResult, check_scores
from lit_align.evals.pair_accuracy import PairAccuracyBenchmark, pair_scores
from lit_align.forest import TokenClass, TokenForest, TokenPath
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import BaseReference, FrozenAdapterReference
from lit_align.ops.frozen_head import token_logps
from lit_align.tokenizer import load_tokenizer
from lit_align.types import Conversation, Message, PairSource, PreferencePair

TABLE = "profit 2019 47 , 2020 51 .\n"
ANSWERS = (("47", "51 million"), ("51 million", "51"), ("4", "47"))


@dataclass(frozen=True)
class Tables(PairSource):
    """Pairs about tables, three questions each; on request some pairs without a group."""

    number: int = 30
    alone: int = 0

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        """See the class."""
        asked = [
            (f"table {table}", f"{TABLE}table {table} question {question}?", *ANSWERS[question])
            for table in range(self.number) if keep(f"table {table}") for question in range(3)
        ]  # fmt: skip
        pairs = [
            PreferencePair((Message("user", text),), chosen, rejected, f"pair {i}", f"kind {i % 2}", group)
            for i, (group, text, chosen, rejected) in enumerate(asked)
        ]
        lone = [
            PreferencePair((Message("user", f"{i}?"),), "yes", "no", f"lone {i}", "lone") for i in range(self.alone)
        ]
        return pairs + [pair for pair in lone if keep(group_of(pair))]


def everything(group: str) -> bool:
    return True


@dataclass(frozen=True)
class Listed(PairSource):
    listed: tuple[PreferencePair, ...]

    def pairs(self, keep: Callable[[str], bool]) -> list[PreferencePair]:
        return [pair for pair in self.listed if keep(pair.group)]


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat(load_tokenizer("tiny-qwen3"))


@pytest.fixture(scope="module")
def untrained() -> Policy:
    torch.manual_seed(3)
    # Dropout, so that a measurement in train mode would show.
    return Policy("tiny-qwen3", Weights(dtype="float32"), LoRA(rank=4, alpha=8, dropout=0.3), "tree_sdpa")


@pytest.fixture(scope="module")
def trained(untrained: Policy) -> Policy:
    return moved(untrained, 1.0)


def unlearned(policy: Policy, chat: ChatFormat, pair: PreferencePair) -> Policy:
    """The policy after one step that makes a chosen answer less likely."""
    [path] = chat.paths(Conversation((*pair.prompt, Message("assistant", pair.chosen)), "", ""), "last")
    forest = TokenForest.build([[path]])
    stepped = copy.deepcopy(policy).eval()
    hidden = stepped.hidden(forest)[forest.pair_rows]
    token_logps(hidden, stepped.head, forest.pair_tokens).sum().backward()
    for parameter in stepped.adapter_parameters().values():
        assert parameter.grad is not None
        parameter.data -= 0.03 * parameter.grad.sign()
    return stepped.train()


def distributions(policy: Policy, path: TokenPath, adapters: bool) -> tuple[Tensor, Tensor]:
    """Float64 log-probs of the whole vocabulary at each answer token of one path run alone, and the tokens."""
    double = copy.deepcopy(policy).double().eval()
    tokens = torch.from_numpy(path.tokens).long()
    with torch.no_grad():
        if adapters:
            logits = double.peft(tokens[None]).logits[0]
        else:
            with double.peft.disable_adapter():
                logits = double.peft(tokens[None]).logits[0]
    at = torch.from_numpy(path.classes == TokenClass.ANSWER).nonzero()[:, 0]
    return logits.log_softmax(-1)[at - 1], tokens[at]


def naive(policy: Policy, chat: ChatFormat, pair: PreferencePair) -> dict[str, float]:
    logps, ratios, kls = [], [], []
    for answer in (pair.chosen, pair.rejected):
        turns = (*pair.prompt, Message("assistant", answer))
        [path] = chat.paths(Conversation(turns, pair.id, pair.source), "last")
        own, tokens = distributions(policy, path, adapters=True)
        base, _ = distributions(policy, path, adapters=False)
        logps.append(sum(float(own[i, token]) for i, token in enumerate(tokens)))
        ratios.append(logps[-1] - sum(float(base[i, token]) for i, token in enumerate(tokens)))
        kls.append(float((own.exp() * (own - base)).sum(-1).mean()))
    return {
        "accuracy": float(logps[0] > logps[1]),
        "rewards/accuracies": float(ratios[0] > ratios[1]),
        "displacement/chosen": float(ratios[0] < 0),
        "logps/chosen": logps[0],
        "logps/rejected": logps[1],
        "kl": kls[0],
    }


def test_scores_are_those_of_each_answer_run_alone_in_float64(untrained: Policy, chat: ChatFormat) -> None:
    benchmark = PairAccuracyBenchmark(Tables(number=2, alone=2), val_fraction=1.0)
    pairs = {pair.id: pair for pair in benchmark.source.pairs(everything)}
    results = []
    for policy in (moved(untrained, 1.0), unlearned(untrained, chat, pairs["pair 0"])):
        results += benchmark.run(policy, chat)
        for item in results[-len(pairs) :]:
            assert item.scores == pytest.approx(naive(policy, chat, pairs[item.id]), rel=2e-5, abs=1e-6)

    assert [item.id for item in results] == [*pairs, *pairs]
    for measure in ("accuracy", "rewards/accuracies", "displacement/chosen"):
        assert {item.scores[measure] for item in results} == {0.0, 1.0}, f"{measure}: the comparison has no power"


def test_an_untrained_adapter_is_the_base_exactly(untrained: Policy, chat: ChatFormat) -> None:
    for item in PairAccuracyBenchmark(Tables(number=3), val_fraction=1.0).run(untrained.train(), chat):
        assert (item.scores["rewards/accuracies"], item.scores["displacement/chosen"], item.scores["kl"]) == (0.5, 0, 0)


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-8])
def test_a_tiny_step_has_a_divergence_that_is_not_below_zero(untrained: Policy, chat: ChatFormat, size: float) -> None:
    benchmark = PairAccuracyBenchmark(Tables(number=4), val_fraction=1.0)
    results = benchmark.run(moved(untrained, size), chat)
    check_scores(benchmark, results)
    assert min(item.scores["kl"] for item in results) >= 0


def test_nothing_of_the_policy_is_changed(trained: Policy, chat: ChatFormat) -> None:
    before = [(module.training, getattr(module, "_disable_adapters", None)) for module in trained.modules()]
    state = torch.get_rng_state()
    trainable = [parameter.requires_grad for parameter in trained.parameters()]

    PairAccuracyBenchmark(Tables(number=2), val_fraction=1.0).run(trained, chat)

    assert [(module.training, getattr(module, "_disable_adapters", None)) for module in trained.modules()] == before
    assert [parameter.requires_grad for parameter in trained.parameters()] == trainable
    assert torch.equal(torch.get_rng_state(), state)


def test_a_tie_counts_one_half_and_swapped_answers_the_rest(trained: Policy, chat: ChatFormat) -> None:
    [pair] = Tables(number=1).pairs(everything)[:1]

    def path(answer: str) -> TokenPath:
        return chat.paths(Conversation((*pair.prompt, Message("assistant", answer)), "x", "s"), "last")[0]

    one, other = path(pair.chosen), path(pair.rejected)
    tie, plain, swapped = (
        pair_scores(trained, TokenForest.build([both]), BaseReference())
        for both in ([one, one], [one, other], [other, one])
    )

    assert float(tie["accuracy"]) == float(tie["rewards/accuracies"]) == 0.5
    assert float(plain["accuracy"]) + float(swapped["accuracy"]) == 1
    assert torch.equal(plain["logps/chosen"], swapped["logps/rejected"])


def test_the_budget_changes_no_score(trained: Policy, chat: ChatFormat) -> None:
    whole = PairAccuracyBenchmark(Tables(number=4), val_fraction=1.0)
    parted = replace(whole, token_budget=60)

    for one, other in zip(whole.run(trained, chat), parted.run(trained, chat), strict=True):
        assert (one.id, one.cluster) == (other.id, other.cluster)
        assert one.scores == pytest.approx(other.scores, rel=1e-5, abs=1e-6)


def groups_of(data: PreferenceDataModule) -> tuple[set[str], set[str]]:
    """Groups that training sees, and those of its validation."""
    data.setup("fit")
    return {tree.name for tree in data._trained}, {tree.name for tree in data._validation}


def test_what_is_scored_is_what_training_holds_out(trained: Policy, chat: ChatFormat) -> None:
    split: dict[str, Any] = {"val_fraction": 0.3, "split_seed": 5}
    seen, held_out = groups_of(PreferenceDataModule(sources=[Tables()], **split))

    scored = {item.cluster for item in PairAccuracyBenchmark(Tables(), **split).run(trained, chat)}

    assert scored == held_out
    assert not scored & seen
    other = {item.cluster for item in PairAccuracyBenchmark(Tables(), 0.3, split_seed=6).run(trained, chat)}
    assert other & seen, "with another seed the two would overlap, so the comparison has power"


def test_the_defaults_are_those_of_the_data_module() -> None:
    data, benchmark = PreferenceDataModule(sources=[Tables()]), PairAccuracyBenchmark(Tables(), 0.5)

    for option in ("split_seed", "lengths", "token_budget", "bad_rows"):
        assert getattr(benchmark, option) == getattr(data, option)


def clusters(benchmark: PairAccuracyBenchmark) -> list[str]:
    return [pair.group or pair.id for pair in benchmark._pairs.values()]


def test_a_limit_takes_whole_groups_those_that_a_smaller_fraction_holds_out() -> None:
    whole = PairAccuracyBenchmark(Tables(number=200), val_fraction=0.5)
    limited = clusters(replace(whole, limit=40))

    assert len(limited) == 42, "the group that brings it to 40"
    assert {limited.count(name) for name in limited} == {3}
    assert set(limited) < set(clusters(whole))
    smaller = next(
        f / 1000 for f in range(1000) if sum(is_held_out(f"table {t}", f / 1000, 0) for t in range(200)) == 14
    )
    assert set(limited) == set(clusters(replace(whole, val_fraction=smaller)))
    assert limited == [name for name in clusters(whole) if name in set(limited)], "in the order of the source"


def test_pairs_of_equal_prompts_are_one_cluster_and_their_limit_too() -> None:
    prompt = (Message("user", "Which?"),)
    pairs = tuple(PreferencePair(prompt, chosen, "no", chosen, "s") for chosen in ("yes", "aye", "yea"))

    assert len(PairAccuracyBenchmark(Listed(pairs), 1.0, limit=1)._pairs) == 3


def test_the_answer_told_is_the_likelier_one(trained: Policy, chat: ChatFormat) -> None:
    results = PairAccuracyBenchmark(Tables(number=3), val_fraction=1.0).run(trained, chat)
    pairs = {pair.id: pair for pair in Tables(number=3).pairs(everything)}

    for item in results:
        pair = pairs[item.id]
        assert item.answer == (pair.chosen if item.scores["accuracy"] else pair.rejected)
        assert (item.gold, item.skill, item.cluster) == (pair.chosen, pair.source, pair.group)
        assert item.prompt == chat.tokenizer.decode(chat.prompt_ids(pair.prompt))
        assert (item.hit_cap, item.new_tokens) == (None, 0)
    assert len({item.answer == item.gold for item in results}) == 2


def test_a_pair_over_the_limits_is_dropped(trained: Policy, chat: ChatFormat) -> None:
    def size(pair: PreferencePair) -> int:
        turns = [(*pair.prompt, Message("assistant", answer)) for answer in (pair.chosen, pair.rejected)]
        return max(len(chat.paths(Conversation(one, "", ""), "last")[0].tokens) for one in turns)

    sizes = {pair.id: size(pair) for pair in Tables(number=3).pairs(everything)}
    limit = min(sizes.values())

    kept = PairAccuracyBenchmark(Tables(number=3), 1.0, lengths=Lengths(max_length=limit, max_dropped=1)).run(
        trained, chat
    )

    assert [item.id for item in kept] == [name for name, length in sizes.items() if length <= limit]
    assert 0 < len(kept) < len(sizes)


def test_conditions_change_with_the_pairs_and_what_may_drop_one() -> None:
    benchmark = PairAccuracyBenchmark(Tables(), val_fraction=0.5)

    assert benchmark.conditions() == replace(benchmark, name="other", token_budget=99).conditions()
    for change in ({"split_seed": 1}, {"limit": 3}, {"lengths": Lengths(max_length=48)}, {"bad_rows": "drop"}):
        assert replace(benchmark, **change).conditions() != benchmark.conditions()


@pytest.mark.parametrize(
    "options", [{"name": ""}, {"val_fraction": 0.0}, {"val_fraction": 1.01}, {"limit": 0}, {"token_budget": 0},
                {"val_fraction": math.nan}]
)  # fmt: skip
def test_unusable_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"PairAccuracyBenchmark: {next(iter(options))} must"):
        PairAccuracyBenchmark(**{"source": Tables(), "val_fraction": 0.5, **options})


def test_a_split_that_holds_out_nothing_and_a_repeated_id_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'pairs': val_fraction = 1e-09 with split_seed = 0 holds out no pair"):
        PairAccuracyBenchmark(Tables(), 1e-9).conditions()
    twice = PreferencePair((Message("user", "?"),), "yes", "no", "a", "s")
    with pytest.raises(ValueError, match="two pairs with the id 'a'"):
        PairAccuracyBenchmark(Listed((twice, twice)), 1.0).conditions()


def test_rows_that_the_source_cannot_read_stop_it_or_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"prompt": "a?", "chosen": "yes", "rejected": "no"}, {"prompt": "b?"}, {"prompt": "c?", "chosen": "yes"}]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    benchmark = PairAccuracyBenchmark(PreferenceFile("pairs.jsonl"), 1.0)
    with pytest.raises(ValueError, match=r"pairs\.jsonl:2: no column 'chosen'"):
        benchmark.conditions()
    caplog.set_level("INFO", "lit_align.evals.held_out")
    assert replace(benchmark, bad_rows="drop").conditions()["n"] == 1
    assert "pairs: 2 rows of the source refused; first refusal: " in caplog.text
    assert "pairs.jsonl:2: no column 'chosen'" in caplog.text


def test_results_are_plain_for_checkpoints(trained: Policy, chat: ChatFormat) -> None:
    results: list[ItemResult] = PairAccuracyBenchmark(Tables(number=1), 1.0).run(trained, chat)

    assert {type(score) for item in results for score in item.scores.values()} == {float}


def test_the_reference_is_the_one_that_is_named(chat: ChatFormat) -> None:
    reference = FrozenAdapterReference("package:lit_align/assets/tiny_qwen3_undecided")
    policy = Policy("tiny-qwen3", Weights(dtype="float32"), LoRA(rank=4), "tree_sdpa")
    reference.attach(policy)  # a fresh adapter on top of it: the policy is the reference
    pairs = ScalePairs(split="eval", n=12)

    started = PairAccuracyBenchmark(pairs, 1.0, reference=reference).run(policy, chat)
    from_base = PairAccuracyBenchmark(pairs, 1.0).run(policy, chat)

    assert {one.scores["rewards/accuracies"] for one in started} == {0.5}
    assert {one.scores["kl"] for one in started} == {0.0}
    assert {one.scores["rewards/accuracies"] for one in from_base} == {1.0}
    assert min(one.scores["kl"] for one in from_base) > 1.0
    assert PairAccuracyBenchmark(pairs, 1.0, reference=reference).conditions()["reference"] == reference.identity()


def test_a_reference_that_the_policy_does_not_hold_is_refused(untrained: Policy, chat: ChatFormat) -> None:
    """PEFT itself would pass over the adapter that is not there, and the bare base would be measured."""
    reference = FrozenAdapterReference("package:lit_align/assets/tiny_qwen3_undecided")
    with pytest.raises(ValueError, match=r"undecided is not the one under the policy \(none\): name the same"):
        PairAccuracyBenchmark(ScalePairs(split="eval", n=2), 1.0, reference=reference).run(untrained, chat)
