"""The policy: a frozen base with LoRA adapters, computing hidden states of token forests."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lit_align.forest import TokenForest
from lit_align.models.loading import LoRA, Weights, add_lora, load_base, weights_fingerprint
from lit_align.models.needed_rows import slice_last_layer
from lit_align.models.tree_attention import AttentionPath, block_mask, plan_attention, refuse_unshareable
from lit_align.ops.frozen_head import FrozenHead

if TYPE_CHECKING:
    from peft import PeftModel


class Policy(nn.Module):
    """A causal language model under its active adapters.

    Args:
        base: See :func:`lit_align.tokenizer.resolve_base`.
        weights: Number format and quantisation of the frozen base.
        lora: The trained adapter.
        attention: ``tree_sdpa`` (everywhere), ``flex`` (CUDA) or ``padded`` (each example a row of its own: the
            reference implementation, and the one path for models whose layers forbid sharing).
        activation_checkpointing: See :func:`checkpoint_activations`.

    Attributes:
        base: As given.
        weights: As given.
        peft: The PEFT model, for adapters and export.
        base_fingerprint: Hash of the base's weights before any adapter, see
            :func:`~lit_align.models.loading.weights_fingerprint`.
        frozen_adapter: Where the adapter came from that a reference has put under or beside the live one; empty for
            none.
        average: Which reference averages the live adapter into another one, as text; empty for none.
        average_updates: How often it has done so.

    Raises:
        ValueError: The model's layers forbid sharing and ``attention`` is not ``padded``; or its output head is
            adapted, or scales or caps its logits; or activations are to be checkpointed and no layer can.
    """

    def __init__(
        self,
        base: str,
        weights: Weights,
        lora: LoRA,
        attention: AttentionPath,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        model = load_base(base, weights)
        if attention != "padded":
            refuse_unshareable(model.config.get_text_config())
        _refuse_unknown_head(model)
        self.base, self.weights = base, weights
        self.attention: AttentionPath = attention
        self.base_fingerprint = weights_fingerprint(model)
        self.peft: PeftModel = add_lora(model, lora)
        self.frozen_adapter = ""
        self.average = ""
        self.average_updates = 0
        self._slices = attention != "padded" and slice_last_layer(self.causal_lm.get_decoder())
        _refuse_adapted_head(self.causal_lm)
        if activation_checkpointing:
            checkpoint_activations(self.causal_lm)

    @property
    def causal_lm(self) -> Any:
        """The transformers model, its layers adapted; its ``generate`` answers as the policy."""
        return self.peft.get_base_model()

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        device: torch.device = self.causal_lm.get_input_embeddings().weight.device
        return device

    @property
    def head(self) -> FrozenHead:
        """The frozen output head.

        Raises:
            ValueError: It is trainable.
        """
        linear = self.causal_lm.get_output_embeddings()
        return FrozenHead(linear.weight, getattr(linear, "bias", None))

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def adapter_config(self, adapter: str = "default") -> dict[str, Any]:
        """What PEFT needs beside the weights to open an adapter, the live one by default, in plain types."""
        config = self.peft.peft_config[adapter].to_dict()
        plain: dict[str, Any] = json.loads(json.dumps(config, default=sorted))  # sets to lists, enums to their text
        return plain

    def hidden(self, forest: TokenForest, rows: Tensor | None = None) -> Tensor:
        """Last hidden states, after the final norm.

        Args:
            forest: On the policy's device.
            rows: Rows that are wanted, shape ``(N,)``; in the last layer they alone are computed, where its layout is
                known. None is all rows.

        Returns:
            Shape ``(N, hidden)``, or ``(T, hidden)`` for all rows, in the model's number format.
        """
        if rows is None or not self._slices:
            hidden = self._padded_hidden(forest) if self.attention == "padded" else self._forest_hidden(forest, None)
            return hidden if rows is None else hidden.index_select(0, rows)
        # One row may predict several tokens.
        distinct, place = rows.unique_consecutive(return_inverse=True)  # type: ignore[no-untyped-call]
        return self._forest_hidden(forest, distinct).index_select(0, place)

    def _forest_hidden(self, forest: TokenForest, needed_rows: Tensor | None) -> Tensor:
        plan = block_mask(forest) if self.attention == "flex" else plan_attention(forest)
        # A mask of four dimensions is handed through as it is. Without one, transformers would take positions that
        # jump back for packed sequences and cut the row there.
        unused_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=forest.tokens.device)
        return self._decode(
            input_ids=forest.tokens[None],
            position_ids=forest.positions[None],
            attention_mask=unused_mask,
            forest_plan=plan,
            needed_rows=needed_rows,
        )[0]

    def _padded_hidden(self, forest: TokenForest) -> Tensor:
        paths = [[row for part in forest.path_rows(last) for row in part] for last in sorted(set(forest.last_rows))]
        longest = max(map(len, paths))
        device = forest.tokens.device
        rows = torch.tensor([path + [0] * (longest - len(path)) for path in paths], device=device)
        lengths = torch.tensor([len(path) for path in paths], device=device)
        columns = torch.arange(longest, device=device).expand_as(rows)
        real = columns < lengths[:, None]
        hidden = self._decode(input_ids=forest.tokens[rows], position_ids=columns, attention_mask=real.long())
        # Rows that several paths share have equal hidden states; any copy stands for all.
        place = torch.empty(len(forest), dtype=torch.long, device=device)
        place[rows[real]] = torch.arange(rows.numel(), device=device).reshape(rows.shape)[real]
        return hidden.flatten(0, 1)[place]

    def _decode(self, **inputs: Any) -> Tensor:
        hidden: Tensor = self.causal_lm.get_decoder()(use_cache=False, **inputs).last_hidden_state
        return hidden


def _refuse_unknown_head(model: Any) -> None:
    config = model.config.get_text_config()
    for name, neutral in (("final_logit_softcapping", None), ("logit_scale", 1.0), ("logits_scaling", 1.0)):
        value = getattr(config, name, neutral)
        if value is not None and value != neutral:
            raise ValueError(
                f"{config.model_type}: `{name}` = {value} changes the logits in a way that is not supported"
            )
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or type(head).__module__.startswith("bitsandbytes"):
        raise ValueError(
            f"{config.model_type}: the output head is {type(head).__name__}; a plain linear head is needed"
        )


def _refuse_adapted_head(model: Any) -> None:
    names = [name for name, _ in model.get_output_embeddings().named_parameters() if "lora_" in name]
    if names:
        raise ValueError(
            f"{model.config.model_type}: the output head is adapted (`{names[0]}`), and its adapter would be ignored: "
            "take the head out of `lora.target_modules`"
        )


def checkpoint_activations(model: Any) -> None:
    """Compute each layer's activations again in the backward pass instead of keeping them (arXiv:1604.06174).

    Exact: the second pass draws the dropout of the first one, and leaves the random numbers alone. Passes without
    gradient are as before. transformers' layers do it in train mode only, so the layers themselves, not what they
    hold, are put into it: a frozen base stays in evaluation mode. (Layers that drop out by their own mode, as OPT's do,
    would then drop out in the base too; the check at the start of a run refuses that.)

    Args:
        model: A transformers model, its adapter added (PEFT would otherwise ask for gradients of the embeddings).

    Raises:
        ValueError: No layer of the model can do so.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers: list[Any] = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"{model.config.model_type}: no layer of this model can compute its activations again; "
            "set `activation_checkpointing: false`"
        )
    for layer in layers:
        layer.training = True
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)


@torch.no_grad()
def check_forest_path(policy: Policy, forest: TokenForest) -> float:
    """Hold the policy's attention path against the padded one on a real forest.

    In reduced precision two correct paths differ; the bound is then three times the difference that the padded path
    itself shows between two batch shapes (all examples together, and each alone).

    Args:
        policy: The policy; its mode is left alone, so dropout should be off.
        forest: Some forest of the run.

    Returns:
        The largest difference of the hidden states relative to their largest value.

    Raises:
        RuntimeError: The difference is over the bound: this model computes something that sharing falsifies.
    """
    if policy.attention == "padded":
        return 0.0
    shared = policy.hidden(forest)
    shared[forest.pair_rows] = policy.hidden(forest, forest.pair_rows)  # as a loss reads them
    padded = policy._padded_hidden(forest)
    scale = float(padded.abs().max()) or 1.0
    difference = float((shared - padded).abs().max()) / scale
    if padded.dtype == torch.float32:
        bound = 1e-3
    else:
        spread = 0.0
        for last in sorted(set(forest.last_rows)):
            rows = torch.tensor([row for part in forest.path_rows(last) for row in part], device=forest.tokens.device)
            alone = policy._decode(
                input_ids=forest.tokens[rows][None], position_ids=forest.positions[rows][None], attention_mask=None
            )[0]
            spread = max(spread, float((alone - padded[rows]).abs().max()) / scale)
        bound = max(3 * spread, torch.finfo(padded.dtype).eps)
    if not difference <= bound:
        raise RuntimeError(
            f"hidden states of the forest differ from those of the padded path by {difference:.2e} of their largest "
            f"value (bound {bound:.2e}): this model cannot share tokens; set `attention: padded` and report its "
            f"`model_type` ({policy.causal_lm.config.model_type})"
        )
    return difference
