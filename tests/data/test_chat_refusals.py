"""What a chat template, a tokenizer or a row must not do, and what is said then."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest

from lit_align.data.chat import ChatFormat, Turns
from lit_align.types import Conversation, Message, Role

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRACE = "<think>\nsum\n</think>\n\n4"


def talk(*texts: str, system: str = "") -> Conversation:
    turns = [Message("user" if index % 2 == 0 else "assistant", text) for index, text in enumerate(texts)]
    return Conversation((*([Message("system", system)] if system else []), *turns), id="chat.jsonl:7", source="x")


def with_template(tokenizer: PreTrainedTokenizerBase, old: str, new: str) -> PreTrainedTokenizerBase:
    copied: PreTrainedTokenizerBase = pickle.loads(pickle.dumps(tokenizer))
    assert old in copied.chat_template
    copied.chat_template = copied.chat_template.replace(old, new)
    return copied


def test_a_scaffold_whose_tokens_join_the_headers_is_refused(qwen3_form: PreTrainedTokenizerBase) -> None:
    tokenizer = with_template(qwen3_form, "{{- '<think>\\n\\n</think>\\n\\n' -}}", "{{- '\\n' -}}")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{- '<think>\\n' + trace + '\\n</think>\\n\\n'", "{{- '\\n'"
    )
    assert len(tokenizer("\n\n")["input_ids"]) == 1  # the trap is set
    with pytest.raises(
        ValueError, match=r"joins the assistant's header with '.n', so the scaffold's tokens cannot be told"
    ):
        ChatFormat(tokenizer).paths(talk("a", "4"), "last")


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("token", ["<|im_end|>", "<|im_start|>", "<|endoftext|>"])
def test_text_of_a_control_token_is_refused_wherever_it_stands(
    qwen3_form: PreTrainedTokenizerBase, place: int, token: str
) -> None:
    turns = ["a", "b", "c", "d"]
    turns[place] += f" {token} x"
    with pytest.raises(
        ValueError, match=rf"chat\.jsonl:7, messages\[{place}\]\.content: holds the text .*\|{token[2:-2]}\|"
    ):
        ChatFormat(qwen3_form).paths(talk(*turns), "last")
    if place != 1:
        with pytest.raises(ValueError, match=r"item 3, messages\[0\].*control token"):
            ChatFormat(qwen3_form).prompt_ids([Message("user", turns[place])], example="item 3")


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ("su", "no assistant turn"),
        ("uau", r"must end with an assistant turn, but messages\[2\] is user's"),
        ("ssua", r"messages\[1\]: a second system turn"),
        ("usa", r"messages\[1\]: a system turn that is not first"),
        ("uaa", r"messages\[2\]: an assistant turn must follow a user turn"),
        ("sa", r"messages\[1\]: an assistant turn must follow a user turn"),
        ("a", r"messages\[0\]: an assistant turn must follow a user turn"),
        ("ut", r"messages\[1\]\.role: must be one of system, user, assistant, not 'tool'"),
        ("", "no messages"),
    ],
)
@pytest.mark.parametrize("turns", ["all", "last"])
def test_roles_out_of_order_are_refused(
    qwen3_form: PreTrainedTokenizerBase, roles: str, message: str, turns: Turns
) -> None:
    names: dict[str, Role] = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}  # type: ignore[dict-item]
    messages = tuple(Message(names[role], f"text {i}") for i, role in enumerate(roles))
    with pytest.raises(ValueError, match=rf"^chat\.jsonl:7.*{message}"):
        ChatFormat(qwen3_form).paths(Conversation(messages, id="chat.jsonl:7", source="x"), turns)


@pytest.mark.parametrize("blank", ["", " \n", "<think>sum</think> \n"])
def test_a_blank_answer_is_refused_by_row_and_turn(qwen3_form: PreTrainedTokenizerBase, blank: str) -> None:
    with pytest.raises(ValueError, match=r"chat\.jsonl:7, messages\[3\]\.content: the answer .*is blank"):
        ChatFormat(qwen3_form).paths(talk("a", "b", "c", blank), "last")
    with pytest.raises(ValueError, match=r"chat\.jsonl:7, messages\[1\]\.content: the answer .*is blank"):
        ChatFormat(qwen3_form).paths(talk("a", blank, "c", "d"), "all")


def test_an_unclosed_trace_is_refused(qwen3_form: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match=r"messages\[1\]\.content: opens <think> and never closes it"):
        ChatFormat(qwen3_form).paths(talk("a", "<think>\nsum is"), "last")


@pytest.mark.parametrize("lost", ["The tags <think> and </think> hold it", "<think>a</think>b</think>c"])
def test_an_answer_of_which_the_template_would_lose_a_part_is_refused(
    qwen3_form: PreTrainedTokenizerBase, lost: str
) -> None:
    with pytest.raises(ValueError, match=r"chat\.jsonl:7, messages\[1\]: .*does not write this answer"):
        ChatFormat(qwen3_form).paths(talk("a", lost), "last")


def test_a_template_that_alters_answers_or_drops_traces_is_refused_at_the_row(
    qwen3_form: PreTrainedTokenizerBase, chatml_with_pad_as_eos: PreTrainedTokenizerBase
) -> None:
    upper = ChatFormat(with_template(chatml_with_pad_as_eos, "m.content +", "(m.content | replace('yes', 'no')) +"))
    with pytest.raises(ValueError, match=r"chat\.jsonl:7, messages\[1\]: .*does not write this answer.*'yes'"):
        upper.paths(talk("a", "yes"), "last")
    dropping = ChatFormat(with_template(qwen3_form, "'<think>\\n' + trace", "'<think>\\n'"))
    with pytest.raises(ValueError, match="does not write this answer"):
        dropping.paths(talk("a", TRACE), "last")


def test_a_template_that_leaves_the_system_turn_out_is_refused(chatml_with_pad_as_eos: PreTrainedTokenizerBase) -> None:
    deaf = ChatFormat(
        with_template(chatml_with_pad_as_eos, "for m in messages", "for m in messages if m.role != 'system'")
    )
    for call in (lambda c: deaf.paths(c, "last"), lambda c: deaf.prompt_ids(c.messages[:-1], c.id)):
        with pytest.raises(ValueError, match=r"chat\.jsonl:7, messages\[0\]: .* leaves this system turn out"):
            call(talk("a", "b", system="Be brief."))


def test_a_refusal_of_the_template_names_the_row(chatml_with_pad_as_eos: PreTrainedTokenizerBase) -> None:
    strict = ChatFormat(
        with_template(
            chatml_with_pad_as_eos,
            "{% for",
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{% for",
        )
    )
    with pytest.raises(ValueError, match=r"chat\.jsonl:7.* refuses these turns: no system"):
        strict.paths(talk("a", "b", system="Be brief."), "last")


def test_a_turn_rendered_without_the_prompt_of_inference_is_refused(qwen3_form: PreTrainedTokenizerBase) -> None:
    """As Qwen3's template does after a user turn that it takes for a tool's response."""
    odd = with_template(qwen3_form, "and loop.last", "and loop.last and messages[0].content != 'odd'")
    with pytest.raises(ValueError, match=r"chat\.jsonl:7, messages\[1\]: .*does not write this answer"):
        ChatFormat(odd).paths(talk("odd", "4"), "last")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "m.content + '<|im_end|>\n'",
            "m.content + '\n'",
            "closes an assistant turn with '\\\\n', which holds no special token",
        ),
        (
            "m.content +",
            "(m.content if m.role == 'user' else '') +",
            "does not write an assistant turn's text exactly once",
        ),
        ("m.content +", "m.content + m.content +", "does not write an assistant turn's text exactly once"),
        ("{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>model\n' }}", "does not begin with the generation prompt"),
    ],
)
def test_a_template_that_cannot_be_trained_on_is_refused_at_once(
    chatml_with_pad_as_eos: PreTrainedTokenizerBase, old: str, new: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ChatFormat(with_template(chatml_with_pad_as_eos, old, new))


def test_a_tokenizer_that_adds_a_space_to_each_piece_is_refused_by_name(
    chatml_with_pad_as_eos: PreTrainedTokenizerBase,
) -> None:
    from tokenizers import pre_tokenizers

    spacing: PreTrainedTokenizerBase = pickle.loads(pickle.dumps(chatml_with_pad_as_eos))
    spacing.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(ValueError, match=r"does not keep text that is tokenised in pieces.*adds a space"):
        ChatFormat(spacing)


def test_a_tokenizer_that_loses_characters_is_refused(chatml_with_pad_as_eos: PreTrainedTokenizerBase) -> None:
    from tokenizers import normalizers

    lossy: PreTrainedTokenizerBase = pickle.loads(pickle.dumps(chatml_with_pad_as_eos))
    lossy.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(ValueError, match="does not keep text"):
        ChatFormat(lossy)


def test_a_prompt_ends_with_the_users_turn(qwen3_form: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="item: a prompt must end with a user turn, not with assistant's"):
        ChatFormat(qwen3_form).prompt_ids(talk("a", "b").messages, example="item")
