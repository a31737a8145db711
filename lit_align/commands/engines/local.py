"""Answers from a model in this process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Generator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from tqdm import tqdm

from lit_align.commands.device import device_of, refuse_absent_device, refuse_no_device
from lit_align.commands.engines.contract import Answer, Decoding, Engine, Request
from lit_align.data.chat import ChatFormat
from lit_align.evals.generate import SECONDS_BEFORE_PROGRESS, generate_batches
from lit_align.evals.prompt_cache import families
from lit_align.evals.sampling import Draw
from lit_align.models.adapter_folder import AdapterFolder
from lit_align.models.loading import Weights, load_base, weights_fingerprint
from lit_align.tokenizer import end_of_turn_ids, load_tokenizer
from lit_align.types import SamplePrompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class LocalEngine(Engine):
    """A base, with or without adapters, on this machine.

    The same completion comes out whatever batch it is computed in, except where two tokens tie to rounding; in reduced
    precision such ties are common.

    Args:
        base: See :func:`lit_align.tokenizer.resolve_base`.
        adapter: Folder of a LoRA adapter in PEFT's format, such as ``adapter/`` of a run; several are active together,
            such as that of a stage and the one on top of it; empty for the bare base.
        weights: Number format and quantisation of the base.
        batch_size: Completions that are generated at once, at least 1.
        device: ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` is CUDA where there is some.
        cpu_threads: Threads of one CPU operation; 0 leaves it to torch. For tiny models 1 is fastest.

    Raises:
        ValueError: ``batch_size`` or ``cpu_threads`` is out of its range, or ``device`` is no device.

    Example:
        >>> engine = LocalEngine("tiny-qwen3", weights=Weights(dtype="float32"))
        >>> len(engine.load())
        16
    """

    renders: ClassVar[bool] = True

    base: str
    adapter: str | list[str] = ""
    weights: Weights = Weights()
    batch_size: int = 16
    device: str = "auto"
    cpu_threads: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"`engine.batch_size` must be at least 1, got {self.batch_size}")
        if self.cpu_threads < 0:
            raise ValueError(f"`engine.cpu_threads` must be >= 0, got {self.cpu_threads}")
        refuse_no_device(self.device, "engine.device")

    def check(self) -> None:
        """Refuse an absent device, and adapters that are broken or do not fit the base."""
        refuse_absent_device(self.device, "engine.device")
        folders = self._folders
        for folder in folders:
            folder.check(self.base)
        if len({folder.digest() for folder in folders}) < len(folders):
            raise ValueError(f"`engine.adapter` names one adapter twice ({self.adapter}): it would count double")

    def render(self, prompts: Sequence[SamplePrompt], thinking: bool) -> list[tuple[int, ...]]:
        """See :meth:`Engine.render`."""
        chat = ChatFormat(self._tokenizer, thinking)
        bar = tqdm(prompts, "rendering prompts", delay=SECONDS_BEFORE_PROGRESS, leave=False, unit="prompt")
        return [tuple(chat.prompt_ids(one.messages, one.id)) for one in bar]

    def identity(self) -> dict[str, Any]:
        """Base, adapters by the digest of their weights, and chat template."""
        template = json.dumps(self._tokenizer.chat_template).encode()
        return {
            "engine": type(self).__name__,
            "base": {"name": self.base, **asdict(self.weights)},
            "adapters": [{"path": folder.path, "digest": folder.digest()} for folder in self._folders],
            "chat_template": hashlib.sha256(template).hexdigest()[:16],
        }

    def load(self) -> str:
        """See :meth:`Engine.load`."""
        return self._loaded[1]

    def answers(
        self, requests: Sequence[Request], done: Collection[int], decoding: Decoding
    ) -> Generator[list[tuple[int, Answer]]]:
        """See :meth:`Engine.answers`; the completions of prompts that share their beginning come together."""
        order = [place for family in families([one.tokens for one in requests]) for place in family]
        for start in range(0, len(order), self.batch_size):
            batch = [place for place in order[start : start + self.batch_size] if place not in done]
            if batch:
                yield list(zip(batch, self._batch([requests[place] for place in batch], decoding), strict=True))

    def _batch(self, requests: Sequence[Request], decoding: Decoding) -> list[Answer]:
        draws = None
        if not decoding.sampling.is_greedy:
            draws = [Draw(decoding.seed, one.prompt.id, one.number) for one in requests]
        try:
            [(places, completions)] = generate_batches(
                self._loaded[0],
                [one.tokens for one in requests],
                max_new_tokens=decoding.max_new_tokens,
                stop_ids=end_of_turn_ids(self._tokenizer),
                batch_size=len(requests),
                sampling=decoding.sampling,
                draws=draws,
            )
        except torch.OutOfMemoryError as error:
            raise RuntimeError(
                f"{len(requests)} completions of up to {max(len(one.tokens) for one in requests)} tokens plus "
                f"{decoding.max_new_tokens} new ones do not fit into the memory of {self._device}: lower "
                f"`engine.batch_size` (now {self.batch_size}) or `max_prompt_length`"
            ) from error
        answers = {
            place: Answer(
                str(self._tokenizer.decode(list(one.tokens), skip_special_tokens=False)),
                not one.hit_cap,
                len(one.tokens),
            )
            for place, one in zip(places, completions, strict=True)
        }
        return [answers[place] for place in range(len(requests))]

    @property
    def _folders(self) -> list[AdapterFolder]:
        paths = [self.adapter] if isinstance(self.adapter, str) else self.adapter
        return [AdapterFolder(path) for path in paths if path]

    @property
    def _device(self) -> torch.device:
        return device_of(self.device)

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.base)

    @cached_property
    def _loaded(self) -> tuple[Any, str]:
        """The model with its adapters active, and the fingerprint of the base's weights."""
        if self.cpu_threads:
            torch.set_num_threads(self.cpu_threads)
        base: Any = load_base(self.base, self.weights)
        fingerprint = weights_fingerprint(base)
        folders = {f"adapter{number}": folder for number, folder in enumerate(self._folders)}
        if not folders:
            return base.to(self._device), fingerprint
        (first, folder), *others = folders.items()
        model: Any = folder.open_on(base, first)
        for name, folder in others:
            folder.add_to(model, name)
        model.base_model.set_adapter(list(folders))
        return model.get_base_model().eval().to(self._device), fingerprint
