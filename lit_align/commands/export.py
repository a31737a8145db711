"""``lit-align export``: adapters that lie on one another as one adapter or as weights, with the measured drift."""

from __future__ import annotations

import errno
import gc
import hashlib
import json
import logging
import math
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_align.commands.device import device_of, refuse_absent_device, refuse_no_device
from lit_align.commands.export_drift import Asked, TrainedAnswers, trained_answers
from lit_align.commands.export_forms import ExportForm, all_forms
from lit_align.commands.sample_prompts import read_prompts
from lit_align.commands.sole_writer import sole_writer
from lit_align.commands.trained_model import Precision, TrainedModel, trained_model
from lit_align.data.chat import ChatFormat
from lit_align.environment import environment
from lit_align.evals.agreement import Agreement, agreement_table
from lit_align.evals.instructions.prompt_source import InstructionPrompts
from lit_align.models.loading import Weights
from lit_align.tokenizer import end_of_turn_ids, load_tokenizer
from lit_align.types import PromptSource, SamplePrompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

MANIFEST = "lit_align_export.json"
_OWN_PROMPTS = InstructionPrompts(every=4)
_NOISE = "the trained model itself, in batches"


@dataclass(frozen=True)
class Export:
    """Export a trained model so that plain transformers and PEFT open it, and measure how far it still is that model.

    The trained model, as its run saw it, answers some prompts greedily. The exported one is opened from its files by
    transformers and PEFT alone and given the same answers, token by token: KL over the whole vocabulary, differences of
    log-probs, the share of tokens and of whole answers that are the same. What the trained model itself changes by when
    its answers are computed in batches stands above it in the table: as much as that is rounding.

    Without a form all forms are measured, and none is kept; with one, it alone. The folder comes into being whole or
    not at all; one that is there is never overwritten. ``lit_align_export.json`` in it says what it was made of and
    what was measured.

    Args:
        adapters: Folder of the adapter in PEFT's format, such as ``adapter/`` of a run, or a checkpoint of ours
            (``NAME.ckpt``); a list where each was trained on top of those before it, the lowest first.
        out: The folder to be written; given exactly where ``form`` is.
        form: ``OneAdapter``, ``MergedWeights`` or ``MergedDequantized``; null measures all that fit the base.
        base: See :func:`lit_align.tokenizer.resolve_base`; empty for that of the run in which the last adapter lies.
        weights: Number format and quantisation of the base under which the adapters were trained; null for those of
            the run.
        precision: ``trainer.precision``; null for that of the run.
        prompts: What is answered for the measurement, by default 23 of our own in English and Russian; texts like
            those that the model is for say more. Any source of prompts.
        limit: The first so many prompts only, at least 1; null takes all.
        max_new_tokens: Cap on the length of an answer in tokens, at least 1.
        batch_size: Prompts that are answered at once, at least 1.
        thinking: The chat template's ``enable_thinking`` switch.
        max_kl: Keep the folder only where the upper end of the KL's 95 % interval is at most this, nats a token, > 0;
            else nothing stays and the command fails. Null keeps it whatever was measured.
        device: ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` is CUDA where there is some.

    Raises:
        ValueError: A value is out of its range, or ``form`` and ``out`` do not go together.
    """

    adapters: str | list[str]
    out: str = ""
    form: ExportForm | None = None
    base: str = ""
    weights: Weights | None = None
    precision: Precision | None = None
    prompts: PromptSource = _OWN_PROMPTS
    limit: int | None = None
    max_new_tokens: int = 64
    batch_size: int = 8
    thinking: bool = False
    max_kl: float | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        for option, holds, rule in (
            ("adapters", bool(self._paths) and all(self._paths), "name at least one adapter, none empty"),
            ("limit", self.limit is None or self.limit >= 1, "be at least 1 or null"),
            ("max_new_tokens", self.max_new_tokens >= 1, "be at least 1"),
            ("batch_size", self.batch_size >= 1, "be at least 1"),
            ("max_kl", self.max_kl is None or 0 < self.max_kl < math.inf, "be > 0 or null"),
        ):
            if not holds:
                raise ValueError(f"`{option}` must {rule}, got {getattr(self, option)!r}")
        refuse_no_device(self.device, "device")
        if self.out and self.form is None:
            raise ValueError(f"`out` = {self.out} needs a `form`; without one all are measured and none is kept")
        if self.form is not None and not self.out:
            raise ValueError("`form` needs `out`, the folder to be written")
        if self.max_kl is not None and self.form is None:
            raise ValueError("`max_kl` decides whether the folder is kept, and without a `form` none is written")

    def run(self) -> None:
        """Measure, and write the folder.

        Raises:
            FileNotFoundError: An adapter or the base is not there.
            FileExistsError: ``out`` is there.
            ValueError: An adapter is none, does not fit, or lies on one that is not named; or the prompts break a rule.
            OSError: The folder cannot be written, or another process writes it.
            RuntimeError: The drift is over ``max_kl``, or the exported tokenizer renders other tokens; nothing stays.
        """
        refuse_absent_device(self.device, "device")
        out = Path(self.out)
        if self.out and out.exists():
            raise FileExistsError(f"`out` {out} is there; an export overwrites nothing: name another folder")
        trained = trained_model(self._paths, self.base, self.weights, self.precision)
        forms = all_forms(trained) if self.form is None else [self.form]
        for form in forms:
            form.check(trained)
        tokenizer = load_tokenizer(trained.base)
        trained.refuse_misfit()
        prompts = read_prompts(self.prompts, self.limit, "stop")
        asked = Asked(
            _rendered(tokenizer, prompts, self.thinking),
            self.max_new_tokens,
            end_of_turn_ids(tokenizer),
            self.batch_size,
            device_of(self.device),
        )
        if self.form is None:
            with tempfile.TemporaryDirectory() as folder:
                self._compare(forms, trained, prompts, asked, Path(folder))
        else:
            with sole_writer(out), _whole(out) as part:
                _refuse_full_disk(self.form.size(trained), part)
                self._keep(self.form, trained, prompts, asked, part)
            logger.info(f"{out}: {self.form.name(trained)}")

    @property
    def _paths(self) -> list[str]:
        return [self.adapters] if isinstance(self.adapters, str) else self.adapters

    def _compare(
        self, forms: list[ExportForm], trained: TrainedModel, prompts: list[SamplePrompt], asked: Asked, folder: Path
    ) -> None:
        _refuse_full_disk(max(form.size(trained) for form in forms), folder)
        answers = trained_answers(trained, asked)
        rows = {_NOISE: answers.noise}
        for form in forms:
            place = folder / "export"
            place.mkdir()
            rows[form.name(trained)] = self._measured(form, trained, prompts, answers, place)
            shutil.rmtree(place)
        logger.info(f"\n{agreement_table(rows)}\n")
        names = ", ".join(dict.fromkeys(type(form).__name__ for form in forms))
        logger.info(f"nothing was kept; to keep one add --form and --out (forms: {names})")

    def _keep(
        self, form: ExportForm, trained: TrainedModel, prompts: list[SamplePrompt], asked: Asked, folder: Path
    ) -> None:
        answers = trained_answers(trained, asked)
        drift = self._measured(form, trained, prompts, answers, folder)
        logger.info(f"\n{agreement_table({_NOISE: answers.noise, form.name(trained): drift})}\n")
        if self.max_kl is not None and drift.kl_at_most > self.max_kl:
            raise RuntimeError(
                f"the exported model has drifted: KL {drift.kl.mean:.2e} [{drift.kl.low:.2e}, {drift.kl.high:.2e}] "
                f"nats a token, over `max_kl` = {self.max_kl}; nothing was kept: without `form` and `out` the command "
                "measures all forms; or raise `max_kl`"
            )
        held = self._manifest(form, trained, prompts, answers, drift)
        (folder / MANIFEST).write_text(json.dumps(held, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def _measured(
        self,
        form: ExportForm,
        trained: TrainedModel,
        prompts: list[SamplePrompt],
        answers: TrainedAnswers,
        folder: Path,
    ) -> Agreement:
        gc.collect()  # models lie in circles of references; the one before goes before the next one comes
        form.write(trained, folder)
        gc.collect()
        tokenizer = form.tokenizer(trained, folder)
        if _rendered(tokenizer, prompts, self.thinking) != answers.asked.prompts:
            raise RuntimeError(
                f"the tokenizer, as transformers opens it from {folder}, renders the prompts to other tokens than that "
                f"of {trained.base}: use `form` OneAdapter, with the base's own tokenizer"
            )
        drift = answers.compare(form.open(trained, folder))
        gc.collect()  # Windows neither renames nor removes files that a model still maps
        return drift

    def _manifest(
        self,
        form: ExportForm,
        trained: TrainedModel,
        prompts: list[SamplePrompt],
        answers: TrainedAnswers,
        drift: Agreement,
    ) -> dict[str, Any]:
        text = json.dumps([[one.id, one.messages] for one in prompts], default=asdict)
        ranks = [one.a.shape[0] for one in trained.factors.values()]
        return {
            "format": 1,
            "form": repr(form),
            "measured_as": form.name(trained),
            "base": {"name": trained.base, "fingerprint": answers.fingerprint},
            "trained_with": {**asdict(trained.weights), "precision": trained.precision},
            "adapters": [{"path": one.path, "digest": one.digest()} for one in trained.folders],
            "layers": len(ranks),
            "rank": max(ranks),
            "prompts": {
                "source": repr(self.prompts),
                "n": len(prompts),
                "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16],
                "max_new_tokens": self.max_new_tokens,
                "thinking": self.thinking,
            },
            "drift": _plain(asdict(drift)),
            "noise": _plain(asdict(answers.noise)),
            "max_kl": self.max_kl,
            "command": f"lit-align {shlex.join(sys.argv[1:])}",
            **environment(),
        }


def _rendered(tokenizer: PreTrainedTokenizerBase, prompts: list[SamplePrompt], thinking: bool) -> list[tuple[int, ...]]:
    chat = ChatFormat(tokenizer, thinking)
    return [tuple(chat.prompt_ids(one.messages, one.id)) for one in prompts]


def _refuse_full_disk(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder.parent}: {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free: free space or name a "
            "folder on another disk"
        )


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder beside the final one, which gets its name when all went well and else is removed."""
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # what a kill has left
    try:
        part.mkdir()
        yield part
        part.replace(out)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(
            error.errno,
            f"{out} could not be written: the disk is full; nothing of it is left: free space and try again",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _plain(held: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no infinity: an end of an interval that bounds nothing is null."""
    return {
        key: _plain(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for key, value in held.items()
    }
