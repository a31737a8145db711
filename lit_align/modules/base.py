"""The window loop that all alignment objectives share: one optimizer step over the forests of one window."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from lit_align.forest import Window, targetless_forest
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import BaseReference, Reference, refuse_trainable_base
from lit_align.models.tree_attention import AttentionPath
from lit_align.modules.nonfinite import stop_at_nonfinite
from lit_align.modules.objective import Objective, WindowData
from lit_align.modules.optimizer import OptimizerFactory, decay_groups, optimizer_identity
from lit_align.modules.resume import (
    Identity,
    over_ranks,
    refuse_differences,
    refuse_other_tensors,
    refuse_other_weights,
    restore_rng,
    rng_state,
    weights_identity,
)
from lit_align.modules.startup import check_start, peak_memory_gb, refuse_other_data, refuse_trainer_settings
from lit_align.schedule import CosineSchedule, Schedule

logger = logging.getLogger(__name__)


class AlignModule(Objective):
    """Trains a LoRA policy window by window.

    A window is the list of forests of one optimizer step, over all ranks. Sums and counts are reduced over forests and
    ranks, so that the gradient does not depend on how a window is cut.

    Args:
        base: Hub id, folder, GGUF file, ``package:NAME/FILE`` or ``tiny-qwen3`` (bundled).
        weights: Number format and quantisation of the frozen base.
        lora: The trained adapter.
        attention: ``tree_sdpa`` (everywhere), ``flex`` (CUDA) or ``padded`` (no sharing).
        reference: What the policy is compared with.
        optimizer: Made from the trainable parameters; those of fewer than two dimensions do not decay.
        schedule: Factor of its learning rate by step.
        max_grad_norm: Gradients are scaled down to this 2-norm; 0 leaves them alone. (Lightning's own
            `gradient_clip_val` does not reach a window and is refused.)
        activation_checkpointing: Each layer's activations are computed again in the backward pass instead of kept:
            the same numbers for less memory and more time.

    Raises:
        ValueError: `max_grad_norm` is negative.
    """

    def __init__(
        self,
        base: str,
        weights: Weights,
        lora: LoRA,
        attention: AttentionPath,
        reference: Reference | None,
        optimizer: OptimizerFactory,
        schedule: Schedule | None,
        max_grad_norm: float,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if not max_grad_norm >= 0:  # nan too
            raise ValueError(f"`max_grad_norm` must be >= 0, got {max_grad_norm}")
        self.automatic_optimization = False
        self.strict_loading = False  # checkpoints hold the adapter alone; its names are checked by us
        self.base, self.weights, self.lora, self.attention = base, weights, lora, attention
        self.reference: Reference = reference or BaseReference()
        self.optimizer_factory = optimizer
        self.schedule: Schedule = schedule or CosineSchedule()
        self.max_grad_norm = max_grad_norm
        self.activation_checkpointing = activation_checkpointing
        self.policy: Policy
        self._num_tokens = 0
        self._window_rng: dict[str, Any] | None = None
        self._resume_rng: Mapping[str, Any] | None = None
        self._validation_rng: Mapping[str, Any] = {}
        self._validation_sums: Tensor | None = None

    # ------------------------------------------------------------------ set-up

    def setup(self, stage: str) -> None:
        """Refuse settings of the trainer that a window cannot honour, and data of another objective."""
        del stage
        refuse_trainer_settings(self.trainer)
        refuse_other_data(self, self._data)

    def configure_model(self) -> None:
        """Load the base and add the adapter, once."""
        if "policy" not in self._modules:
            logger.info("loading %s", self.base)
            self.policy = Policy(self.base, self.weights, self.lora, self.attention, self.activation_checkpointing)
            self.reference.attach(self.policy)
            refuse_trainable_base(self.policy)

    def configure_optimizers(self) -> Any:
        """The optimizer over the adapter, and its schedule by step."""
        optimizer = self.optimizer_factory(decay_groups(self.policy.adapter_parameters()))
        total = self.schedule_steps()
        scheduler = LambdaLR(optimizer, lambda step: self.schedule.factor(step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def total_steps(self) -> int:
        """Optimizer steps of the whole run; 0 where it has no end (and the schedule needs none)."""
        # Lightning's own estimate would open the training loader before a checkpoint's position is known.
        trainer = self.trainer
        limits = [trainer.max_steps] if trainer.max_steps >= 0 else []
        if trainer.max_epochs is not None and trainer.max_epochs >= 0:
            windows = self._data.windows_per_epoch
            limit = trainer.limit_train_batches
            windows = min(windows, limit) if isinstance(limit, int) else int(windows * limit)
            limits.append(trainer.max_epochs * windows)
        if limits:
            return min(limits)
        if self.schedule.uses_total():
            raise ValueError(
                f"`schedule` {type(self.schedule).__name__} needs the length of the run: set `trainer.max_steps` or "
                "`trainer.max_epochs`, or use ConstantSchedule"
            )
        return 0

    def schedule_steps(self) -> int:
        """Optimizer steps that the schedule goes over; 0 where they have no end."""
        return self.total_steps()

    @property
    def _data(self) -> WindowData:
        data = getattr(self.trainer, "datamodule", None)
        if data is None or not hasattr(data, "source_names"):
            raise TypeError(f"fit needs a data module that yields windows, such as SFTDataModule; got {data!r}")
        return cast(WindowData, data)

    def on_train_start(self) -> None:
        """Check policy, reference and attention on real data, and try the largest forest; leaves no trace."""
        start = rng_state()
        check_start(self, self._data.probe_forest(), self._data.largest_forest(), self.start_reference())
        restore_rng(start)

    def start_reference(self) -> Reference | None:
        """What the policy must equal to the bit now; None where its adapter has been trained."""
        return self.reference if self.global_step == 0 else None

    def draw_next_window_from(self, state: Mapping[str, Any]) -> None:
        """Have the next window begin with these random numbers, whatever is drawn until then.

        Args:
            state: Of :func:`~lit_align.modules.resume.rng_state`.
        """
        self._resume_rng = state

    # ------------------------------------------------------------------ the window

    def on_train_batch_start(self, batch: Window, batch_idx: int) -> None:
        """Take up the random numbers of the checkpoint or of a stage that begins, if there was one."""
        del batch, batch_idx
        if self._resume_rng is not None:
            restore_rng(self._resume_rng)
            self._resume_rng = None
        self._window_rng = rng_state()

    def training_step(self, window: Window, batch_idx: int) -> None:
        """One optimizer step."""
        del batch_idx
        start = time.perf_counter()
        optimizer = cast(Any, self.optimizers())
        counts = self._over_ranks(self.counts(window))
        # A rank without a forest takes part in the exchange of gradients with weight 0.
        forests = window.forests or (targetless_forest(self.device),)
        shares: list[Tensor] = []
        sums, tokens = None, 0
        optimizer.zero_grad()
        losses = self.window_losses(forests, counts, self.global_step)
        for index, (forest, forest_loss) in enumerate(zip(forests, losses, strict=True)):
            with optimizer.toggle_model(sync_grad=index == len(forests) - 1):
                loss, forest_sums = forest_loss()
                # DDP averages over the ranks; the counts are already those of all ranks.
                self.manual_backward(loss * self.trainer.world_size)
            shares.append(loss.detach().double())
            sums = forest_sums if sums is None else sums + forest_sums
            tokens += len(forest)
        assert sums is not None
        totals = self._over_ranks(torch.cat([torch.stack(shares).sum()[None], sums, sums.new_tensor([tokens])]))
        adapter = self.policy.adapter_parameters().values()
        norm = torch.nn.utils.get_total_norm([p.grad for p in adapter if p.grad is not None])
        if not (bool(torch.isfinite(totals).all()) and bool(torch.isfinite(norm))):
            stop_at_nonfinite(self.trainer, window, torch.stack(shares), float(norm))
        if self.max_grad_norm:
            torch.nn.utils.clip_grads_with_norm_(adapter, self.max_grad_norm, norm)
        scheduler = cast(LambdaLR, self.lr_schedulers())
        self._num_tokens += int(totals[-1])
        metrics: dict[str, Tensor | float] = {
            "loss": totals[0],
            **self.window_metrics(totals[1:-1], counts),
            "grad_norm": norm,
            "lr": scheduler.get_last_lr()[0],
            "num_tokens": float(self._num_tokens),
            "memory_gb": peak_memory_gb(self.device),
        }
        optimizer.step()
        scheduler.step()
        moved = self.reference.after_window(self.policy, self.global_step)  # this window is counted already
        self._window_rng = None
        self._log_window({**metrics, "tokens_per_second": float(totals[-1]) / (time.perf_counter() - start)}, moved)

    def _log_window(self, metrics: dict[str, Tensor | float], moved: Mapping[str, float]) -> None:
        shown = {"loss", "kl", "tokens_per_second"}
        for key, value in metrics.items():
            self.log(f"train/{key}", torch.as_tensor(value, dtype=torch.float32), prog_bar=key in shown, batch_size=1)
        # `log` would repeat these to the end of the epoch, and leave them out where `log_every_n_steps` skips a window.
        for one in self.loggers if moved else ():
            one.log_metrics({f"train/reference/{key}": value for key, value in moved.items()}, self.global_step - 1)

    def _over_ranks(self, sums: Tensor) -> Tensor:
        return cast(Tensor, self.trainer.strategy.reduce(sums, reduce_op="sum"))

    # ------------------------------------------------------------------ validation

    def on_validation_start(self) -> None:
        """Set the random numbers aside."""
        self._validation_rng, self._validation_sums = rng_state(), None

    def validation_step(self, window: Window, batch_idx: int) -> None:
        """Add up a window of the validation set."""
        del batch_idx
        for forest in window.forests or (targetless_forest(self.device),):
            sums = self.validation_sums(forest)
            self._validation_sums = sums if self._validation_sums is None else self._validation_sums + sums

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the whole validation set, over all ranks."""
        assert self._validation_sums is not None
        for key, value in self.validation_metrics(self._over_ranks(self._validation_sums)).items():
            self.log(f"val/{key}", torch.as_tensor(value, dtype=torch.float32), rank_zero_only=False)

    def on_validation_end(self) -> None:
        """Take the random numbers up again."""
        restore_rng(self._validation_rng)
        self._validation_rng = {}

    # ------------------------------------------------------------------ checkpoints

    def identity(self) -> Identity:
        """What a resumed run must share with the run of the checkpoint, as text by key."""
        return {
            **weights_identity(self.policy),
            "weights": repr(self.weights),
            "lora": repr(self.lora),
            **optimizer_identity(self.optimizer_factory),
            "schedule": repr(self.schedule),
            "max_grad_norm": repr(self.max_grad_norm),
            "reference": self.reference.identity(),
            "attention": self.attention,
            "precision": str(self.trainer.precision),
            "world size": str(self.trainer.world_size),
            **({"total steps": str(self.schedule_steps())} if self.schedule.uses_total() else {}),
            **self.objective_identity(),
            **self._data.identity(),
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the adapter alone, and what an exact resume needs beside Lightning's own state."""
        adapter = self.policy.adapter_parameters()
        checkpoint["state_dict"] = {f"policy.{name}": parameter.detach() for name, parameter in adapter.items()}
        checkpoint["lit_align"] = {
            "identity": self.identity(),
            # Of the window that is to be run next: inside a validation, a window or a resume it was set aside.
            "rng": over_ranks(self._resume_rng or self._window_rng or self._validation_rng or rng_state()),
            "num_tokens": self._num_tokens,
            "adapter_config": self.policy.adapter_config(),
            "reference": self.reference.state(self.policy),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse what does not fit; keep the rest for the first window."""
        own, path = checkpoint.get("lit_align"), f"checkpoint {self.trainer.ckpt_path}"
        if own is None:
            raise ValueError(f"{path} was not written by lit_align; start a new run instead of resuming")
        if self.trainer.state.fn == "fit":
            refuse_differences(own["identity"], self.identity(), path)
            self.draw_next_window_from(own["rng"][self.trainer.global_rank])
        else:
            refuse_other_weights(own["identity"], weights_identity(self.policy), path)
        # After the settings: a rank that differs is said as such, not as the shapes that follow from it.
        adapter = {f"policy.{name}": parameter for name, parameter in self.policy.adapter_parameters().items()}
        refuse_other_tensors(checkpoint["state_dict"], adapter, path)
        self.reference.load_state(self.policy, own.get("reference", {}), checkpoint["global_step"], path)
        self._num_tokens = own["num_tokens"]
