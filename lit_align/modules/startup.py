"""Before the first step: does the policy start as its reference, may its tokens be shared, does a forest fit."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from lit_align.forest import TokenForest, Window
from lit_align.models.policy import check_forest_path
from lit_align.models.reference import Reference, live_dropout_off
from lit_align.modules.resume import restore_rng, rng_state

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from lit_align.modules.base import AlignModule
    from lit_align.modules.objective import WindowData

_SECONDS_BEFORE_PROGRESS = 1.5  # what is over sooner shows no bar

logger = logging.getLogger(__name__)


def refuse_precision(precision: str) -> None:
    """Refuse number formats in which an adapter would not be trained in fp32.

    Args:
        precision: As Lightning names it.

    Raises:
        ValueError: It is neither ``32-true`` nor ``bf16-mixed``.
    """
    if precision not in ("32-true", "bf16-mixed"):
        raise ValueError(
            f"`trainer.precision` = {precision} is not supported: adapters are trained in fp32 without "
            "loss scaling; use bf16-mixed or 32-true (`model.weights` sets the number format of the base)"
        )


def refuse_absent_devices(accelerator: Any, devices: Any) -> None:
    """Refuse CUDA devices that this machine does not have.

    Args:
        accelerator: As the trainer takes it; ``auto`` asks for CUDA where there is some.
        devices: As the trainer takes them: a number, indices, or ``auto``.

    Raises:
        ValueError: Names the setting, what is there, and what to do.
    """
    mps = accelerator != "cuda" and torch.backends.mps.is_available()
    if accelerator not in ("auto", "cuda", "gpu") or mps or torch.distributed.is_torchelastic_launched():
        return
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if there == 0 and accelerator != "auto":
        raise ValueError(
            f"`trainer.accelerator` = {accelerator}: {_why_no_cuda()}; without a GPU: --trainer.accelerator cpu"
        )
    absent = [index for index in _indices(devices) if index >= there]
    if there and absent:
        raise ValueError(
            f"`trainer.devices` = {devices} asks for CUDA device {', '.join(map(str, absent))}, but only "
            f"{', '.join(map(str, range(there)))} {'is' if there == 1 else 'are'} visible (CUDA_VISIBLE_DEVICES "
            f"{_visible()}): set --trainer.devices {there} or less"
        )


def _indices(devices: Any) -> list[int]:
    if isinstance(devices, str):
        parts = [part.strip() for part in devices.split(",") if part.strip()]
        if not all(part.lstrip("-").isdecimal() for part in parts):
            return []  # `auto`; anything else is for Lightning to refuse
        devices = int(parts[0]) if parts and "," not in devices else [int(part) for part in parts]
    return list(range(devices)) if isinstance(devices, int) else list(devices)


def _why_no_cuda() -> str:
    version = torch.__version__
    if torch.version.cuda is None and torch.version.hip is None:
        if sys.platform == "darwin":
            return f"torch {version} is built without CUDA, as all builds for macOS are"
        wheel = f"torch=={version.partition('+')[0]} --index-url https://download.pytorch.org/whl/cu130"
        return (
            f"torch {version} is built without CUDA; `pip install --force-reinstall {wheel}` brings a build with it "
            "(for older drivers see https://pytorch.org/get-started/locally/)"
        )
    return (
        f"torch {version} is built with CUDA but sees no device; does `nvidia-smi` show one (driver), and is it left "
        f"visible (CUDA_VISIBLE_DEVICES {_visible()})?"
    )


def _visible() -> str:
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "is not set" if value is None else f"= {value!r}"


def refuse_trainer_settings(trainer: Trainer) -> None:
    """Refuse settings of the trainer that the window loop cannot honour.

    Args:
        trainer: The trainer, before its run.

    Raises:
        ValueError: Names the setting, its value and what to set instead.
    """
    refuse_precision(trainer.precision)
    if trainer.accumulate_grad_batches != 1:
        raise ValueError(
            f"`trainer.accumulate_grad_batches` = {trainer.accumulate_grad_batches} is not supported: a window is one "
            "optimizer step; set `data.window` for its size and `data.token_budget` for its memory"
        )
    if trainer.gradient_clip_val:
        raise ValueError(
            f"`trainer.gradient_clip_val` = {trainer.gradient_clip_val} does not reach a window; set "
            "`model.max_grad_norm`"
        )
    if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
        raise ValueError(
            f"`trainer.use_distributed_sampler` = True would share the windows out among {trainer.world_size} ranks, "
            "but each rank already takes its part of every window; set it to false"
        )


def refuse_other_data(module: Any, data: Any) -> None:
    """Refuse data whose examples are not what the objective trains on, or what is replayed and its anchor apart.

    Args:
        module: The module; one that does not say what it trains on takes any examples.
        data: The data module.

    Raises:
        ValueError: Names both and what goes with what; or an anchor on replayed text without any, or replayed text
            without an anchor on it.
    """
    wanted, held = getattr(module, "trains_on", None), getattr(data, "holds", None)
    if wanted is not None and held != wanted:
        raise ValueError(
            f"`data` {type(data).__name__} holds {held or 'no windows'}, but `model` {type(module).__name__} trains on "
            f"{wanted}; SFTModule goes with SFTDataModule, DPOModule with PreferenceDataModule, KTOModule with "
            "UnpairedDataModule"
        )
    # Data whose replayed examples carry an NLL of their own say so by `anchored_share`.
    share = getattr(data, "anchored_share", getattr(data, "replay_share", 0.0))
    _refuse_idle_anchor(getattr(module, "anchor", None), share)


def _refuse_idle_anchor(anchor: Any, share: float) -> None:
    on_replayed = anchor is not None and anchor.coef > 0 and anchor.text != "trained"
    if on_replayed and not share:
        raise ValueError(
            f"`model.anchor.text` = {anchor.text}, but nothing is replayed: set `data.replay` and "
            "`data.replay_share`, or `model.anchor.text: trained`"
        )
    if share and not on_replayed:
        told = "none" if anchor is None else f"coef {anchor.coef}, text {anchor.text}"
        raise ValueError(
            f"`data.replay_share` = {share}: replayed conversations carry the anchor alone, and `model.anchor` "
            f"({told}) is not on them: set `model.anchor.coef` > 0 and `model.anchor.text` to replayed or both, or "
            "replay nothing (`data.replay: []`, `data.replay_share: 0`)"
        )


def check_start(module: AlignModule, probe: TokenForest, largest: TokenForest, start: Reference | None) -> None:
    """Hold the start of a run against what its mathematics assumes.

    Args:
        module: The module, its policy on its device.
        probe: A small forest for comparisons.
        largest: The forest that takes the most memory.
        start: What the policy equals to the bit, where its adapter has not been trained yet; None where it has.

    Raises:
        RuntimeError: The policy's hidden states are not finite, policy and reference differ at step 0, the attention
            path is wrong for this model, or the largest forest does not fit into memory (the message names the budget
            to set).
    """
    logger.info("checking the start; trying the largest forest (%d tokens)", len(largest))
    policy = module.policy
    probe, largest = probe.to(module.device), largest.to(module.device)
    with module.trainer.precision_plugin.forward_context():
        refuse_nonfinite_start(module, probe)
        if start is not None:
            refuse_other_start(module, probe, start)
        # Each module's own mode: the frozen base is in evaluation mode while its adapters train.
        modes = [(part, part.training) for part in policy.modules()]
        policy.eval()
        check_forest_path(policy, probe)
        for part, training in modes:
            part.training = training
        _try_largest(module, largest)


@torch.no_grad()
def refuse_nonfinite_start(module: AlignModule, probe: TokenForest) -> None:
    """Refuse weights with which nothing can be compared: all checks and the whole run would be nan.

    Raises:
        RuntimeError: Names the first tensor that is not finite, if it is one of the weights.
    """
    if bool(module.policy.hidden(probe).isfinite().all()):
        return
    bad = [name for name, tensor in module.policy.named_parameters() if not bool(tensor.isfinite().all())]
    cause = f"`{bad[0]}` holds nan or inf" if bad else f"its weights are finite, so {module.weights} overflows"
    raise RuntimeError(
        f"before the first step the hidden states of {module.base} are not finite: {cause}; download or convert the "
        "base again, or set `model.weights.dtype: float32`"
    )


@torch.no_grad()
def refuse_other_start(module: AlignModule, probe: TokenForest, start: Reference) -> None:
    """Refuse a policy that differs from what it starts as, in train mode.

    The live adapter's own dropout is off: one that continues an earlier adapter does not start at zero.

    Raises:
        RuntimeError: Names the largest difference of the hidden states.
    """
    policy = module.policy
    with start.active(policy):
        reference = policy.hidden(probe)
    with live_dropout_off(policy):
        difference = float((policy.hidden(probe) - reference).abs().max())
    if difference != 0:
        raise RuntimeError(
            f"at step {module.global_step} the policy differs from its reference {start} by {difference:.2e} in the "
            "hidden states, where it must be equal: the adapter does not start as that, or something else drops out"
            + ("; try `model.activation_checkpointing: false`" if module.activation_checkpointing else "")
        )


def _try_largest(module: AlignModule, forest: TokenForest) -> None:
    if module.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(module.device)
    # What is tried is not kept: the last tree is cut to size.
    kept, module.reference = module.reference, module.reference.live
    try:
        # Far into the run: an anchor that starts later needs its memory then.
        loss, _ = module.forest_loss(forest, module.counts(Window((forest,), 0, ())).clamp(min=1), step=10**9)
        loss.backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError as error:
        again = "" if module.activation_checkpointing else "`model.activation_checkpointing: true` (slower), or "
        raise RuntimeError(
            f"the largest forest of this run ({len(forest)} tokens) does not fit into the memory of {module.device}: "
            f"set `data.token_budget` below {len(forest)}, or {again}`model.weights.quantization: nf4`"
        ) from error
    finally:
        module.reference = kept
        for parameter in module.policy.parameters():
            parameter.grad = None


def prepare_reference(module: AlignModule, data: WindowData) -> None:
    """Let the reference get ready for the log-probs of a run, behind a progress bar; random numbers stay.

    All ranks wait for one another, so that each finds what the others have made.

    Args:
        module: The module, its policy on its device.
        data: Its data.
    """

    def windows() -> Iterator[Window]:  # asked for by a cache alone: a stream has none of them yet
        yield from tqdm(
            data.training_windows(),
            total=data.windows_per_epoch,
            desc="reference log-probs",
            unit="window",
            delay=_SECONDS_BEFORE_PROGRESS,
            leave=False,
            disable=module.trainer.progress_bar_callback is None,
        )

    start = rng_state()
    with module.trainer.precision_plugin.forward_context():
        module.reference.prepare(module.policy, data.probe_forest(), windows())
    restore_rng(start)
    module.trainer.strategy.barrier("reference")


def peak_memory_gb(device: torch.device) -> float:
    """Peak memory of the process so far, GiB: the device's own on CUDA, the resident set elsewhere (nan on Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "win32":
        return float("nan")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
