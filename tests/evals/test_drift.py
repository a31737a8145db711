"""Drift is what float64 on each answer alone gives, 0 for the base, and of conversations that training does not see."""

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
from lit_align.data.mixture import group_of
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.messages_file import MessagesFile
from lit_align.evals import drift
from lit_align.evals.benchmark import check_scores
from lit_align.evals.drift import DriftBenchmark, drift_sums
from lit_align.forest import TokenClass, TokenForest, TokenPath
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import BaseReference, FrozenAdapterReference
from lit_align.ops.frozen_head import TokenScores, score_tokens
from lit_align.tokenizer import load_tokenizer
from lit_align.types import Conversation, ConversationSource, Message

TABLE = "profit 2019 47 , 2020 51 .\n"
ANSWERS = ("47", "See 51 million.", "It rose from 47 to 51.")


@dataclass(frozen=True)
class Tables(ConversationSource):
    """Questions about tables, three each; and exchanges of two turns without a group."""

    number: int = 30
    talks: int = 0

    def conversations(self) -> list[Conversation]:
        asked = [
            Conversation(
                (Message("user", f"{TABLE}table {t} question {q}?"), Message("assistant", ANSWERS[q])),
                f"table {t} question {q}", "tables", f"table {t}",
            )
            for t in range(self.number) for q in range(3)
        ]  # fmt: skip
        turns = [("user", "Hello {}"), ("assistant", "Hi, {}."), ("user", "Thanks"), ("assistant", "Bye {}, see you.")]
        return asked + [
            Conversation(tuple(Message(role, text.format(t)) for role, text in turns), f"talk {t}", "talks")  # type: ignore[arg-type]
            for t in range(self.talks)
        ]


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return ChatFormat(load_tokenizer("tiny-qwen3"))


@pytest.fixture(scope="module")
def untrained() -> Policy:
    torch.manual_seed(3)
    # Dropout, so that a measurement in train mode would show.
    return Policy("tiny-qwen3", Weights(dtype="float32"), LoRA(rank=4, alpha=8, dropout=0.3), "tree_sdpa").train()


@pytest.fixture(scope="module")
def trained(untrained: Policy) -> Policy:
    return moved(untrained, 0.5)


def log_probs(policy: Policy, path: TokenPath) -> tuple[Tensor, Tensor, Tensor]:
    """Float64 log-probs of the vocabulary at the answer tokens of one path run alone: policy, base; and the tokens."""
    double = copy.deepcopy(policy).double().eval()
    tokens = torch.from_numpy(path.tokens).long()
    at = torch.from_numpy(path.classes == TokenClass.ANSWER).nonzero()[:, 0]
    with torch.no_grad():
        own = double.peft(tokens[None]).logits[0]
        with double.peft.disable_adapter():
            base = double.peft(tokens[None]).logits[0]
    return own.log_softmax(-1)[at - 1], base.log_softmax(-1)[at - 1], tokens[at]


def naive(policy: Policy, chat: ChatFormat, conversation: Conversation) -> dict[str, float]:
    found: dict[str, list[float]] = {measure: [] for measure in DriftBenchmark.measures}
    for path in chat.paths(conversation, "all"):
        own, base, tokens = log_probs(policy, path)
        found["nll"] += [-float(own[i, token]) for i, token in enumerate(tokens)]
        found["kl_policy_base"] += (own.exp() * (own - base)).sum(-1).tolist()
        found["kl_base_policy"] += (base.exp() * (base - own)).sum(-1).tolist()
    return {measure: sum(values) / len(values) for measure, values in found.items()}


def test_scores_are_those_of_each_answer_run_alone_in_float64(trained: Policy, chat: ChatFormat) -> None:
    benchmark = DriftBenchmark({"tables": Tables(2), "talk": Tables(1, talks=2)}, val_fraction=1.0)
    results = benchmark.run(trained, chat)
    check_scores(benchmark, results)

    asked = [(name, one) for name, source in benchmark.domains.items() for one in source.conversations()]
    assert [(item.id, item.skill) for item in results] == [(f"{name}/{one.id}", name) for name, one in asked]
    for item, (_, one) in zip(results, asked, strict=True):
        assert item.scores == pytest.approx(naive(trained, chat, one), rel=2e-5)
        assert item.scores["kl_policy_base"] != pytest.approx(item.scores["kl_base_policy"], rel=0.01)
        assert (item.cluster, item.hit_cap, item.new_tokens) == (group_of(one), None, 0)
        assert item.prompt == chat.tokenizer.decode(chat.prompt_ids(one.messages[:-1]))
        assert item.gold == one.messages[-1].content


def test_an_untrained_adapter_is_the_base_exactly(untrained: Policy, chat: ChatFormat) -> None:
    results = DriftBenchmark({"all": Tables(2, talks=2)}, val_fraction=1.0).run(untrained, chat)

    assert {item.scores[kl] for item in results for kl in ("kl_policy_base", "kl_base_policy")} == {0.0}
    assert min(item.scores["nll"] for item in results) > 0


@pytest.mark.parametrize("size", [1e-3, 1e-8])
def test_a_tiny_step_has_divergences_that_are_not_below_zero(untrained: Policy, chat: ChatFormat, size: float) -> None:
    benchmark = DriftBenchmark({"tables": Tables(4)}, val_fraction=1.0)

    results = benchmark.run(moved(untrained, size), chat)
    divergences = [item.scores[kl] for item in results for kl in ("kl_policy_base", "kl_base_policy")]
    assert len(divergences) == 2 * len(results) > 0
    assert 0 <= min(divergences) < max(divergences) < size


@pytest.mark.parametrize("budget", [60, 200])
def test_neither_the_budget_nor_the_neighbours_change_a_score(trained: Policy, chat: ChatFormat, budget: int) -> None:
    whole = DriftBenchmark({"one": Tables(3, talks=2)}, val_fraction=1.0)
    # At 60 tokens the turns of a talk lie in several forests, as do the questions about a table.
    parted = replace(whole, token_budget=budget).run(trained, chat)
    alone = replace(whole, domains={"two": Tables(1), **whole.domains}).run(trained, chat)[3:]

    for one, other, third in zip(whole.run(trained, chat), parted, alone, strict=True):
        assert one.id == other.id == third.id
        assert one.scores == pytest.approx(other.scores, rel=1e-5, abs=1e-6)
        assert one.scores == pytest.approx(third.scores, rel=1e-5, abs=1e-6)


def test_a_table_is_computed_once_for_its_questions(
    trained: Policy, chat: ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def spied(policy: Policy, forest: TokenForest, reference: BaseReference) -> Tensor:
        sizes.append(len(forest))
        return drift_sums(policy, forest, reference)

    monkeypatch.setattr(drift, "drift_sums", spied)
    DriftBenchmark({"tables": Tables(4)}, val_fraction=1.0).run(trained, chat)

    alone = [len(path.tokens) for one in Tables(1).conversations() for path in chat.paths(one, "all")]
    assert len(sizes) == 4
    assert max(sizes) < 0.7 * sum(alone)


def test_logits_of_a_whole_forest_are_never_held(
    trained: Policy, chat: ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [path for one in Tables(40).conversations() for path in chat.paths(one, "all")]
    forest = TokenForest.build([[path] for path in paths])
    vocabulary = trained.head.weight.shape[0]
    monkeypatch.setattr("lit_align.ops.frozen_head.CPU_CHUNK_BYTES", 16 * 4 * vocabulary)  # sixteen rows of logits
    assert len(forest.pair_rows) > 20 * 16

    assert largest(lambda: drift_sums(trained, forest, BaseReference()), trained.head.weight) <= 16

    def plainly(hidden: Tensor, head: Any, targets: Tensor, **options: Any) -> TokenScores:
        (hidden @ head.weight.T).log_softmax(-1)
        return score_tokens(hidden, head, targets, **options)

    monkeypatch.setattr(drift, "score_tokens", plainly)
    planted = largest(lambda: drift_sums(trained, forest, BaseReference()), trained.head.weight)
    assert planted == len(forest.pair_rows), "the planted fault shows"


def largest(action: Callable[[], object], weight: Tensor) -> int:
    """Most rows of a tensor over the vocabulary that any operation makes, views of the head's weight apart."""
    from torch.utils._python_dispatch import TorchDispatchMode

    rows = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal rows
            made = func(*args, **(kwargs or {}))
            if (
                isinstance(made, Tensor)
                and made.shape[1:] == (len(weight),)
                and made.untyped_storage().data_ptr() != weight.untyped_storage().data_ptr()
            ):
                rows = max(rows, made.shape[0])
            return made

    with Watch():
        action()
    return rows


def test_nothing_of_the_policy_is_changed(trained: Policy, chat: ChatFormat) -> None:
    def state() -> list[Any]:
        modes = [(module.training, getattr(module, "_disable_adapters", None)) for module in trained.modules()]
        return [modes, [parameter.requires_grad for parameter in trained.parameters()], torch.get_rng_state().tolist()]

    before = state()
    results = DriftBenchmark({"tables": Tables(2)}, val_fraction=1.0).run(trained, chat)

    assert state() == before
    assert {type(score) for item in results for score in item.scores.values()} == {float}


def test_what_is_measured_is_what_training_holds_out(trained: Policy, chat: ChatFormat) -> None:
    split: dict[str, Any] = {"val_fraction": 0.3, "split_seed": 5}
    data = SFTDataModule(sources=[Tables(talks=20)], **split)
    data.setup("fit")
    benchmark = DriftBenchmark({"tables": Tables(talks=20)}, **split)

    measured = [item.id.removeprefix("tables/") for item in benchmark.run(trained, chat)]

    assert measured == [tree.name for tree in data._validation]
    assert not benchmark.groups() & data.trained_groups
    assert DriftBenchmark({"tables": Tables(talks=20)}, 1.0).groups() > data.trained_groups > set()


def test_the_defaults_are_those_of_the_data_module() -> None:
    data, benchmark = SFTDataModule(sources=[Tables()]), DriftBenchmark({"tables": Tables()}, 0.5)

    for option in ("split_seed", "lengths", "token_budget", "turns", "bad_rows"):
        assert getattr(benchmark, option) == getattr(data, option)


def test_a_limit_takes_whole_groups_of_each_domain(trained: Policy, chat: ChatFormat) -> None:
    benchmark = DriftBenchmark({"a": Tables(30), "b": Tables(0, talks=30)}, val_fraction=1.0, limit=7)
    results = benchmark.run(trained, chat)

    assert [sum(item.skill == name for item in results) for name in "ab"] == [9, 7]
    assert {sum(other.cluster == item.cluster for other in results) for item in results if item.skill == "a"} == {3}


def test_turns_and_lengths_are_those_of_training(trained: Policy, chat: ChatFormat) -> None:
    talk = DriftBenchmark({"talk": Tables(0, talks=3)}, val_fraction=1.0)
    all_turns, last = talk.run(trained, chat), replace(talk, turns="last").run(trained, chat)
    assert all(
        one.scores != other.scores and one.gold == other.gold for one, other in zip(all_turns, last, strict=True)
    )

    [first, second] = chat.paths(Tables(0, talks=1).conversations()[0], "all")
    short = replace(talk, lengths=Lengths(max_length=len(first.tokens), max_dropped=1.0)).run(trained, chat)
    assert [item.gold for item in short] == ["Hi, 0.", "Hi, 1.", "Hi, 2."]
    cut = replace(talk, lengths=Lengths(max_length=len(second.tokens) - 2, overlong="cut")).run(trained, chat)
    assert cut[0].gold.startswith("Bye 0")
    assert cut[0].gold != "Bye 0, see you."


def test_conditions_change_with_the_conversations_and_what_may_drop_one() -> None:
    benchmark = DriftBenchmark({"tables": Tables()}, val_fraction=0.5)

    assert benchmark.conditions() == replace(benchmark, name="other", token_budget=99).conditions()
    changes = (
        {"split_seed": 1}, {"limit": 3}, {"lengths": Lengths(max_length=48)}, {"bad_rows": "drop"}, {"turns": "last"},
        {"domains": {"other": Tables()}},
    )  # fmt: skip
    for change in changes:
        assert replace(benchmark, **change).conditions() != benchmark.conditions()


@pytest.mark.parametrize(
    "options", [{"name": ""}, {"val_fraction": 0.0}, {"val_fraction": math.nan}, {"limit": 0}, {"token_budget": 0},
                {"domains": {}}, {"domains": {"": Tables()}}]
)  # fmt: skip
def test_unusable_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"DriftBenchmark: {next(iter(options))} must"):
        DriftBenchmark(**{"domains": {"tables": Tables()}, "val_fraction": 0.5, **options})


def test_rows_that_cannot_be_used_name_the_domain_or_are_counted(
    trained: Policy, chat: ChatFormat, caplog: pytest.LogCaptureFixture
) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    rows = [{"messages": turns}, {"text": "x"}, {"messages": turns[:1]}, {"messages": turns}]
    Path("chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    benchmark = DriftBenchmark({"chat": MessagesFile("chat.jsonl")}, val_fraction=1.0)
    with pytest.raises(ValueError, match=r"chat\.jsonl:2: no column 'messages'"):
        benchmark.conditions()

    caplog.set_level("INFO", "lit_align")
    results = replace(benchmark, bad_rows="drop").run(trained, chat)

    assert [item.id for item in results] == ["chat/chat.jsonl:1", "chat/chat.jsonl:4"]
    assert len({item.cluster for item in results}) == 1, "what says the same is one cluster"
    assert "drift, chat: 1 rows of the source refused; first refusal: " in caplog.text
    assert "chat.jsonl:3: must end with" in caplog.text or "no assistant turn" in caplog.text
    with pytest.raises(ValueError, match=r"'drift, chat': val_fraction = 1e-09 with split_seed = 0 holds out no conv"):
        replace(benchmark, bad_rows="drop", val_fraction=1e-9).conditions()


def test_the_reference_is_the_one_that_is_named(chat: ChatFormat) -> None:
    reference = FrozenAdapterReference("package:lit_align/assets/tiny_qwen3_undecided")
    policy = Policy("tiny-qwen3", Weights(dtype="float32"), LoRA(rank=4), "tree_sdpa")
    reference.attach(policy)  # a fresh adapter on top of it: the policy is the reference
    benchmark = DriftBenchmark({"tables": Tables(2)}, val_fraction=1.0)

    started, from_base = (replace(benchmark, reference=one).run(policy, chat) for one in (reference, BaseReference()))

    assert {item.scores["kl_policy_base"] for item in started} == {0.0}
    assert min(item.scores["kl_policy_base"] for item in from_base) > 0.001
