"""A reward model on disk: what it must have, its fingerprint, how it renders a conversation, its weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lit_align.evals.judge.contract import Judged
from lit_align.tokenizer import AnswerFrame, answer_frame, end_of_turn_ids, load_tokenizer, resolve_base

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHUNK = 1 << 22  # bytes
_FILES = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.txt", "*.model")


@dataclass(frozen=True)
class Rendered:
    """A conversation as the reward model reads it.

    Attributes:
        tokens: Token ids, the end of the last turn included.
        cut: Whether the end of the answer is left out.
    """

    tokens: tuple[int, ...]
    cut: bool


@dataclass(frozen=True)
class RewardFolder:
    """A reward model by where it lies; nothing is read before it is asked for.

    Args:
        path: A folder, or a hub id.
    """

    path: str

    def check(self) -> None:
        """Refuse what is no reward model, or what would score wrongly.

        Raises:
            FileNotFoundError: It is not there, or has no weights.
            ValueError: Several labels, no pad token or one that ends a turn, or no chat template.
        """
        labels = self._config.num_labels
        if labels != 1:
            raise ValueError(
                f"reward model {self.path}: has {labels} labels; a reward is one number: name a "
                "sequence-classification model with one label"
            )
        if self._text_config.pad_token_id is None:
            raise ValueError(
                f"reward model {self.path}: config.json has no pad_token_id, without which conversations cannot be "
                "scored together: set it to a token that ends no turn"
            )
        if self.pad_id in end_of_turn_ids(self.tokenizer):
            raise ValueError(
                f"reward model {self.path}: its pad token {self.tokenizer.convert_ids_to_tokens(self.pad_id)!r} also "
                "ends a turn, so the end of each answer would pass for padding and the reward would be read before it: "
                "set pad_token_id in config.json to another token"
            )
        if not self._weight_files:
            raise FileNotFoundError(f"reward model {self.path}: {self._folder} holds no weights (*.safetensors, *.bin)")

    def fingerprint(self) -> str:
        """A short hash of weights and chat template, the same wherever the files lie; cached for the process."""
        return _digest(self._weight_files, json.dumps(self.tokenizer.chat_template))

    @property
    def positions(self) -> int:
        """Tokens that a conversation may have; 0 where the model sets no limit."""
        return int(getattr(self._text_config, "max_position_embeddings", 0) or 0)

    @property
    def pad_id(self) -> int:
        """Id of the token that fills a batch."""
        return int(self._text_config.pad_token_id)

    def render(self, judged: Judged, limit: int, *, cut: bool) -> Rendered:
        """Token ids of prompt and answer in the model's own chat template.

        Args:
            judged: Prompt and answer.
            limit: Tokens at most; 0 for any number.
            cut: Whether the end of an answer that does not fit is left out; the turn is closed all the same, since the
                reward is read there.

        Raises:
            ValueError: The template refuses the turns, or they are too long; the message names the answer.
        """
        prompt = [{"role": one.role, "content": one.content} for one in judged.prompt]
        text = self._apply(judged, [*prompt, {"role": "assistant", "content": judged.answer}], False)
        tokens = self._ids(text)
        if not limit or len(tokens) <= limit:
            return Rendered(tokens, False)
        closing = self._frame.gap + self._frame.end + self._frame.after
        end = self._ids(closing)
        n_prompt = len(self._ids(self._apply(judged, prompt, True)))
        if n_prompt + len(end) >= limit:
            raise ValueError(
                f"{judged.id}: its prompt has {n_prompt} tokens, over the limit of the reward model {self.path} "
                f"({limit}): leave it out, or raise `max_length` where the model has more positions"
            )
        if not cut:
            raise ValueError(
                f"{judged.id}: prompt and answer have {len(tokens)} tokens, over the limit of the reward model "
                f"{self.path} ({limit}): set `overlong: cut` to score the beginning and count it, or raise `max_length`"
            )
        if not text.endswith(closing):
            raise ValueError(f"{judged.id}: the chat template of {self.path} closes this turn otherwise: cannot be cut")
        return Rendered((*self._ids(text.removesuffix(closing))[: limit - len(end)], *end), True)

    def model(self, dtype: str) -> Any:
        """The model on the CPU, read once a process.

        Raises:
            FileNotFoundError: There are no weights that transformers can read.
            ValueError: It has no trained reward head.
        """
        return _load(self.path, self._folder, dtype)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer, which has a chat template."""
        try:
            return load_tokenizer(self._folder)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"reward model {self.path}: {error}") from error

    def _apply(self, judged: Judged, turns: list[dict[str, str]], begin_answer: bool) -> str:
        from jinja2 import TemplateError

        try:
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=begin_answer))
        except TemplateError as error:
            raise ValueError(
                f"{judged.id}: the chat template of the reward model {self.path} refuses its turns "
                f"({', '.join(one['role'] for one in turns)}): {error}"
            ) from error

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def _frame(self) -> AnswerFrame:
        return answer_frame(self.tokenizer)

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        folder = self._folder
        try:
            return AutoConfig.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise FileNotFoundError(f"reward model {self.path}: no config.json that can be read ({error})") from error

    @property
    def _text_config(self) -> Any:
        return self._config.get_text_config()

    @cached_property
    def _folder(self) -> str:
        try:
            location = resolve_base(self.path)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"reward model: {error}") from error
        if location.gguf_file is not None:
            raise ValueError(f"reward model {self.path}: a GGUF file has no reward head; name a folder or hub id")
        if Path(location.path).is_dir():
            return location.path
        from huggingface_hub import snapshot_download

        try:
            return snapshot_download(location.path, allow_patterns=list(_FILES))
        except OSError as error:  # the hub's own errors are OSErrors too
            raise FileNotFoundError(
                f"reward model {self.path}: cannot be read from the Hugging Face hub ({error}); without the hub, "
                f"download it elsewhere (`hf download {self.path} --local-dir FOLDER`) and give the folder"
            ) from error

    @property
    def _weight_files(self) -> tuple[str, ...]:
        folder = Path(self._folder)
        files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
        return tuple(map(str, files))


@lru_cache(maxsize=8)
def reward_folder(path: str) -> RewardFolder:
    """The reward model at a path; the same object again, so that its files are read once a process."""
    return RewardFolder(path)


@lru_cache(maxsize=8)
def _digest(files: tuple[str, ...], template: str) -> str:
    digest = hashlib.sha256(template.encode())
    for name in files:
        with Path(name).open("rb") as file:
            while part := file.read(_CHUNK):
                digest.update(part)
    return digest.hexdigest()[:16]


@lru_cache(maxsize=2)  # memory: a judge, and one more where a run compares two
def _load(path: str, folder: str, dtype: str) -> Any:
    from transformers import AutoModelForSequenceClassification

    try:
        # What is drawn for a head that is missing must not move the run's random numbers.
        with torch.random.fork_rng(devices=[]):
            model, told = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=getattr(torch, dtype), output_loading_info=True
            )
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"reward model {path}: its weights cannot be read ({error})") from error
    if missing := sorted(told["missing_keys"]):
        raise ValueError(
            f"reward model {path}: has no weights for {', '.join(missing[:3])}, which would be random: it is no "
            "trained reward model"
        )
    return model.eval().requires_grad_(False)
