"""A module whose run may go through stages: progressive preference training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from lit_align.losses.preference.contract import PreferenceLoss
from lit_align.models.reference import Reference
from lit_align.modules.base import AlignModule
from lit_align.modules.resume import Identity
from lit_align.modules.stages import Stages
from lit_align.stage import Stage


class StagedModule(AlignModule):
    """The seams between a run and its stages; without stages it is an :class:`AlignModule` like any.

    Attributes:
        loss: The loss of a pair, that of the current stage.
        stages: Where the run stands among its stages; None where it has none.
    """

    loss: PreferenceLoss
    stages: Stages | None = None

    def take_stages(self, stages: Sequence[Stage], windows: Mapping[str, range], seed: int) -> None:
        """Have the run go through stages; before the model is loaded.

        Args:
            stages: In their order.
            windows: Numbers of the windows of each, by name.
            seed: Of all that they draw at random.

        Raises:
            ValueError: The model is loaded already.
        """
        if "policy" in self._modules:
            raise ValueError(
                "stages begin with the model as it is loaded, and this module has been used before: make a new one, "
                "and start it from adapters by `model.reference: FrozenAdapterReference`"
            )
        self.stages = Stages(self, stages, windows, seed)

    @override
    def configure_model(self) -> None:
        """Load the base and add the adapter, once; of the first stage, where there are stages."""
        is_loaded = "policy" in self._modules
        super().configure_model()
        if self.stages is not None and not is_loaded:
            self.stages.begin(self)

    @override
    def schedule_steps(self) -> int:
        """Of the current stage, where there are stages."""
        return super().schedule_steps() if self.stages is None else len(self.stages.windows)

    @override
    def start_reference(self) -> Reference | None:
        """What the policy must equal now: at the start of each stage the end of the one before."""
        return super().start_reference() if self.stages is None else self.stages.start(self.global_step)

    @override
    def identity(self) -> Identity:
        """What a resumed run must share: of stages, those that have begun."""
        own = super().identity()
        return own if self.stages is None else {**self.stages.of_begun(own), **self.stages.identity()}

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the adapters of all stages too."""
        super().on_save_checkpoint(checkpoint)
        if self.stages is not None:
            checkpoint["lit_align"]["stages"] = self.stages.state(self)

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Rebuild the adapters first: Lightning restores the module before the callbacks, and loads into them."""
        own, path = checkpoint.get("lit_align", {}), f"checkpoint {self.trainer.ckpt_path}"
        if (self.stages is None) != ("stages" not in own):
            told = "without stages: remove" if self.stages is not None else "with stages: keep"
            raise ValueError(f"{path} is of a run {told} StageTransition in `trainer.callbacks`, or start a new run")
        if self.stages is not None:
            self.stages.restore(self, own, path)
        super().on_load_checkpoint(checkpoint)
