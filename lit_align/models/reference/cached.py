"""The log-probs of a frozen reference from disk: computed once for all losses, coefficients, seeds and runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from lit_align.forest import TokenForest, Window
from lit_align.models.logp_store import DEFAULT_FOLDER, LogpStore
from lit_align.models.reference.base import BaseReference
from lit_align.models.reference.contract import Reference
from lit_align.models.reference.fingerprint import deciding_parts, is_autocast, number_format, target_paths

if TYPE_CHECKING:
    from lit_align.models.loading import LoRA
    from lit_align.models.policy import Policy

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedReference(Reference):
    """A frozen reference whose log-probs of target tokens are kept on disk, and computed only where they are not there.

    A file holds what one reference gives, named by a hash of all that decides the numbers: weights of base and adapter
    as loaded, the model's configuration, number formats, attention path, device type, versions of torch and
    transformers. An entry is found by the tokens of an example and the places of its targets. Packing, loss, its
    coefficients, the live adapter and the seed have no part in it: a second run on the same data runs no reference,
    whatever else differs. What does not fit is not found, and each entry has a checksum. Where some examples of a
    forest are missing it is computed whole, and what was there already is used as it was.

    In fp32 the values are those of the reference itself but for rounding (under 1e-5 nats); in reduced precision they
    depend on what shared the forest when they were computed, by as much as the log says at the start. A run that is
    killed and resumed with its cache ends with the bytes of an unbroken one.

    Divergences need whole distributions, so an anchor and the KL of the validation run the reference itself. Several
    processes may fill one folder, on a disk of which all of them see the locks (over NFS not all do).
    ``lit-align cache ls`` shows what is there, ``lit-align cache prune`` removes it.

    Attributes:
        of: The reference.
        folder: Where the files lie; runs that share it share what is in it.
        fill: ``lazily`` computes what is missing when a window needs it; ``ahead`` goes through the training data once
            before the first window.

    Raises:
        ValueError: ``of`` changes during a run or is itself a cache, or ``folder`` is empty; on use, the file is
            damaged (the message names the command that removes it).
        OSError: On use, the disk is full or the file cannot be read or written; what it held is whole.

    Example:
        >>> CachedReference(of=CachedReference())
        Traceback (most recent call last):
        ...
        ValueError: CachedReference: of must not be a cache itself; name the reference that it keeps
    """

    of: Reference = BaseReference()
    folder: str = DEFAULT_FOLDER
    fill: Literal["ahead", "lazily"] = "lazily"

    def __post_init__(self) -> None:
        if isinstance(self.of, CachedReference):
            raise ValueError("CachedReference: of must not be a cache itself; name the reference that it keeps")
        if not self.of.frozen:
            raise ValueError(
                f"CachedReference: of must not change during a run, and {type(self.of).__name__} does: what was kept "
                "would be the log-probs of an earlier one; use it without a cache"
            )
        if not self.folder:
            raise ValueError("CachedReference: folder must not be empty")

    def check(self, base: str, lora: LoRA) -> None:
        """See :class:`Reference`."""
        self.of.check(base, lora)

    def attach(self, policy: Policy) -> None:
        """See :class:`Reference`."""
        self.of.attach(policy)

    def identity(self) -> str:
        """What is kept, and when it is computed; where it lies does not matter."""
        return f"CachedReference({self.of.identity()}, fill={self.fill})"

    def active(self, policy: Policy) -> AbstractContextManager[None]:
        """The reference itself."""
        return self.of.active(policy)

    @property
    def live(self) -> Reference:
        """The reference itself."""
        return self.of

    def target_logps(self, policy: Policy, forest: TokenForest) -> Tensor:
        """See :class:`Reference`; fp32, from the cache where all examples of the forest are there."""
        store, paths = self._store(policy), target_paths(forest)
        keys = [path.key() for path in paths]
        known = store.read(keys)
        if missing := {key: path.place for key, path in zip(keys, paths, strict=True) if key not in known}:
            fresh = self.of.target_logps(policy, forest).cpu().numpy().astype(np.float32)
            # What another process has written meanwhile stands: a resumed run will find that.
            known |= store.keep({key: fresh[place] for key, place in missing.items()})
        values = np.concatenate([np.zeros(0, np.float32), *(known[key] for key in keys)])
        return torch.from_numpy(values).to(policy.device)

    def prepare(self, policy: Policy, probe: TokenForest, windows: Iterable[Window]) -> None:
        """Measure what packing changes in reduced precision, and fill the cache if that is to be done ahead."""
        if policy.weights.dtype != "float32" or is_autocast(policy):
            spread = packing_spread(policy, probe.to(policy.device), self.of)
            logger.info(
                f"cached reference: {number_format(policy)}: two packings differ by up to {spread:.1e} nats a token"
            )
        if self.fill == "ahead":
            for window in windows:
                for forest in window.forests:
                    self.target_logps(policy, forest.to(policy.device))
            store = self._store(policy)
            logger.info(f"reference cache filled: {store.misses} answers computed, {store.hits} were there")
            store.hits = store.misses = 0

    def finish(self) -> None:
        """Say how much was found, and where it lies."""
        for store in (store for stores in self._stores.values() for store in stores.values()):
            damaged = f" ({len(store.damaged)} of them damaged entries)" if store.damaged else ""
            logger.info(f"reference cache: {store.hits} hits, {store.misses} misses{damaged} in {store.path}")

    def _store(self, policy: Policy) -> LogpStore:
        """The file for this policy under the number formats that are set now."""
        stores = self._stores.setdefault(policy, {})
        numbers = number_format(policy)
        if numbers not in stores:
            labels = {"base": policy.base, "of": repr(self.of)}
            stores[numbers] = LogpStore(Path(self.folder), deciding_parts(policy, self.of), labels)
            stores[numbers].mark_used()
        return stores[numbers]

    @cached_property
    def _stores(self) -> WeakKeyDictionary[Policy, dict[str, LogpStore]]:
        return WeakKeyDictionary()


def packing_spread(policy: Policy, forest: TokenForest, reference: Reference) -> float:
    """How far log-probs of a reference move with what shares the forest: all examples together, against each alone.

    Args:
        policy: The policy that holds the reference.
        forest: On the policy's device.
        reference: The reference itself, not a cache of it.

    Returns:
        The largest difference of a target, nats.
    """
    together = reference.target_logps(policy, forest)
    differences = [
        together[path.place] - reference.target_logps(policy, path.alone().to(policy.device))
        for path in target_paths(forest)
    ]
    return float(torch.cat(differences).abs().max()) if differences else 0.0
