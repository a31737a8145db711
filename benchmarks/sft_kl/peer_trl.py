"""The peer, TRL 1.16: SFT+KL from its own chunked kernels, and its SFTTrainer."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import Contender, PreparedStep, filled_adapter, lora_config
from benchmarks.sft_kl.contenders import Workload, anchored_positions, peft_model
from benchmarks.trl_trainer import begin_training, positions_with_a_label_alone, word_tokenizer

VOCABULARY_CHUNK = 32_768
"""Columns of a tile of the kernel, as TRL calls it (``trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE``)."""

OUTPUTS = ("log_probs", "entropy", "is_top1")
"""What SFTTrainer asks of the kernel; lit_align computes the same for its log."""


@dataclass(frozen=True)
class TRLKernels(Contender[Workload]):
    """The strongest SFT+KL that TRL's kernels make; TRL itself has no KL in its SFTTrainer.

    ``ChunkedLogProbFunction`` at the positions with a label, ``ChunkedDivergenceFunction`` with ``beta=1`` (reverse
    KL) at the anchored ones, hidden states of padded rows, the reference with adapters off and without checkpointing.

    Attributes:
        gradient_checkpointing: As transformers switches it on (``use_reentrant=False``); TRL's default.
    """

    gradient_checkpointing: bool

    @property
    def name(self) -> str:
        """See :class:`Contender`."""
        return "TRL kernels + gc" if self.gradient_checkpointing else "TRL kernels"

    def prepare(self, workload: Workload, base: str) -> PreparedStep:
        """See :class:`Contender`."""
        logprob: Any = import_module("trl.kernels.chunked_logprob").ChunkedLogProbFunction
        reverse_kl: Any = import_module("trl.kernels.chunked_divergence").ChunkedDivergenceFunction
        model, adapter = peft_model(base, workload.rank, workload.setting)
        causal_lm = model.get_base_model()
        if self.gradient_checkpointing:
            causal_lm.activation_checkpointing_enable({"use_reentrant": False})
        head = causal_lm.lm_head.weight
        padded = workload.rows.padded(workload.model.vocabulary)
        ids, mask, labels = (tensor.to(workload.setting.device) for tensor in padded)
        trained, anchored = labels[:, 1:] != -100, anchored_positions(workload, labels)
        targets, coefficient = labels[:, 1:][trained], workload.anchor.weight(0)

        def hidden() -> Tensor:
            with workload.setting.autocast():
                states: Tensor = causal_lm.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            return states[:, :-1]

        def run() -> Tensor:
            model.eval()  # transformers checkpoints in training mode alone; the reference needs none
            with torch.no_grad(), model.disable_adapter():
                reference = hidden()[anchored]
            model.train()
            states = hidden()
            logps = logprob.apply(states[trained], head, None, targets, 1.0, VOCABULARY_CHUNK, None, 1.0, OUTPUTS)[0]
            divergence = reverse_kl.apply(states[anchored], head, None, reference, head, None, 1.0, 1.0)[0]
            loss: Tensor = coefficient * divergence.mean() - logps.mean()
            torch.autograd.backward(loss)
            return loss.detach()

        return PreparedStep(run, model, adapter)


@dataclass(frozen=True)
class TRLTrainer(Contender[Workload]):
    """``SFTTrainer.compute_loss`` and backward on a batch of the trainer's own collator; no KL, no optimizer step.

    Everything else stands at TRL's defaults. On a CPU, TRL scores every position; it is made to score those with a
    label alone, as it does on a GPU. Collating is not part of the step.

    Attributes:
        gradient_checkpointing: TRL's default is True.
    """

    gradient_checkpointing: bool = True

    @property
    def name(self) -> str:
        """See :class:`Contender`."""
        return "TRL SFTTrainer" if self.gradient_checkpointing else "TRL SFTTrainer, no gc"

    def prepare(self, workload: Workload, base: str) -> PreparedStep:
        """See :class:`Contender`.

        Raises:
            ValueError: The workload has a KL term, which SFTTrainer cannot compute.
        """
        if workload.anchor.coef:
            raise ValueError(f"SFTTrainer has no KL term, the workload has coefficient {workload.anchor.coef}; use 0")
        from datasets import Dataset

        trl = import_module("trl")
        ids, mask, labels = workload.rows.padded(workload.model.vocabulary)
        rows = [
            {"input_ids": ids[row][real].tolist(), "labels": labels[row][real].tolist()}
            for row, real in enumerate(mask.bool())
        ]
        with tempfile.TemporaryDirectory() as folder:
            trainer: Any = trl.SFTTrainer(
                model=workload.setting.load(base),
                args=trl.SFTConfig(
                    output_dir=folder,
                    per_device_train_batch_size=len(rows),
                    gradient_checkpointing=self.gradient_checkpointing,
                    bf16=workload.setting.dtype != "float32",
                    use_cpu=workload.setting.device == "cpu",
                    report_to=[],
                    disable_tqdm=True,
                ),
                train_dataset=Dataset.from_list(rows),
                processing_class=word_tokenizer(workload.model.vocabulary),
                peft_config=lora_config(workload.rank),
            )
        begin_training(trainer, self.gradient_checkpointing)
        adapter = filled_adapter(trainer.model)
        batch = trainer.data_collator([trainer.train_dataset[row] for row in range(len(rows))])
        if not torch.equal(batch["labels"], labels):
            raise ValueError("TRL's collator gives other labels than the workload: the two would not train on one text")

        def run() -> Tensor:
            with positions_with_a_label_alone(), workload.setting.autocast():
                loss: Tensor = trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch))
            torch.autograd.backward(loss)
            return loss.detach()

        return PreparedStep(run, trainer.model, adapter)
