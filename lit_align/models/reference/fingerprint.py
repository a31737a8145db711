"""What decides the log-probs of a reference, and of which tokens they are: the keys of a cache."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from lit_align.forest import TokenClass, TokenForest, TokenPath
from lit_align.models.reference.adapters import active_adapters_fingerprint

if TYPE_CHECKING:
    from lit_align.models.policy import Policy
    from lit_align.models.reference.contract import Reference

_NAMES = {"_name_or_path", "architectures", "transformers_version"}  # of a configuration: they decide no number


@dataclass(frozen=True, eq=False)
class TargetPath:
    """The tokens of one example, and which of them are targets.

    Attributes:
        tokens: Token ids from the root, shape ``(L,)``, int32.
        positions: Places of the targets among them, shape ``(N,)``, rising.
        place: Where the targets stand among those of the forest.
    """

    tokens: NDArray[np.int32]
    positions: NDArray[np.int64]
    place: slice

    def key(self) -> bytes:
        """A hash of tokens and places, 16 bytes; what else shares the forest takes no part."""
        digest = hashlib.blake2b(len(self.tokens).to_bytes(8, "little"), digest_size=16)
        digest.update(self.tokens.astype("<i4").tobytes())
        digest.update(self.positions.astype("<i8").tobytes())
        return digest.digest()

    def alone(self) -> TokenForest:
        """A forest of this example only."""
        classes = np.zeros(len(self.tokens), np.uint8)
        classes[self.positions] = TokenClass.ANSWER
        return TokenForest.build([[TokenPath(self.tokens, classes, "alone")]])


def target_paths(forest: TokenForest) -> list[TargetPath]:
    """The examples of a forest that have targets, in their order.

    Example:
        >>> paths = [TokenPath(np.array([7, 8, a], np.int32), np.array([0, 0, 1], np.uint8), "x") for a in (1, 2)]
        >>> [(path.tokens.tolist(), path.positions.tolist()) for path in target_paths(TokenForest.build([paths]))]
        [([7, 8, 1], [2]), ([7, 8, 2], [2])]
    """
    tokens = forest.tokens.cpu().numpy().astype(np.int32)
    # A target follows the row that predicts it; the targets of an example stand together, in the order of its text.
    positions = (forest.positions[forest.pair_rows[forest.target_pairs]] + 1).cpu().numpy()
    bounds = np.searchsorted(forest.target_examples.cpu().numpy(), np.arange(len(forest.examples) + 1))
    return [
        TargetPath(
            np.concatenate([tokens[part.start : part.stop] for part in forest.path_rows(last)]),
            positions[start:end],
            slice(int(start), int(end)),
        )
        for last, start, end in zip(forest.last_rows, bounds[:-1], bounds[1:], strict=True)
        if start < end
    ]


def number_format(policy: Policy) -> str:
    """Device and number formats in which a pass would run now, under the autocast that is on."""
    device, weights = policy.device.type, policy.weights
    autocast = str(torch.get_autocast_dtype(device)).removeprefix("torch.") if is_autocast(policy) else "off"
    quantized = "" if weights.quantization == "none" else f" {weights.quantization}"
    backend = torch.backends.cuda if device == "cuda" else torch.backends.mkldnn
    products = backend.matmul.fp32_precision  # such as TF32
    return f"{weights.dtype}{quantized}, autocast {autocast}, fp32 products {products}, on {device}"


def is_autocast(policy: Policy) -> bool:
    """Whether autocast is on for the policy's device."""
    return torch.is_autocast_enabled(policy.device.type)


def deciding_parts(policy: Policy, reference: Reference) -> dict[str, str]:
    """All that decides the reference's log-probs beside the tokens, as plain text by name.

    Weights count by their content, wherever they lie and whatever names them (an adapter that is continued or stacked
    on is one reference); packing, loss and the live adapter have no part in it.
    """
    import transformers

    config = policy.causal_lm.config.get_text_config().to_dict()
    numbers = {name: value for name, value in config.items() if name not in _NAMES}
    with reference.active(policy):
        adapter = active_adapters_fingerprint(policy)
    return {
        "base weights": policy.base_fingerprint,
        "adapter": adapter,
        "numbers": number_format(policy),
        "attention": policy.attention,
        "config": json.dumps(numbers, sort_keys=True, default=str),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
