"""The device that a command's model runs on."""

from __future__ import annotations

import torch


def refuse_no_device(name: str, option: str) -> None:
    """Refuse what is no name of a device.

    Args:
        name: As a user wrote it.
        option: The option that it was written for, for the message.

    Raises:
        ValueError: It is none.
    """
    kind, _, index = name.partition(":")
    if name not in ("auto", "cpu") and not (kind == "cuda" and (index.isdecimal() or name == "cuda")):
        raise ValueError(f"`{option}` must be auto, cpu, cuda or cuda:N, got {name!r}")


def refuse_absent_device(name: str, option: str) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        ValueError: It does not.
    """
    kind, _, index = name.partition(":")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and there <= int(index or 0):
        raise ValueError(
            f"`{option}` = {name}: torch {torch.__version__} sees {there} CUDA devices here; set auto or cpu"
        )


def device_of(name: str) -> torch.device:
    """The device; ``auto`` is CUDA where there is some.

    Example:
        >>> device_of("cpu")
        device(type='cpu')
    """
    found = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(found if name == "auto" else name)
