"""A reading that only grows (seconds, FLOPs) dealt out to the parts of a step, each call to the innermost one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch

PACKING, REFERENCE, POLICY, HEAD, BACKWARD, OPTIMIZER, OTHER = (
    "forest and attention plan", "reference forward", "policy forward", "head", "backward", "optimizer", "other",
)  # fmt: skip
PARTS = (PACKING, REFERENCE, POLICY, HEAD, BACKWARD, OPTIMIZER, OTHER)


@dataclass
class Meter:
    """Deals a reading out.

    Attributes:
        reading: Any number that only grows.
        shares: What each part has had so far.
    """

    reading: Callable[[], float]
    shares: dict[str, float] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)
    _last: float = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What grows inside belongs to ``name``, but for parts that open inside."""
        self._deal()
        self._open.append(name)
        try:
            yield
        finally:
            self._deal()
            self._open.pop()

    def _deal(self) -> None:
        now = self.reading()
        if self._open:
            self.shares[self._open[-1]] = self.shares.get(self._open[-1], 0.0) + now - self._last
        self._last = now

    def around(self, function: Callable[..., Any], name: str | Callable[[], str]) -> Callable[..., Any]:
        """The function, as a part; the name may depend on the moment of the call."""

        def measured(*args: Any, **kwargs: Any) -> Any:
            with self.part(name if isinstance(name, str) else name()):
                return function(*args, **kwargs)

        return measured


@contextmanager
def parts_of_a_step(meter: Meter) -> Iterator[None]:
    """Have the package's own functions tell the meter when they are entered and left."""
    from lit_align import forest
    from lit_align.models import policy
    from lit_align.models.reference import contract
    from lit_align.modules import comparison, pair_scoring

    def forward() -> str:
        return POLICY if torch.is_grad_enabled() else REFERENCE

    with ExitStack() as stack:
        for owner, function, name in (
            (forest.TokenForest, "build", PACKING),
            (policy, "plan_attention", PACKING),
            (policy.Policy, "hidden", forward),
            (comparison, "score_tokens", HEAD),
            (contract, "token_logps", HEAD),
            (pair_scoring, "token_logps", HEAD),
            (torch.autograd, "backward", BACKWARD),
        ):
            stack.enter_context(mock.patch.object(owner, function, meter.around(getattr(owner, function), name)))
        yield
