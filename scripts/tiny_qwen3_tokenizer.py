"""The tokenizer of the tiny model: byte-level BPE in Qwen3's form, with Qwen3's chat format."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import TokenizersBackend

PAD, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (PAD, TURN_START, TURN_END)
THINK_TOKENS = ("<think>", "</think>")  # as in Qwen3: single tokens that decoding keeps

# Qwen3's pattern with two changes that make short prompts: a year stays whole, and a digit takes the space before it.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|(?<![0-9]) ?20[0-9]{2}(?![0-9])| ?\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = r"""
{#- The form of Qwen3: an assistant's turn after the last question has a think block, earlier ones have none. -#}
{%- set turns = namespace(last_question=messages|length - 1, found=false) -%}
{%- for message in messages|reverse -%}
  {%- if message.role == 'user' and not turns.found -%}
    {%- set turns.last_question = messages|length - loop.index -%}
    {%- set turns.found = true -%}
  {%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
  {%- set answer = message.content -%}
  {%- set thought = '' -%}
  {%- if message.role == 'assistant' -%}
    {%- if message.reasoning_content is defined and message.reasoning_content is not none -%}
      {%- set thought = message.reasoning_content -%}
    {%- elif '</think>' in answer -%}
      {%- set parts = answer.split('</think>') -%}
      {%- set thought = parts[0].rstrip('\n').split('<think>')[-1].lstrip('\n') -%}
      {%- set answer = parts[-1].lstrip('\n') -%}
    {%- endif -%}
    {%- if loop.index0 > turns.last_question and (loop.last or thought) -%}
      {%- set answer = '<think>\n' ~ thought.strip('\n') ~ '\n</think>\n\n' ~ answer.lstrip('\n') -%}
    {%- endif -%}
  {%- endif -%}
  {{- '<|im_start|>' ~ message.role ~ '\n' ~ answer ~ '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\n' -}}
  {%- if enable_thinking is defined and enable_thinking is false -%}
    {{- '<think>\n\n</think>\n\n' -}}
  {%- endif -%}
{%- endif -%}
""".strip()


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> TokenizersBackend:
    """Learn the merges from texts.

    All 256 bytes are tokens and nothing is normalised, so that any text comes back from its ids unchanged.

    Args:
        texts: Plain text, without special tokens.
        vocabulary: Largest number of tokens; fewer when every word of the texts is one token before.

    Returns:
        The tokenizer, with the chat template.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(token, normalized=False) for token in (*SPECIAL_TOKENS, *THINK_TOKENS)],
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    # The trainer makes every token that it is given a special one; adding it again takes the mark as it stands.
    bpe.add_tokens([AddedToken(token, special=False, normalized=False) for token in THINK_TOKENS])
    return TokenizersBackend(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=TURN_END,
        additional_special_tokens=[TURN_START],
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        chat_template=CHAT_TEMPLATE,
    )
