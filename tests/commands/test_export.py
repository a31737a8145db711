"""Exported models: opened by transformers and PEFT alone, the trained one to rounding, with the drift."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import shown_line
from saved_adapters import save_adapter

from lit_align.cli import main
from lit_align.commands import export as export_module
from lit_align.commands import export_forms
from lit_align.commands.engines import LocalEngine
from lit_align.commands.export import MANIFEST, Export
from lit_align.commands.export_drift import Asked, trained_answers
from lit_align.commands.export_forms import ExportForm, MergedDequantized, MergedWeights, OneAdapter
from lit_align.commands.trained_model import TrainedModel, trained_model
from lit_align.data.sources.table_skills import TableSkillItems
from lit_align.evals.agreement import Agreement
from lit_align.models.adapter_folder import AdapterFolder
from lit_align.models.adapter_sum import Factors
from lit_align.models.loading import Weights, plain_base, quiet_peft
from lit_align.tokenizer import end_of_turn_ids, load_tokenizer

FP32 = Weights(dtype="float32")
ASSETS = Path(export_forms.__file__).parents[1] / "assets" / "tiny_qwen3"
PROMPTS = TableSkillItems(skills=["lookup", "chat", "rise"], n_per_skill=2)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("adapters")
    one = save_adapter(folder / "one", 1, rank=2, alpha=3.0)
    return [one, save_adapter(folder / "two", 2, rank=3, alpha=3.0, target_modules=["q_proj", "v_proj"])]


@pytest.fixture
def command(adapters: list[str]) -> Export:
    return Export(
        adapters, "out", OneAdapter(), "tiny-qwen3", FP32, prompts=PROMPTS, max_new_tokens=8, batch_size=3, device="cpu"
    )


def held() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("out", MANIFEST).read_text(encoding="utf-8"))
    return found


def rendered() -> list[Any]:
    tokenizer = load_tokenizer("tiny-qwen3")
    turns = [[{"role": turn.role, "content": turn.content} for turn in one.messages] for one in PROMPTS.prompts()]
    return [
        tokenizer.apply_chat_template(
            one, add_generation_prompt=True, enable_thinking=False, return_tensors="pt", return_dict=True
        )
        for one in turns
    ]


def trained(adapters: list[str]) -> Any:
    """The trained model by other code than the command's."""
    engine = LocalEngine("tiny-qwen3", adapters, FP32, device="cpu")
    engine.load()
    return engine._loaded[0]


@torch.no_grad()
def probabilities(model: Any) -> torch.Tensor:
    return torch.cat([torch.softmax(model(**one).logits[0].double(), dim=-1) for one in rendered()])


def generated(model: Any, tokenizer: Any) -> list[str]:
    return [
        tokenizer.decode(model.generate(**one, max_new_tokens=12, do_sample=False)[0, one["input_ids"].shape[1] :])
        for one in rendered()
    ]


def left() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def test_one_adapter_opens_with_peft_and_is_the_stack(command: Export, adapters: list[str]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    command.run()
    base = json.loads(Path("out/adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    with quiet_peft():
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="float32"), "out")
    before, tokenizer = trained(adapters), load_tokenizer("tiny-qwen3")
    assert float((probabilities(model) - probabilities(before)).abs().max()) < 1e-4
    assert generated(model, tokenizer) == generated(before, tokenizer)
    told = held()
    assert (told["rank"], told["layers"]) == (5, 28)
    assert [one["path"] for one in told["adapters"]] == adapters
    assert told["drift"]["kl"]["high"] < 1e-10
    assert told["drift"]["largest_gap"] < 1e-4
    assert told["drift"]["same_token"]["mean"] == told["drift"]["same_answer"]["mean"] == 1.0
    assert told["noise"]["kl"]["high"] < 1e-10
    assert left() == ["out"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_merged_weights_open_with_transformers_and_generate(dtype: Any, command: Export, adapters: list[str]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    replace(command, form=MergedWeights(dtype, max_shard_size="1MB")).run()
    model = AutoModelForCausalLM.from_pretrained("out", dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained("out")
    assert len(list(Path("out").glob("model-*.safetensors"))) > 1
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    own = load_tokenizer("tiny-qwen3")
    assert tokenizer.chat_template == own.chat_template
    assert tokenizer.get_vocab() == own.get_vocab()
    assert model.generation_config.eos_token_id == own.eos_token_id
    assert model.config.use_cache
    before = trained(adapters)
    assert float((probabilities(model) - probabilities(before)).abs().max()) < (1e-4 if dtype == "float32" else 0.03)
    if dtype == "float32":
        assert generated(model, tokenizer) == generated(before, own)
    drift = held()["drift"]
    assert (drift["kl"]["mean"] < 1e-10) == (dtype == "float32")
    assert drift["kl"]["mean"] < 1e-3


def test_an_end_of_turn_that_generation_does_not_know_is_added(command: Export, adapters: list[str]) -> None:
    base = shutil.copytree(ASSETS, Path("base"))
    (base / "generation_config.json").write_text('{"eos_token_id": 7}', encoding="utf-8")
    replace(command, base="base", form=MergedWeights("float32"), limit=2).run()
    ends = json.loads(Path("out/generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    assert ends == [7, load_tokenizer("tiny-qwen3").eos_token_id]


def test_a_wrong_export_is_seen_and_not_kept(command: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first adapter alone, and a scaling left out: two ways to export another model."""
    limited = replace(command, max_kl=1e-6, limit=3)
    whole = TrainedModel.factors.func  # type: ignore[attr-defined]

    def lacking(keep: Any) -> Any:
        return property(lambda self: keep(whole(self)))

    for fault in (
        lambda factors: {name: Factors(one.a[:2], one.b[:, :2]) for name, one in factors.items()},
        lambda factors: {name: Factors(one.a, one.b / 1.5) for name, one in factors.items()},
    ):
        with monkeypatch.context() as patch:
            patch.setattr(TrainedModel, "factors", lacking(fault))
            with pytest.raises(RuntimeError, match=r"has drifted: KL .* over `max_kl` = 1e-06; nothing was kept"):
                limited.run()
        assert left() == []
    limited.run()
    assert left() == ["out"]


def test_the_measured_drift_is_that_of_a_naive_count(
    command: Export, adapters: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against softmax of whole logits in float64, in the trained model's answers of generate itself."""
    found: list[Agreement] = []
    compare = export_module.TrainedAnswers.compare

    def kept(self: Any, model: Any) -> Agreement:
        found.append(compare(self, model))
        return found[-1]

    monkeypatch.setattr(export_module.TrainedAnswers, "compare", kept)
    replace(command, form=MergedWeights("bfloat16")).run()
    from transformers import AutoModelForCausalLM

    # fp32 would hide the rounding of bf16, so the exported weights compute in bf16 here too, but for the logits.
    other: Any = AutoModelForCausalLM.from_pretrained("out", dtype="auto")
    before = trained(adapters)
    kl, gap, same = [], [], []
    for one in rendered():
        prompt = one["input_ids"]
        tokens = before.generate(**one, max_new_tokens=8, do_sample=False)
        if int(tokens[0, -1]) == load_tokenizer("tiny-qwen3").eos_token_id:
            tokens = tokens[:, :-1]
        with torch.no_grad():
            hidden = [model.get_decoder()(input_ids=tokens).last_hidden_state[0] for model in (before, other)]
            heads = [model.get_output_embeddings().weight for model in (before, other)]
        p, q = (
            torch.log_softmax(states[prompt.shape[1] - 1 :].double() @ head.double().T, dim=-1)
            for states, head in zip(hidden, heads, strict=True)
        )
        kl += (p.exp() * (p - q)).sum(-1).tolist()
        likeliest = p.argmax(-1, keepdim=True)
        gap += (p - q).gather(-1, likeliest).abs()[:, 0].tolist()
        same += (q.argmax(-1, keepdim=True) == likeliest)[:, 0].tolist()
    (drift,) = found
    assert drift.positions == len(kl)
    assert drift.kl.mean == pytest.approx(sum(kl) / len(kl), rel=1e-2)
    assert drift.largest_kl == pytest.approx(max(kl), rel=1e-2)
    assert drift.gap.mean == pytest.approx(sum(gap) / len(gap), rel=1e-2)
    assert drift.same_token.mean == pytest.approx(sum(same) / len(same))


def test_answers_that_are_not_the_same_are_counted(tmp_path: Path) -> None:
    strong = [save_adapter(tmp_path / "strong", 3, std=0.12)]
    model = trained_model(strong, "tiny-qwen3", FP32, None)
    tokenizer = load_tokenizer("tiny-qwen3")
    prompts = [tuple(one["input_ids"][0].tolist()) for one in rendered()]
    asked = Asked(prompts, 12, end_of_turn_ids(tokenizer), 3, torch.device("cpu"))
    base = plain_base("tiny-qwen3", FP32)
    pairs = list(zip(generated(trained(strong), tokenizer), generated(base, tokenizer), strict=True))
    same = sum(one == other for one, other in pairs) / len(pairs)
    assert same < 1
    found = trained_answers(model, asked).compare(base)
    assert found.same_answer is not None
    assert found.same_answer.mean == pytest.approx(same)
    assert found.same_token.mean < 1


def test_all_forms_of_a_4_bit_base_are_measured_and_none_is_kept(
    command: Export, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: dict[str, Agreement] = {}
    monkeypatch.setattr(export_module, "agreement_table", lambda found: rows.update(found) or "")
    replace(command, form=None, out="", weights=Weights("float32", "nf4")).run()
    noise, four_bit, half, dequantised, before = rows
    assert noise == "the trained model itself, in batches"
    assert four_bit == "one adapter on the nf4 base"
    assert half == "one adapter on the bfloat16 base"
    assert dequantised == "merged into the dequantised nf4 weights, bfloat16"
    assert before == "merged into the weights before quantisation, bfloat16"
    assert rows[half].kl.mean > 20 * rows[dequantised].kl.mean > 0
    assert rows[before].kl.mean > 20 * rows[dequantised].kl.mean
    assert rows[dequantised].kl.mean > rows[noise].kl.mean
    assert left() == []


def test_weights_merged_into_the_dequantised_base_are_the_trained_model(command: Export) -> None:
    replace(command, form=MergedDequantized("float32"), weights=Weights("float32", "nf4")).run()
    assert held()["drift"]["kl"]["high"] < 1e-9
    assert held()["trained_with"]["quantization"] == "nf4"


def test_the_precision_of_the_run_is_that_of_the_trained_model(command: Export) -> None:
    replace(command, precision="bf16-mixed").run()
    told = held()
    assert told["trained_with"]["precision"] == "bf16-mixed"
    assert 1e-9 < told["drift"]["kl"]["mean"] < 1e-2, "under autocast the run saw other numbers than fp32 gives"


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_is_there_is_never_overwritten(what: str, command: Export) -> None:
    out = Path("out")
    if what == "folder":
        out.mkdir()
    else:
        out.write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="`out` out is there; an export overwrites nothing"):
        command.run()


def test_what_a_kill_left_is_removed_and_takes_no_part(command: Export) -> None:
    Path(".out.part").mkdir()
    Path(".out.part/model-00009.safetensors").write_bytes(b"half")
    command.run()
    assert left() == ["out"]
    assert not Path("out/model-00009.safetensors").exists()


def test_a_disk_that_is_too_small_is_seen_before_anything_is_computed(
    command: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(".")._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(export_module, "trained_answers", lambda *_: pytest.fail("the model was read"))
    with pytest.raises(OSError, match=r"0\.00 GB are needed, 0\.00 GB are free: free space"):
        replace(command, form=MergedWeights("float32")).run()
    assert left() == []


@pytest.mark.parametrize("form", [OneAdapter(), MergedWeights()], ids=lambda form: type(form).__name__)
def test_a_disk_that_fills_up_leaves_nothing(
    form: ExportForm, command: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError
    from safetensors import torch as safetensors_torch
    from transformers import modeling_utils

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    def full_too(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(modeling_utils, "safe_save_file", full)
    monkeypatch.setattr(safetensors_torch, "save", full_too)
    with pytest.raises(
        OSError, match=r"No space left on device \(os error 28\)|out could not be written: the disk is full"
    ):
        replace(command, form=form, limit=2).run()
    assert left() == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapters": []}, "`adapters` must name at least one adapter"),
        ({"adapters": ""}, "`adapters` must name at least one adapter"),
        ({"adapters": ["a", ""]}, "`adapters` must name at least one adapter, none empty"),
        ({"form": None}, "`out` = out needs a `form`"),
        ({"out": ""}, "`form` needs `out`"),
        ({"form": None, "out": "", "max_kl": 0.1}, "`max_kl` decides whether the folder is kept"),
        ({"max_kl": 0.0}, "`max_kl` must be > 0 or null, got 0.0"),
        ({"limit": 0}, "`limit` must be at least 1"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be at least 1"),
        ({"device": "gpu"}, "`device` must be auto, cpu"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], said: str, command: Export) -> None:
    with pytest.raises(ValueError, match=said):
        replace(command, **changes)


def test_what_does_not_fit_is_refused_before_weights_are_read(
    command: Export, adapters: list[str], random_llama: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "trained_answers", lambda *_: pytest.fail("the model was read"))
    broken = shutil.copytree(adapters[0], Path("broken"))
    (broken / "adapter_model.safetensors").write_bytes(b"cut")
    llama = shutil.copytree(random_llama, Path("llama"))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(ASSETS / name, llama / name)
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"adapters": "nowhere"}, FileNotFoundError, r"adapter nowhere: no file adapter_"),
        ({"adapters": "last.ckpt"}, FileNotFoundError, "checkpoint last.ckpt: no folder last beside it"),
        ({"adapters": "base"}, ValueError, "`adapters` names 'base', the bare base"),
        ({"adapters": "broken"}, ValueError, "adapter broken: adapter_model.safetensors .* is cut short"),
        ({"adapters": [adapters[0], adapters[0]]}, ValueError, "names one adapter twice"),
        ({"base": "llama"}, ValueError, "does not fit this base"),
        ({"base": "nowhere/at/all"}, FileNotFoundError, "base 'nowhere/at/all'"),
        ({"base": ""}, ValueError, r"`base` must be given: adapter .*two does not lie in the folder of a run"),
        ({"weights": None}, ValueError, "`weights` must be given"),
        ({"form": MergedDequantized()}, ValueError, "MergedDequantized is for 4-bit bases"),
    ]
    for changes, kind, said in cases:
        with pytest.raises(kind, match=said):
            replace(command, **changes).run()
    assert left() == ["broken", "llama"]


def test_a_hub_that_cannot_be_reached_is_told_by_name(command: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"base 'no-one/nothing': no tokenizer could be read .*within reach"):
        replace(command, base="no-one/nothing").run()


def test_a_tokenizer_that_renders_otherwise_is_not_exported(command: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(self: object, trained: TrainedModel, folder: Path) -> Any:
        tokenizer = load_tokenizer(trained.base)
        tokenizer.chat_template = str(tokenizer.chat_template).replace("<|im_start|>", "<|im_start|> ")
        return tokenizer

    monkeypatch.setattr(MergedWeights, "tokenizer", other)
    with pytest.raises(RuntimeError, match="renders the prompts to other tokens"):
        replace(command, form=MergedWeights()).run()
    assert left() == []


def test_the_command_line_exports(adapters: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--base=tiny-qwen3", "--weights.dtype=float32", "--limit=3", "--max_new_tokens=4", "--device=cpu"]
    words += [f"--adapters+={path}" for path in adapters]
    assert main(["export", *words, "--form=MergedWeights", "--form.dtype=float32", "--out=out"]) == 0
    shown = capsys.readouterr().err
    assert "| merged into the weights, float32" in shown
    assert "Too few: fewer than 10 prompts" in shown
    assert "out: merged into the weights, float32" in shown
    assert held()["command"].startswith("lit-align export --base=tiny-qwen3")
    assert AdapterFolder(adapters[0]).digest() == held()["adapters"][0]["digest"]
    assert main(["export", *words, "--form=OneAdapter", "--out=out"]) == 1
    assert "`out` out is there" in shown_line(capsys)
    with pytest.raises(SystemExit) as leave:
        main(["export", *words, "--out=other"])
    assert leave.value.code == 2
    assert "`out` = other needs a `form`" in shown_line(capsys)
