from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lit_align.data.lengths import Lengths
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.messages_file import MessagesFile
from lit_align.data.sources.preference_file import PreferenceFile

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Written for these tests in the form of Qwen3's: a think block in the last turn only, none in the history.
QWEN3_FORM = """
{%- for message in messages -%}
    {%- set content = message.content -%}
    {%- set trace = '' -%}
    {%- if message.role == 'assistant' and '</think>' in content -%}
        {%- set trace = content.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
    {%- endif -%}
    {{- '<|im_start|>' + message.role + '\\n' -}}
    {%- if message.role == 'assistant' and loop.last -%}
        {{- '<think>\\n' + trace + '\\n</think>\\n\\n' + content.lstrip('\\n') -}}
    {%- else -%}
        {{- content -}}
    {%- endif -%}
    {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
    {%- if enable_thinking is defined and enable_thinking is false -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
{%- endif -%}
"""

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_level(template: str, add_prefix_space: bool = False, pad: str = "<|endoftext|>") -> PreTrainedTokenizerBase:
    """A byte-level BPE with a few merges and Qwen3's control tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(["the answer is here \n\n user assistant system привет мир think\n\n"] * 3, trainer)
    core.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>"])
    core.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token=pad, clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="session")
def qwen3_form() -> PreTrainedTokenizerBase:
    return byte_level(QWEN3_FORM)


@pytest.fixture(scope="session")
def chatml_with_pad_as_eos() -> PreTrainedTokenizerBase:
    return byte_level(CHATML, pad="<|im_end|>")


def _write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def conversations(tmp_path: Path) -> Callable[..., SFTDataModule]:
    """Makes a data module of conversations: ``train`` and ``val`` hold turns, the user's first."""

    def make(train: list[list[str]], val: list[list[str]] | None = None, **options: Any) -> SFTDataModule:
        def source(name: str, rows: list[list[str]]) -> MessagesFile:
            roles = ("user", "assistant")
            turns = [[{"role": roles[i % 2], "content": text} for i, text in enumerate(row)] for row in rows]
            return MessagesFile(_write(tmp_path / name, [{"messages": one} for one in turns]))

        options = {"window": 4, "token_budget": 1024, "lengths": Lengths(max_length=512), **options}
        held = [source("val.jsonl", val)] if val else []
        return SFTDataModule(sources=[source("train.jsonl", train)], val_sources=held, **options)

    return make


@pytest.fixture
def pairs(tmp_path: Path) -> Callable[..., PreferenceDataModule]:
    """Makes a data module of pairs: ``rows`` hold prompt, chosen, rejected and perhaps a group."""

    def make(rows: list[tuple[str, ...]], **options: Any) -> PreferenceDataModule:
        columns = ("prompt", "chosen", "rejected", "table")
        held = [dict(zip(columns, row, strict=False)) for row in rows]
        grouped = "table" if len(rows[0]) == 4 else ""
        options = {"window": 8, "token_budget": 1024, "lengths": Lengths(max_length=512), **options}
        source = PreferenceFile(_write(tmp_path / "pairs.jsonl", held), group=grouped)
        return PreferenceDataModule(sources=[source], **options)

    return make
