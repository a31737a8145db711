"""What makes a resumed run the same run: random number generators, and the identity that a checkpoint is held to."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from lit_align.models.policy import Policy
from lit_align.models.reference import adapters_below_fingerprint

Identity = dict[str, str]
Value = TypeVar("Value")


def rng_state() -> dict[str, Any]:
    """States of all random number generators, as tensors and ints that load with ``weights_only=True``."""
    python_version, python_state, python_gauss = random.getstate()
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": (python_version, torch.tensor(python_state, dtype=torch.int64), python_gauss),
        "numpy": (name, torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(gauss)),
    }


def restore_rng(state: Mapping[str, Any]) -> None:
    """Put all generators back into a state of :func:`rng_state`."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([part.cpu() for part in state["cuda"]])
    python_version, python_state, python_gauss = state["python"]
    random.setstate((python_version, tuple(python_state.tolist()), python_gauss))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))


def over_ranks(state: Value) -> list[Value]:
    """The states of all ranks in their order: each draws its own dropout. All ranks must call it."""
    if not (dist.is_available() and dist.is_initialized()):
        return [state]
    states: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(states, state)
    return states


def refuse_differences(saved: Mapping[str, str], current: Mapping[str, str], path: str) -> None:
    """Refuse a checkpoint of another run.

    Args:
        saved: Identity in the checkpoint.
        current: Identity of the run that is being set up.
        path: What to call the checkpoint in the message.

    Raises:
        ValueError: Names every key that differs, with both values.

    Example:
        >>> refuse_differences({"lora.rank": "8"}, {"lora.rank": "16"}, "last.ckpt")
        Traceback (most recent call last):
        ...
        ValueError: last.ckpt belongs to another run and cannot be resumed here:
          lora.rank: 8 in the checkpoint, 16 now
        Resume with the settings of the checkpoint (see config.yaml of its run), or start a new run.
    """
    differences = [
        f"  {key}: {saved.get(key, 'not set')} in the checkpoint, {current.get(key, 'not set')} now"
        for key in sorted({*saved, *current})
        if saved.get(key) != current.get(key)
    ]
    if differences:
        raise ValueError(
            "\n".join(
                [
                    f"{path} belongs to another run and cannot be resumed here:",
                    *differences,
                    "Resume with the settings of the checkpoint (see config.yaml of its run), or start a new run.",
                ]
            )
        )


def weights_identity(policy: Policy) -> Identity:
    """What the live adapter lies on, as text by key."""
    return {"base weights": policy.base_fingerprint, "adapters below": adapters_below_fingerprint(policy)}


def refuse_other_weights(saved: Identity, current: Identity, path: str) -> None:
    """Refuse a checkpoint whose adapter belongs on something else, also where it is only measured.

    Args:
        saved: Identity in the checkpoint.
        current: From :func:`weights_identity`.
        path: What to call the checkpoint in the message.

    Raises:
        ValueError: Names both fingerprints, of the base's weights or of the adapters between it and the live one.
    """
    for key, where in (("base weights", "`model.base`"), ("adapters below", "`model.reference`")):
        if saved[key] != current[key]:
            raise ValueError(
                f"{path} was trained on other {key} ({saved[key]}, here {current[key]}); set {where} to that of its run"
            )


def refuse_other_tensors(saved: Mapping[str, torch.Tensor], current: Mapping[str, torch.Tensor], path: str) -> None:
    """Refuse a checkpoint whose adapter is not the policy's: Lightning's non-strict loading would skip it silently.

    Raises:
        ValueError: Names the first missing, unexpected or differently shaped tensor.
    """
    problems = [f"`{name}` is missing in the checkpoint" for name in sorted({*current} - {*saved})]
    problems += [f"`{name}` is in the checkpoint only" for name in sorted({*saved} - {*current})]
    problems += [
        f"`{name}` has shape {tuple(saved[name].shape)} in the checkpoint, {tuple(current[name].shape)} here"
        for name in sorted({*saved} & {*current})
        if saved[name].shape != current[name].shape
    ]
    if problems:
        raise ValueError(
            f"{path} does not fit this policy: {problems[0]} ({len(problems)} differences); "
            "use the base and the LoRA settings of its run"
        )
