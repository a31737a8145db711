"""The peer: TRL 1.16's DPOTrainer."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.contender import END, Contender, PreparedStep, filled_adapter, lora_config
from benchmarks.dpo.pairs import Pair, PairWorkload
from benchmarks.trl_trainer import begin_training, positions_with_a_label_alone, word_tokenizer
from lit_align.data.lengths import prompt_size


@dataclass(frozen=True)
class TRLTrainer(Contender[PairWorkload]):
    """``DPOTrainer.compute_loss`` and backward on batches of the trainer's own collator; no optimizer step.

    What is not named here stands at TRL's defaults. On a CPU, TRL scores every position; it is made to score those with
    a label alone, as it does on a GPU. Tokenising and collating are not part of the step.

    Attributes:
        gradient_checkpointing: TRL's default is True.
        precomputed_reference: Log-probs of the reference made before training (``precompute_ref_log_probs``), which is
            not part of the step either; TRL's default is False.
    """

    gradient_checkpointing: bool = True
    precomputed_reference: bool = False

    @property
    def name(self) -> str:
        """See :class:`~benchmarks.contender.Contender`."""
        without = "" if self.gradient_checkpointing else ", no gc"
        return f"TRL DPOTrainer{without}{', reference precomputed' if self.precomputed_reference else ''}"

    def settings(self, workload: PairWorkload) -> dict[str, Any]:
        """What is asked of ``DPOConfig``; the rest stands at its defaults."""
        return {
            "per_device_train_batch_size": workload.batch,
            "max_length": None,  # the default cuts at 1,024 tokens
            "beta": workload.beta,
            "gradient_checkpointing": self.gradient_checkpointing,
            "precompute_ref_log_probs": self.precomputed_reference,
            "bf16": workload.setting.dtype != "float32",
            "use_cpu": workload.setting.device == "cpu",
            "report_to": [],
            "disable_tqdm": True,
        }

    def prepare(self, workload: PairWorkload, base: str) -> PreparedStep:
        """See :class:`~benchmarks.contender.Contender`."""
        from datasets import Dataset

        trl: Any = import_module("trl")
        pairs = workload.rows.pairs()
        with tempfile.TemporaryDirectory() as folder, positions_with_a_label_alone():
            trainer: Any = trl.DPOTrainer(
                model=workload.setting.load(base),
                args=trl.DPOConfig(output_dir=folder, **self.settings(workload)),
                train_dataset=Dataset.from_list([_texts(pair) for pair in pairs]),
                processing_class=word_tokenizer(workload.model.vocabulary),
                peft_config=lora_config(workload.rank),
            )
            begin_training(trainer, self.gradient_checkpointing)
            adapter = filled_adapter(trainer.model)
            starts = range(0, len(pairs), workload.batch)
            rows = [trainer.train_dataset[row] for row in range(len(pairs))]
            batches = [trainer.data_collator(rows[start : start + workload.batch]) for start in starts]
        for start, batch in zip(starts, batches, strict=True):
            _require_tokens(batch, pairs[start : start + workload.batch])
        batches = [trainer._prepare_inputs(batch) for batch in batches]  # to the device

        def run() -> Tensor:
            total = torch.zeros((), dtype=torch.float64)
            for batch in batches:
                with positions_with_a_label_alone(), workload.setting.autocast():
                    loss: Tensor = trainer.compute_loss(trainer.model, dict(batch))
                loss = loss * (len(batch["input_ids"]) / 2 / len(pairs))  # the mean over all pairs
                torch.autograd.backward(loss)
                total += loss.detach().cpu()
            return total

        return PreparedStep(run, trainer.model, adapter)


def _texts(pair: Pair) -> dict[str, str]:
    """A pair in words, each of which the tokenizer turns into its token again."""

    def words(tokens: Any) -> str:
        return "".join(" <eos>" if token == END else f" w{token}" for token in tokens)

    start = prompt_size(pair[0])
    chosen, rejected = (words(path.tokens[start:]) for path in pair)
    return {"prompt": words(pair[0].tokens[:start]), "chosen": chosen, "rejected": rejected}


def _require_tokens(batch: dict[str, Tensor], pairs: list[Pair]) -> None:
    """Raise ValueError unless a batch holds exactly the tokens of the pairs, and scores exactly their answers."""
    paths = [pair[side] for side in (0, 1) for pair in pairs]
    for row, path in enumerate(paths):
        real = batch["attention_mask"][row].bool()
        tokens, scored = batch["input_ids"][row][real].numpy(), batch["completion_mask"][row][real].numpy()
        answer = np.arange(len(path.tokens)) >= prompt_size(path)
        if not (np.array_equal(tokens, path.tokens) and np.array_equal(scored, answer)):
            raise ValueError(f"{path.example}: TRL's batch holds other tokens or scores others than ours")
