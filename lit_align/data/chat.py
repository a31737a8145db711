"""Messages to tokens by the model's own chat template, each token labelled prompt, answer or scaffold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from lit_align.forest import TokenClass, TokenPath
from lit_align.tokenizer import AnswerFrame, answer_frame
from lit_align.types import ROLES, Conversation, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turns = Literal["all", "last"]

_PROBE_PROMPT = (Message("user", "Hi"),)
# What answers begin with, where a tokenizer may lose or add something: a letter, a space, a line break, other scripts.
_PROBES = ("Hi", " Hi", "\n\nHi", "Привет", "中", "1 + 1", "- a\n", "«")
_OPEN, _CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class ChatFormat:
    """The chat template of a base, as training, validation and benchmarks use it.

    A trained turn is rendered as the last turn of its conversation and tokenised in pieces: the generation prompt, just
    as at inference, then what the template writes before the answer, then the answer and its end-of-turn token. So the
    prompt's token ids in training are those of inference, whatever the answer begins with. Labels come from the
    pieces; token ids are never compared with pad or eos.

    A row whose answer holds a real ``<think>`` trace is rendered with the prompt of the thinking mode, whatever
    ``thinking`` says: the trace is what the model is to write after it.

    Args:
        tokenizer: A tokenizer with chat template, from ``lit_align.tokenizer.load_tokenizer``.
        thinking: The template's ``enable_thinking`` switch. With False, Qwen3's generation prompt ends in an empty
            think block. Templates without the switch render the same either way.

    Raises:
        ValueError: The template drops or alters answers, closes them without a special token, or writes another prompt
            in training than at inference; or the tokenizer does not keep text that is tokenised in pieces (it adds a
            space or a bos token to each piece, or loses characters).

    Example:
        >>> chat = ChatFormat(tokenizer)  # doctest: +SKIP
        >>> chat.prompt_ids([Message("user", "2 + 2?")])  # doctest: +SKIP
    """

    tokenizer: PreTrainedTokenizerBase
    thinking: bool = False
    _opening: str = field(init=False, repr=False)
    _frame: AnswerFrame = field(init=False, repr=False)
    _control_tokens: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        frame = answer_frame(self.tokenizer, thinking=self.thinking)
        given = self._prompt_text(_PROBE_PROMPT, self.thinking, "a probe")
        if not frame.before.startswith(given):
            raise ValueError(
                f"{self._template}: the rendering of an answered conversation does not begin with the generation "
                f"prompt (thinking={self.thinking}): {frame.before!r} against {given!r}; what would be trained is not "
                "what is asked at inference; try the other thinking mode or another template"
            )
        object.__setattr__(self, "_frame", frame)
        object.__setattr__(self, "_opening", frame.before[len(given) :])
        specials = {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        rendered = frame.before + frame.end + frame.after
        control = {token for token in specials if token and token in rendered}
        named = (self.tokenizer.bos_token, self.tokenizer.eos_token, self.tokenizer.pad_token)
        control.update(str(token) for token in named if token)
        object.__setattr__(self, "_control_tokens", tuple(sorted(control)))
        self._check_pieces()

    def prompt_ids(self, messages: Sequence[Message], example: str = "prompt") -> list[int]:
        """Token ids of the generation prompt: what the model is given at inference.

        Args:
            messages: An optional system turn, then user and assistant turns; the last one is the user's.
            example: The id of the example, for messages.

        Raises:
            ValueError: The order of roles is wrong, a text holds a control token, or the template refuses the turns.
        """
        self._check_messages(messages, example)
        if messages[-1].role != "user":
            raise ValueError(f"{example}: a prompt must end with a user turn, not with {messages[-1].role}'s")
        given = self._prompt_text(messages, self.thinking, example)
        self._check_history(messages, given, example)
        return self._encode(given)

    def without_control_tokens(self, text: str) -> str:
        """What a model wrote, less the control tokens in it: as it can stand in an earlier turn of a prompt."""
        while any(token in text for token in self._control_tokens):  # what is left may join to another one
            for token in self._control_tokens:
                text = text.replace(token, "")
        return text

    def paths(self, conversation: Conversation, turns: Turns) -> list[TokenPath]:
        """Render the trained turns of a conversation, each as the last turn of its own path.

        Each path holds the history up to its turn and ends with the end-of-turn token: what a template writes after it
        (ChatML's line break) is left out, for nothing is predicted from it. The paths of one conversation begin with
        the same tokens as far as the template allows; Qwen3's leaves think blocks out of the history, as it does at
        inference, so a history's answer and the trained answer part where the think block stands.

        Classes: ``PROMPT`` up to and including the assistant's header; ``SCAFFOLD`` what the template itself writes
        into the turn (Qwen3's empty think block); ``ANSWER`` the text, a real ``<think>`` trace with its tags, and the
        end-of-turn token.

        Args:
            conversation: Ends with an assistant turn.
            turns: ``all`` trains each assistant turn, ``last`` the last one only.

        Returns:
            One path per trained turn, in order. ``example`` is the conversation's id, for ``all`` followed by ``#``
            and the index of the turn's message.

        Raises:
            ValueError: The conversation does not end with an assistant turn, its roles are out of order, an answer is
                blank, a text holds a control token of the template, or the template alters the answer or the prompt.
        """
        messages, name = conversation.messages, conversation.id
        self._check_messages(messages, name)
        answered = [index for index, message in enumerate(messages) if message.role == "assistant"]
        if not answered:
            raise ValueError(f"{name}: no assistant turn, so there is nothing to train; drop the row")
        if answered[-1] != len(messages) - 1:
            raise ValueError(
                f"{name}: must end with an assistant turn, but messages[{len(messages) - 1}] is "
                f"{messages[-1].role}'s; drop that turn or the row"
            )
        if turns == "last":
            return [self._path(messages, name, name)]
        return [self._path(messages[: index + 1], name, f"{name}#{index}") for index in answered]

    def _path(self, messages: tuple[Message, ...], name: str, example: str) -> TokenPath:
        """The path of the last turn of ``messages``."""
        where = f"{name}, messages[{len(messages) - 1}]"
        prompt, answer = messages[:-1], messages[-1].content
        header = self._prompt_text(prompt, True, where)
        given = self._prompt_text(prompt, self.thinking, where)
        self._check_history(prompt, given, name)
        full = self._render(messages, False, self.thinking, where)
        trace, text = _split_trace(answer, where)
        frame = self._frame
        body = self._between(full, given + self._opening, frame.gap + frame.end + frame.after)
        if body is not None and body.strip() in {answer.strip(), text.strip()} and not trace:
            scaffold = given.removeprefix(header) if given.startswith(header) else ""
            pieces = [*self._prompt_pieces(given, scaffold, where), (self._encode(self._opening), TokenClass.SCAFFOLD)]
        else:
            # The trace stands in place of the empty think block, right after the header.
            body = self._between(full, header, frame.gap + frame.end + frame.after)
            if not trace or body is None or not _same_words(body, answer, trace, text):
                raise ValueError(
                    f"{where}: {self._template} does not write this answer between the generation prompt and "
                    f"{frame.end!r} as it stands; it writes {_ending_of(full)!r} for {_ending_of(answer)!r}; "
                    "look for think tags or tool tags in the text, or use another template"
                )
            pieces = [(self._encode(header), TokenClass.PROMPT)]
        pieces += [
            (self._encode(body), TokenClass.ANSWER),
            (self._encode(frame.gap), TokenClass.SCAFFOLD),
            ([frame.end_id], TokenClass.ANSWER),
        ]
        tokens = np.array([token for ids, _ in pieces for token in ids], dtype=np.int32)
        classes = np.repeat([kind for _, kind in pieces], [len(ids) for ids, _ in pieces]).astype(np.uint8)
        return TokenPath(tokens, classes, example)

    def _prompt_pieces(self, given: str, scaffold: str, where: str) -> list[tuple[list[int], TokenClass]]:
        """The generation prompt, tokenised as one text, parted into header and scaffold."""
        ids, tail = self._encode(given), self._encode(scaffold)
        start = len(ids) - len(tail)
        if ids[start:] != tail:
            raise ValueError(
                f"{where}: this tokenizer joins the assistant's header with {scaffold!r}, so the scaffold's tokens "
                f"cannot be told apart in {self._template}; use another template"
            )
        return [(ids[:start], TokenClass.PROMPT), (tail, TokenClass.SCAFFOLD)]

    @staticmethod
    def _between(full: str, before: str, after: str) -> str | None:
        """What stands between a beginning and an ending, or None where the text has them not."""
        if not (full.startswith(before) and full.endswith(after) and len(full) >= len(before) + len(after)):
            return None
        return full[len(before) : len(full) - len(after)]

    def _check_messages(self, messages: Sequence[Message], example: str) -> None:
        """Refuse orders of roles and texts that would train something else than they say."""
        if not messages:
            raise ValueError(f"{example}: no messages")
        for index, message in enumerate(messages):
            where = f"{example}, messages[{index}]"
            if message.role not in ROLES:
                raise ValueError(f"{where}.role: must be one of {', '.join(ROLES)}, not {message.role!r}")
            if message.role == "system" and index > 0:
                earlier = "a second system turn" if messages[0].role == "system" else "a system turn that is not first"
                raise ValueError(f"{where}: {earlier}; merge it into one system turn at the start")
            if message.role == "assistant":
                if index == 0 or messages[index - 1].role != "user":
                    raise ValueError(f"{where}: an assistant turn must follow a user turn")
                if not message.content.strip():
                    raise ValueError(f"{where}.content: the answer is blank ({message.content!r}); drop the row")
            for token in self._control_tokens:
                if token in message.content:
                    raise ValueError(
                        f"{where}.content: holds the text of the control token {token}, which the tokenizer would take "
                        "for the token itself, ending or opening a turn; rewrite the text or drop the row"
                    )

    def _check_history(self, prompt: Sequence[Message], given: str, name: str) -> None:
        """Refuse a template that leaves a given text out, as some do with system turns."""
        for index, message in enumerate(prompt):
            if message.role != "assistant" and message.content.strip() not in given:
                raise ValueError(
                    f"{name}, messages[{index}]: {self._template} leaves this {message.role} turn out or alters it; "
                    "use another template or drop the turn"
                )

    def _check_pieces(self) -> None:
        """Check once that texts joined by their tokens are the texts."""
        frame = self._frame
        given = self._prompt_text(_PROBE_PROMPT, self.thinking, "a probe")
        for probe in _PROBES:
            texts = (given, self._opening, probe, frame.gap, frame.end)
            ids = [token for text in texts for token in self._encode(text)]
            decoded = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            if decoded != "".join(texts):
                raise ValueError(
                    f"the tokenizer of {self.tokenizer.name_or_path!r} ({type(self.tokenizer).__name__}) does not keep "
                    f"text that is tokenised in pieces: {''.join(texts)!r} came back as {decoded!r}; it adds a space "
                    "or a bos token to each piece or loses characters; byte-level BPE tokenizers such as Qwen3's keep "
                    "text as it is"
                )

    def _prompt_text(self, messages: Sequence[Message], thinking: bool, where: str) -> str:
        return self._render(messages, True, thinking, where)

    def _render(self, messages: Sequence[Message], generation: bool, thinking: bool, where: str) -> str:
        from jinja2 import TemplateError

        turns = [_as_dict(message) for message in messages]
        try:
            rendered = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=generation, enable_thinking=thinking
            )
        except TemplateError as error:  # such as a template without system turns
            raise ValueError(f"{where}: {self._template} refuses these turns: {error}") from error
        return str(rendered)

    def _encode(self, text: str) -> list[int]:
        if not text:
            return []
        # The rendered text holds its special tokens already, bos among them; verbose=False: length is judged elsewhere.
        ids = self.tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        return list(ids)

    @property
    def _template(self) -> str:
        return f"the chat template of {self.tokenizer.name_or_path!r}"


def _as_dict(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _split_trace(answer: str, where: str) -> tuple[str, str]:
    """A leading think trace without its tags, and the text after it.

    Data sets also write traces without the opening tag, which reasoning models are given in the prompt.
    """
    stripped = answer.lstrip()
    if stripped.startswith(_OPEN) and _CLOSE not in stripped:
        raise ValueError(f"{where}.content: opens {_OPEN} and never closes it; drop the row (a trace that was cut?)")
    head, close, text = answer.partition(_CLOSE)
    if not close:
        return "", answer
    trace = head.lstrip().removeprefix(_OPEN).strip()
    if not text.strip():
        raise ValueError(f"{where}.content: the answer after {_CLOSE} is blank; drop the row")
    return trace, text


def _same_words(body: str, answer: str, trace: str, text: str) -> bool:
    """Whether a rendered answer is the row's, up to the white space around its trace and its text."""
    if body.strip() == answer.strip():
        return True
    head, _, rest = body.partition(_CLOSE)
    return (head.lstrip().removeprefix(_OPEN).strip(), rest.strip()) == (trace, text.strip())


def _ending_of(text: str) -> str:
    return text if len(text) <= 160 else "…" + text[-160:]
