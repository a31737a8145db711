"""The engine in this process: the model's own answers, with its adapters, whatever the batch."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_align.checkpoint import write_adapter
from lit_align.commands.engines import Answer, Decoding, LocalEngine, Request
from lit_align.commands.sample import Sample
from lit_align.data.chat import ChatFormat
from lit_align.data.sources.table_skills import TableSkillItems
from lit_align.evals import generate as generation
from lit_align.evals.generate import generate
from lit_align.evals.sampling import GREEDY, Sampling
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import only_adapters
from lit_align.tokenizer import end_of_turn_ids, load_tokenizer

FP32 = Weights(dtype="float32")
ENGINE = LocalEngine("tiny-qwen3", weights=FP32, batch_size=4)
PROMPTS = TableSkillItems(skills=["lookup", "chat"], n_per_skill=2).prompts()
GREEDILY = Decoding(GREEDY, 0, 12, False)
DRAWN = Decoding(Sampling(3.0), 0, 12, False)


def an_adapter(folder: Path, seed: int, rank: int = 2) -> str:
    torch.manual_seed(seed)
    policy = Policy("tiny-qwen3", FP32, LoRA(rank=rank, dropout=0.5), "tree_sdpa")
    for parameter in policy.adapter_parameters().values():
        torch.nn.init.normal_(parameter, std=0.2)
    write_adapter(folder, policy.adapter_parameters(), policy.adapter_config())
    return str(folder)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("adapters")
    return [an_adapter(folder / "one", 1), an_adapter(folder / "two", 2, rank=3)]


def requests(engine: LocalEngine, k: int = 1) -> list[Request]:
    rendered = engine.render(PROMPTS, False)
    return [Request(one, number, ids) for one, ids in zip(PROMPTS, rendered, strict=True) for number in range(k)]


def answered(engine: LocalEngine, decoding: Decoding, k: int = 1, done: set[int] | None = None) -> dict[int, Answer]:
    found: dict[int, Answer] = {}
    for batch in engine.answers(requests(engine, k), done or set(), decoding):
        assert not {place for place, _ in batch} & {*found, *(done or ())}
        found.update(batch)
    return found


def greedy_answers(policy: Policy) -> list[str]:
    """As a benchmark asks for them."""
    chat = ChatFormat(load_tokenizer("tiny-qwen3"))
    prompts = [chat.prompt_ids(one.messages) for one in PROMPTS]
    stop = end_of_turn_ids(chat.tokenizer)
    completions = generate(policy.causal_lm, prompts, max_new_tokens=12, stop_ids=stop)
    return [str(chat.tokenizer.decode(list(one.tokens), skip_special_tokens=False)) for one in completions]


def test_the_base_answers_as_in_a_benchmark_and_the_answers_end_before_the_end_of_turn() -> None:
    found = answered(ENGINE, GREEDILY)
    expected = greedy_answers(Policy("tiny-qwen3", FP32, LoRA(), "tree_sdpa"))
    assert [found[place].text for place in range(len(PROMPTS))] == expected
    lookups = [(found[place], one) for place, one in enumerate(PROMPTS) if one.source == "lookup"]
    assert all(answer.finished and answer.text == one.gold for answer, one in lookups), "the bundled model can do this"


def test_an_answer_that_hits_the_cap_is_marked() -> None:
    found = answered(ENGINE, replace(GREEDILY, max_new_tokens=2))
    assert {(one.finished, one.tokens) for one in found.values()} == {(False, 2)}


@pytest.mark.parametrize("used", [[0], [0, 1]], ids=str)
def test_adapters_answer_alone_and_one_on_top_of_the_other(adapters: list[str], used: list[int]) -> None:
    from lit_align.models.adapter_folder import AdapterFolder

    paths = [adapters[number] for number in used]
    policy = Policy("tiny-qwen3", FP32, LoRA(rank=1), "tree_sdpa")
    for number, path in enumerate(paths):
        AdapterFolder(path).add_to(policy.peft, f"a{number}")
    with only_adapters(policy, [f"a{number}" for number in range(len(paths))]):
        expected = greedy_answers(policy)
    found = answered(replace(ENGINE, adapter=paths if len(paths) > 1 else paths[0]), GREEDILY)
    assert [found[place].text for place in range(len(PROMPTS))] == expected
    assert expected != [answered(ENGINE, GREEDILY)[place].text for place in range(len(PROMPTS))]


def test_a_completion_hangs_on_seed_prompt_and_number_alone() -> None:
    whole = answered(ENGINE, DRAWN, k=3)
    assert whole == answered(replace(ENGINE, batch_size=7), DRAWN, k=3)
    half = answered(ENGINE, DRAWN, k=3, done={0, 1, 7, 8, 9, 10})
    assert half == {place: whole[place] for place in half}
    assert len(half) == 6
    assert whole != answered(ENGINE, replace(DRAWN, seed=1), k=3)
    assert whole[0] != whole[1] != whole[2]


def test_a_run_that_goes_on_computes_the_batches_that_it_would_have_computed() -> None:
    batches = [[place for place, _ in batch] for batch in ENGINE.answers(requests(ENGINE, 2), set(), GREEDILY)]
    done = {place for batch in batches[:2] for place in batch}
    again = [[place for place, _ in batch] for batch in ENGINE.answers(requests(ENGINE, 2), done, GREEDILY)]
    assert again == batches[2:]


def test_the_identity_is_that_of_the_weights_and_the_template(adapters: list[str], tmp_path: Path) -> None:
    identity = replace(ENGINE, adapter=adapters[0]).identity()
    assert identity["adapters"][0]["path"] == adapters[0]
    assert identity["base"] == {"name": "tiny-qwen3", "dtype": "float32", "quantization": "none"}
    moved = shutil.copytree(adapters[0], tmp_path / "moved")
    elsewhere = replace(ENGINE, adapter=str(moved)).identity()
    assert elsewhere["adapters"][0]["digest"] == identity["adapters"][0]["digest"]
    other = replace(ENGINE, adapter=adapters[1]).identity()
    assert other["adapters"][0]["digest"] != identity["adapters"][0]["digest"]
    assert ENGINE.load() == Policy("tiny-qwen3", FP32, LoRA(), "tree_sdpa").base_fingerprint
    assert replace(ENGINE, adapter=adapters[0]).load() == ENGINE.load()


def test_an_adapter_of_another_base_is_refused_before_weights_are_read(random_llama: str, adapters: list[str]) -> None:
    with pytest.raises(ValueError, match="does not fit this base"):
        LocalEngine(random_llama, adapter=adapters[0]).check()


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_that_lacks_a_file_is_refused(name: str, adapters: list[str], tmp_path: Path) -> None:
    folder = shutil.copytree(adapters[0], tmp_path / "broken")
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"no file {name}"):
        replace(ENGINE, adapter=[adapters[1], str(folder)]).check()


def test_an_adapter_on_top_of_itself_is_refused(adapters: list[str]) -> None:
    with pytest.raises(ValueError, match="names one adapter twice"):
        replace(ENGINE, adapter=[adapters[0], adapters[0]]).check()


def test_an_absent_device_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`engine\.device` = cuda:99: torch .* sees \d+ CUDA devices here"):
        replace(ENGINE, device="cuda:99").check()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "`engine.batch_size` must be at least 1, got 0"),
        ({"cpu_threads": -1}, "`engine.cpu_threads` must be >= 0, got -1"),
        ({"device": "gpu"}, "`engine.device` must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ({"device": "cpu:0"}, "`engine.device` must be auto"),
        ({"device": "cuda:x"}, "`engine.device` must be auto"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_option_out_of_its_range_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="must be") as told:
        replace(ENGINE, **options)
    assert said in str(told.value)


def test_too_little_memory_names_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(generation, "_continue", full)
    with pytest.raises(RuntimeError, match=r"4 completions of up to \d+ tokens plus 12 new ones.*lower") as told:
        answered(ENGINE, GREEDILY)
    assert "`engine.batch_size` (now 4)" in str(told.value)


def test_the_file_of_a_run_holds_what_the_engine_answers(adapters: list[str]) -> None:
    engine = replace(ENGINE, adapter=adapters[0])
    source = TableSkillItems(skills=["lookup", "chat"], n_per_skill=2)
    Sample(source, engine, "out.jsonl", k=2, sampling=DRAWN.sampling, max_new_tokens=12).run()
    lines = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    found = answered(engine, DRAWN, k=2)
    assert [one["answer"] for one in lines] == [found[place].text for place in range(len(lines))]
    assert all(one["scores"] == {"exact_match": float(one["answer"].strip() == one["gold"])} for one in lines)
