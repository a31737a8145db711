from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit_align.data.chat import ChatFormat
from lit_align.evals import answering
from lit_align.evals.answering import Generation
from lit_align.evals.exact_match import ExactMatchBenchmark
from lit_align.evals.generate import Completion
from lit_align.types import EvalItem, EvalSource, Message

SPEAKER = SimpleNamespace(causal_lm=object())  # a policy whose model is never run

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    """A byte-level tokenizer: every text is one token a byte, and comes back as it was."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    fast.chat_template = TEMPLATE
    return ChatFormat(fast)


def item(id: str, question: str, gold: str, skill: str = "sums") -> EvalItem:
    return EvalItem(id, (Message("user", question),), gold, skill=skill, cluster=f"cluster of {id}")


@dataclass(frozen=True)
class Listed(EvalSource):
    listed: tuple[EvalItem, ...]

    def items(self) -> list[EvalItem]:
        return list(self.listed)


ITEMS = Listed((item("a", "1 + 1?", "2"), item("b", "2 + 2?", " 4\n"), item("c", "Столица?", "Москва", "capitals")))


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch, chat: ChatFormat) -> dict[str, Any]:
    """Answers put into the mouth of the model, and the arguments that generation was called with."""
    seen: dict[str, Any] = {"answers": []}

    def generate(model: object, prompts: list[list[int]], **options: Any) -> list[Completion]:
        seen.update(options, prompts=prompts, model=model)
        tokens = [chat.tokenizer.encode(answer, add_special_tokens=False) for answer in seen["answers"]]
        return [Completion(tuple(ids), hit_cap=len(ids) >= options["max_new_tokens"]) for ids in tokens]

    monkeypatch.setattr(answering, "generate", generate)
    return seen


def test_only_an_answer_equal_to_the_gold_one_up_to_outer_space_is_right(
    chat: ChatFormat, answered: dict[str, Any]
) -> None:
    golds = ["Paris"] * 8
    answered["answers"] = ["Paris", "\n Paris ", "paris", "Paris.", "Pa ris", "", "Paris<|im_start|>", "Parisian"]
    source = Listed(tuple(item(str(index), "?", gold) for index, gold in enumerate(golds)))

    results = ExactMatchBenchmark(source).run(SPEAKER, chat)

    assert [result.scores["exact_match"] for result in results] == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_a_result_records_the_whole_item(chat: ChatFormat, answered: dict[str, Any]) -> None:
    answered["answers"] = ["2", "four", "Москва"]

    first, second, third = ExactMatchBenchmark(ITEMS, generation=Generation(4)).run(SPEAKER, chat)

    assert (first.id, first.cluster, first.skill) == ("a", "cluster of a", "sums")
    assert first.prompt == "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
    assert (first.answer, first.gold, first.scores) == ("2", "2", {"exact_match": 1.0})
    assert (first.hit_cap, first.new_tokens) == (False, 1)
    assert (second.answer, second.gold, second.scores["exact_match"], second.hit_cap) == ("four", " 4\n", 0.0, True)
    assert (third.answer, third.skill, third.scores["exact_match"], third.new_tokens) == ("Москва", "capitals", 1.0, 12)


def test_prompts_are_those_of_training_and_settings_reach_generation(
    chat: ChatFormat, answered: dict[str, Any]
) -> None:
    answered["answers"] = ["", "", ""]

    ExactMatchBenchmark(ITEMS, generation=Generation(9, batch_size=2)).run(SPEAKER, chat, progress="label")

    assert list(map(list, answered["prompts"])) == [chat.prompt_ids(entry.prompt) for entry in ITEMS.listed]
    ids = chat.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert answered["stop_ids"] == ids
    assert (answered["max_new_tokens"], answered["batch_size"], answered["progress"]) == (9, 2, "label")
    assert answered["model"] is SPEAKER.causal_lm


def test_a_real_model_gives_its_greedy_text(chat: ChatFormat) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen3Config(vocab_size=len(chat.tokenizer), num_key_value_heads=1, head_dim=8, **shape)
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():  # a head that always writes "!"
        model.lm_head.weight.zero_()
        model.model.norm.weight.zero_()
        bias = torch.zeros(len(chat.tokenizer))
        bias[chat.tokenizer.convert_tokens_to_ids("!")] = 1
        model.lm_head.bias = torch.nn.Parameter(bias)

    benchmark = ExactMatchBenchmark(Listed((item("a", "?", "!!!"),)), generation=Generation(3))
    results = benchmark.run(SimpleNamespace(causal_lm=model), chat)

    assert (results[0].answer, results[0].scores["exact_match"], results[0].hit_cap) == ("!!!", 1.0, True)


def test_conditions_change_with_items_and_settings_and_with_nothing_else() -> None:
    benchmark = ExactMatchBenchmark(ITEMS, name="one")
    same = ExactMatchBenchmark(Listed(tuple(replace(entry) for entry in ITEMS.listed)), name="two")
    others = [
        replace(benchmark, generation=Generation(5)),
        replace(benchmark, generation=Generation(3, batch_size=5)),
        replace(benchmark, items=Listed(ITEMS.listed[:2])),
        replace(benchmark, items=Listed((replace(ITEMS.listed[0], answer="3"), *ITEMS.listed[1:]))),
    ]

    assert benchmark.conditions() == same.conditions()
    for other in others:
        assert other.conditions() != benchmark.conditions()


@pytest.mark.parametrize(
    ("items", "message"),
    [((), "'capitals' has no items"), ((item("a", "?", "x"), item("a", "!", "y")), "two items with the id 'a'")],
)
def test_unusable_items_are_refused(chat: ChatFormat, items: tuple[EvalItem, ...], message: str) -> None:
    benchmark = ExactMatchBenchmark(Listed(items), name="capitals")
    with pytest.raises(ValueError, match=message):
        benchmark.run(SPEAKER, chat)
    with pytest.raises(ValueError, match=message):
        benchmark.conditions()


@pytest.mark.parametrize("options", [{"name": ""}])
def test_unusable_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"ExactMatchBenchmark: {next(iter(options))} must"):
        ExactMatchBenchmark(ITEMS, **options)
