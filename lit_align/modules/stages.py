"""The stages of a run: which adapters, loss, rate and reference a module has in each, and how it gets there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.strategies import DDPStrategy

from lit_align.models.adapter_stack import continue_live, freeze_live, restore_stack, stack_live, stack_state
from lit_align.models.loading import LoRA
from lit_align.models.reference import (
    BaseReference,
    FrozenAdapterReference,
    Reference,
    StackedReference,
    below_live,
)
from lit_align.modules.optimizer import at_rate
from lit_align.modules.resume import Identity, refuse_differences, restore_rng, rng_state
from lit_align.seeds import seed_of
from lit_align.stage import Earlier, Stage

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from lit_align.modules.staged import StagedModule

Adapters = tuple[str, ...]


class Stages:
    """Where a run stands among its stages, and what its module is in each.

    The policy at the end of a stage is the sum of some adapters, which stay in the policy, frozen. The next stage
    trains a new one on top of all of them, or a copy of the uppermost in its place. Each stage draws its adapter and
    its dropout from (seed, name) alone, so that it is the same whether it is run after others or from their folders.

    Args:
        module: The module, before its model is loaded.
        stages: In their order.
        windows: Numbers of the windows of each, by name.
        seed: Of everything that is drawn at random.

    Attributes:
        number: Of the stage that the run is in, from 0.
        ends: Names of the adapters that make up the policy with which the fit began, and that at the end of each stage.
    """

    def __init__(self, module: StagedModule, stages: Sequence[Stage], windows: Mapping[str, range], seed: int) -> None:
        self.number = 0
        self.ends: list[Adapters] = []
        self._stages, self._windows, self._seed = tuple(stages), dict(windows), seed
        self._loss, self._optimizer, self._schedule = module.loss, module.optimizer_factory, module.schedule
        self._lora, self._start = module.lora, module.reference

    @property
    def current(self) -> Stage:
        """The stage that the run is in."""
        return self._stages[self.number]

    @property
    def windows(self) -> range:
        """Numbers of the windows of the current stage."""
        return self._windows[self.current.name]

    @property
    def is_over(self) -> bool:
        """Whether the current stage has ended and no other begun: it is the last one, or the run is to stop."""
        return len(self.ends) == self.number + 2

    def begin(self, module: StagedModule) -> None:
        """Put the live adapter, and all that the stage sets, in place; the policy computes as at the last end."""
        start = self._start
        if not self.ends:
            self.ends = [start.adapters if isinstance(start, FrozenAdapterReference) else ()]
        below = self.ends[self.number]
        continues = bool(below) and self.current.lora is None
        if self.number == 0 and isinstance(start, FrozenAdapterReference):
            continues &= start.init == "continue"
        lora = self._lora_of(self.number)
        kept = rng_state()
        torch.manual_seed(seed_of(self._seed, self.current.name))
        if continues:
            continue_live(module.policy, below, lora.dropout)
        else:
            stack_live(module.policy, below, lora)
        torch.manual_seed(seed_of(self._seed, self.current.name, module.global_rank))
        module.draw_next_window_from(rng_state())
        restore_rng(kept)
        self._set(module)

    def keep(self, module: StagedModule) -> None:
        """Keep the adapter as it is at the end of the current stage, frozen, as ``Stage.adapter``."""
        freeze_live(module.policy, self.current.adapter)

    def end(self, module: StagedModule, back: bool) -> None:
        """End the current stage, whose adapter is kept.

        Args:
            module: The module.
            back: Whether the policy goes back to the start of the stage.
        """
        if back:
            self.begin(module)
            self.ends.append(self.ends[self.number])
        else:
            self.ends.append((*below_live(module.policy), self.current.adapter))

    def go_on(self, module: StagedModule) -> bool:
        """Begin the next stage, with a new optimizer and schedule; return False where there is none."""
        if self.number + 1 == len(self._stages):
            return False
        self.number += 1
        self.begin(module)
        _wrap_again(module.trainer)
        module.on_train_start()
        return True

    def start(self, window: int) -> Reference | None:
        """What the policy equals before this window; None within a stage, and after the last one."""
        at_start = window == self.windows.start and not self.is_over
        return reference_of(self.ends[self.number]) if at_start else None

    def adapters_of(self, earlier: Earlier) -> Adapters:
        """The adapters that make up an earlier policy, the lowest first."""
        return {"base": (), "start": self.ends[0], "previous": self.ends[self.number]}[earlier]

    def identity(self) -> Identity:
        """Names and settings of the stages that have begun; the others may still change."""
        begun = self._stages[: self.number + 1]
        settings = [item for stage in begun for item in stage.identity().items()]
        return {"stages": ", ".join(stage.name for stage in begun), **dict(settings)}

    def of_begun(self, identity: Mapping[str, str]) -> Identity:
        """An identity without what the data say of stages that have not begun."""
        later = {f"data.stages.{stage.name}" for stage in self._stages[self.number + 1 :]}
        return {key: value for key, value in identity.items() if key not in later}

    def state(self, module: StagedModule) -> dict[str, Any]:
        """What a checkpoint must hold, in tensors and plain types."""
        ended = self._stages[: self.number + self.is_over]
        return {
            "names": [stage.name for stage in self._stages[: self.number + 1]],
            "ends": [list(end) for end in self.ends],
            "last": self.number + 1 == len(self._stages),
            "seed": self._seed,
            "stack": stack_state(module.policy, [stage.adapter for stage in ended]),
        }

    def restore(self, module: StagedModule, own: Mapping[str, Any], path: str) -> None:
        """Take up the state of a checkpoint: the adapters, which all else is loaded into.

        Args:
            module: The module, its model as the run began.
            own: What the checkpoint holds of ours.
            path: What to call it in a message.

        Raises:
            ValueError: Its stages are not those of this run, or its adapters do not fit the base.
        """
        saved, names = own["stages"], [stage.name for stage in self._stages]
        begun = saved["names"]
        if names[: len(begun)] != begun:
            raise ValueError(
                f"{path} has begun the stages {', '.join(begun)}, and `stages` are now {', '.join(names)}: those that "
                "have begun stay as they are and in their order; only later ones may be changed, added or left out"
            )
        # A base of another shape would be told by a tensor's.
        refuse_differences(
            {"base weights": own["identity"]["base weights"]}, {"base weights": module.policy.base_fingerprint}, path
        )
        self.ends = [tuple(end) for end in saved["ends"]]
        self.number, self._seed = len(begun) - 1, saved["seed"]
        if self.is_over and saved["last"] and len(names) > len(begun) and module.trainer.state.fn == "fit":
            raise ValueError(
                f"{path} is of a run that has ended with its stage {begun[-1]!r}, and `stages` go on with "
                f"{names[len(begun)]!r}: start a new run from the adapters that stages.json names"
            )
        restore_stack(module.policy, saved["stack"], own["adapter_config"], path)
        self._set(module)

    def _set(self, module: StagedModule) -> None:
        """Loss, optimizer, schedule, shape and reference of the current stage."""
        stage = self.current
        module.loss = stage.loss or self._loss
        module.optimizer_factory = self._optimizer if stage.lr is None else at_rate(self._optimizer, stage.lr)
        module.schedule = stage.schedule or self._schedule
        module.lora = self._lora_of(self.number)
        module.reference = reference_of(self.adapters_of(stage.reference))

    def _lora_of(self, number: int) -> LoRA:
        """Shape and dropout of the adapter that a stage trains."""
        stage, start = self._stages[number], self.ends[number]
        if stage.lora is not None:
            return stage.lora
        if not start and number:  # all before went back to the base: a new adapter of the last one's shape
            return self._lora_of(number - 1)
        made_by = [n for n, earlier in enumerate(self._stages[:number]) if earlier.adapter in start[-1:]]
        return self._lora_of(made_by[0]) if made_by else self._lora


def reference_of(adapters: Adapters) -> Reference:
    """The policy that some of the frozen adapters make up, as a reference."""
    return StackedReference(adapters) if adapters else BaseReference()


def _wrap_again(trainer: Trainer) -> None:
    """A new optimizer and schedule; and gradients of parameters that DDP has not seen are exchanged from now on."""
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy):
        strategy.model = trainer.lightning_module
        strategy.configure_ddp()
    strategy.setup_optimizers(trainer)
