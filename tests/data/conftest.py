from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
