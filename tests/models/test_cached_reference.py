"""A cached reference gives what the reference gives, runs it only for what is missing, and mixes nothing up."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lit_align.checkpoint import write_adapter
from lit_align.forest import TokenForest, TokenPath, Window, targetless_forest
from lit_align.models.loading import LoRA, Weights
from lit_align.models.logp_store import describe, stored_files
from lit_align.models.policy import Policy
from lit_align.models.reference import BaseReference, CachedReference, FrozenAdapterReference, Reference
from lit_align.modules.sft import SFTModule

FP32, BF16 = Weights(dtype="float32"), Weights(dtype="bfloat16")
CPU = torch.device("cpu")


def paths(number: int = 6, seed: int = 0) -> list[TokenPath]:
    """Examples that begin alike, of one to eight targets."""
    rng = np.random.default_rng(seed)
    start = rng.integers(3, 61, 5)
    tokens = [np.concatenate([start, rng.integers(3, 61, 1 + n % 8)]).astype(np.int32) for n in range(number)]
    return [TokenPath(t, (np.arange(len(t)) > 4).astype(np.uint8), f"x{n}") for n, t in enumerate(tokens)]


def together(some: list[TokenPath]) -> TokenForest:
    return TokenForest.build([some])


def policy_of(base: str, weights: Weights = FP32, attention: Any = "tree_sdpa", **lora: Any) -> Policy:
    torch.manual_seed(2)
    policy = Policy(base, weights, LoRA(**{"rank": 4, **lora}), attention)
    for parameter in policy.adapter_parameters().values():
        torch.nn.init.normal_(parameter, std=0.3)
    return policy


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many passes there were since the last call."""
    seen: list[int] = []
    hidden = Policy.hidden

    def counted(self: Policy, forest: TokenForest, rows: Tensor | None = None) -> Tensor:
        seen.append(len(forest))
        return hidden(self, forest, rows)

    def count() -> int:
        number = len(seen)
        seen.clear()
        return number

    monkeypatch.setattr(Policy, "hidden", counted)
    return count


# ---------------------------------------------------------------- the values


def test_values_are_the_references_own_in_every_packing_and_it_runs_once(
    random_qwen3: str, passes: Callable[[], int]
) -> None:
    policy, some = policy_of(random_qwen3).train(), paths()
    forests = [together(some), TokenForest.build([[path] for path in some[::-1]]), together(some[2:4])]
    live = [BaseReference().target_logps(policy, forest) for forest in forests]
    passes()
    cached = [CachedReference().target_logps(policy, forest) for forest in forests]
    assert passes() == 1
    for found, expected in zip(cached, live, strict=True):
        assert found.dtype == expected.dtype == torch.float32
        assert not found.requires_grad
        assert (found - expected).abs().max() < 1e-5
    assert torch.equal(cached[0], live[0])
    assert torch.equal(CachedReference().target_logps(policy, forests[0]), live[0])


def test_twins_and_one_answer_after_another_have_their_own_places(random_qwen3: str) -> None:
    policy, some = policy_of(random_qwen3), paths()
    longer = replace(
        some[2], tokens=np.append(some[2].tokens, np.int32(9)), classes=np.append(some[2].classes, np.uint8(1))
    )
    other_targets = replace(some[2], classes=np.where(np.arange(len(some[2].tokens)) > 5, 1, 0).astype(np.uint8))
    forest = TokenForest.build([[some[2], longer, other_targets], [some[2]]])
    expected = BaseReference().target_logps(policy, forest)
    assert torch.equal(CachedReference().target_logps(policy, forest), expected)
    assert describe(stored_files(Path(CachedReference().folder))[0]).examples == 3
    assert torch.equal(CachedReference().target_logps(policy, forest), expected)


def test_what_is_there_is_used_and_only_what_is_missing_is_added(random_qwen3: str, passes: Callable[[], int]) -> None:
    policy, some, reference = policy_of(random_qwen3), paths(), CachedReference()
    reference.target_logps(policy, together(some[:3]))
    planted = reference._store(policy)
    keys = _keys(together(some))
    with sqlite3.connect(planted.path) as connection:
        connection.execute("DELETE FROM examples WHERE key = ?", (keys[0],))
    connection.close()
    planted.keep({keys[0]: np.array([-7.0], np.float32)})
    passes()
    values = reference.target_logps(policy, together(some))
    assert passes() == 1
    assert float(values[0]) == -7
    assert torch.equal(reference.target_logps(policy, together(some)), values)
    assert passes() == 0
    assert (values[1:] - BaseReference().target_logps(policy, together(some))[1:]).abs().max() < 1e-5


def _keys(forest: TokenForest) -> list[bytes]:
    from lit_align.models.reference.fingerprint import target_paths

    return [path.key() for path in target_paths(forest)]


def test_a_rank_without_a_forest_runs_nothing(random_qwen3: str, passes: Callable[[], int]) -> None:
    assert CachedReference().target_logps(policy_of(random_qwen3), targetless_forest(CPU)).shape == (0,)
    assert passes() == 0


def test_active_is_the_reference_itself(random_qwen3: str) -> None:
    policy, forest = policy_of(random_qwen3), together(paths())
    with CachedReference().active(policy), BaseReference().active(policy):
        bare = policy.hidden(forest)
    with CachedReference().active(policy):
        assert torch.equal(policy.hidden(forest), bare)
    assert CachedReference().live == BaseReference()
    assert not Path(CachedReference().folder).exists(), "nothing was asked of the cache"


# ---------------------------------------------------------------- hits and misses


def misses(policy: Policy, reference: Reference | None = None, numbers: Any = None) -> bool:
    """Whether the cache of the working folder has nothing for this policy."""
    cached = CachedReference(reference or BaseReference())
    with numbers or nullcontext():
        cached.target_logps(policy, together(paths()))
        store = cached._store(policy)
    assert {store.hits, store.misses} == {0, 6}
    return store.misses == 6


@contextmanager
def set_to(module: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    yield
    setattr(module, name, before)


def test_the_live_adapter_has_no_part_in_it(random_qwen3: str, tmp_path: Path) -> None:
    assert misses(policy_of(random_qwen3))
    assert not misses(policy_of(random_qwen3, rank=2, alpha=3.0, dropout=0.5, target_modules=["q_proj"]))
    shutil.copytree(random_qwen3, tmp_path / "copy")
    assert not misses(policy_of(str(tmp_path / "copy")))


def test_other_numbers_are_misses(random_qwen3: str) -> None:
    policy = policy_of(random_qwen3)
    assert misses(policy)
    matmul = torch.backends.mkldnn.matmul
    assert misses(policy, numbers=torch.autocast("cpu", dtype=torch.bfloat16))
    assert misses(policy, numbers=set_to(matmul, "fp32_precision", "bf16"))
    assert misses(policy_of(random_qwen3, attention="padded"))
    assert misses(policy_of(random_qwen3, BF16))
    assert not misses(policy)
    assert not misses(policy, numbers=torch.autocast("cpu", dtype=torch.bfloat16))


def test_a_changed_byte_of_the_base_and_another_rope_are_misses(random_qwen3: str, tmp_path: Path) -> None:
    assert misses(policy_of(random_qwen3))
    base = tmp_path / "base"
    shutil.copytree(random_qwen3, base)
    config = base / "config.json"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('"rope_theta": 10000.0', '"rope_theta": 10001.0'), encoding="utf-8")
    assert config.read_text(encoding="utf-8") != text
    assert misses(policy_of(str(base)))
    config.write_text(text, encoding="utf-8")
    assert not misses(policy_of(str(base)))
    tensors = load_file(base / "model.safetensors")
    name = next(name for name in sorted(tensors) if "mlp" in name)
    tensors[name].view(torch.uint8).view(-1)[68] ^= 1
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    assert misses(policy_of(str(base)))


def adapter_folder(base: str, folder: Path, seed: int, **lora: Any) -> str:
    policy = policy_of(base, **lora)
    torch.manual_seed(seed)
    for parameter in policy.adapter_parameters().values():
        torch.nn.init.normal_(parameter, std=0.3)
    write_adapter(folder, policy.adapter_parameters(), policy.adapter_config())
    return str(folder)


def test_another_adapter_or_scale_is_a_miss_and_another_place_is_not(random_qwen3: str, tmp_path: Path) -> None:
    def missed(path: str, **lora: Any) -> bool:
        policy = policy_of(random_qwen3, **lora)
        FrozenAdapterReference(path).attach(policy)
        return misses(policy, FrozenAdapterReference(path))

    first = adapter_folder(random_qwen3, tmp_path / "first", 1)
    assert misses(policy_of(random_qwen3))
    assert missed(first)
    assert missed(adapter_folder(random_qwen3, tmp_path / "second", 2))
    assert missed(adapter_folder(random_qwen3, tmp_path / "scaled", 1, alpha=3.0))
    shutil.copytree(first, tmp_path / "copy")
    assert not missed(str(tmp_path / "copy"), rank=2, target_modules=["q_proj"])
    policy = policy_of(random_qwen3)
    with pytest.raises(ValueError, match="is not the one under the policy"):
        CachedReference(FrozenAdapterReference(first)).target_logps(policy, together(paths()))


# ---------------------------------------------------------------- what is said and refused


@dataclass(frozen=True)
class Moving(BaseReference):
    """Changes while a run goes on."""

    frozen = False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"of": Moving()}, "of must not change during a run, and Moving does"),
        ({"of": CachedReference()}, "of must not be a cache itself"),
        ({"folder": ""}, "folder must not be empty"),
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CachedReference(**options)


def test_sft_refuses_it_by_name(random_qwen3: str) -> None:
    with pytest.raises(ValueError, match=r"`model\.reference` CachedReference would never be read"):
        SFTModule(random_qwen3, reference=CachedReference())


def test_identity_says_that_it_is_cached_and_not_where() -> None:
    assert CachedReference(folder="a").identity() == CachedReference(folder="b").identity()
    assert BaseReference().identity() in CachedReference().identity() != BaseReference().identity()


@pytest.mark.parametrize("reduced", ["bfloat16", "autocast", ""])
def test_the_spread_of_two_packings_is_told_in_reduced_precision(
    reduced: str, random_qwen3: str, caplog: pytest.LogCaptureFixture
) -> None:
    policy = policy_of(random_qwen3, BF16 if reduced == "bfloat16" else FP32)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=reduced == "autocast")
    with autocast, caplog.at_level(logging.INFO):
        CachedReference().prepare(policy, together(paths()), iter(()))
    told = [record.message for record in caplog.records]
    assert len(told) == bool(reduced)
    if reduced:
        assert "bfloat16" in told[0]
        spread = float(told[0].partition("up to ")[2].split()[0])
        assert 1e-4 < spread < 0.5


def test_filling_ahead_leaves_nothing_to_compute(
    random_qwen3: str, passes: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    policy, some = policy_of(random_qwen3), paths()
    reference = CachedReference(fill="ahead")
    windows = [Window((together(some[:2]), together(some[2:4])), 0, ()), Window((together(some[4:]),), 1, ())]
    before = torch.get_rng_state()
    with caplog.at_level(logging.INFO):
        reference.prepare(policy, together(some), iter(windows))
        assert passes() == 3
        reference.target_logps(policy, together(some))
        reference.prepare(policy, together(some), iter(windows))
        assert passes() == 0
        reference.target_logps(policy, together(some))
        reference.finish()
    assert torch.equal(torch.get_rng_state(), before)
    told = [record.message for record in caplog.records]
    assert told[0] == "reference cache filled: 6 answers computed, 0 were there"
    assert told[-1].startswith("reference cache: 6 hits, 0 misses in ")
    lazy = CachedReference(folder="elsewhere")
    lazy.prepare(policy, together(some), iter(windows))
    assert passes() == 0


def test_a_flipped_byte_of_an_entry_is_computed_again(
    random_qwen3: str, passes: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    policy, forest = policy_of(random_qwen3), together(paths())
    expected = CachedReference().target_logps(policy, forest)
    (path,) = stored_files(Path(CachedReference().folder))
    held = expected[:1].numpy().tobytes()
    whole = path.read_bytes()
    assert whole.count(held) == 1
    path.write_bytes(whole.replace(held, bytes([held[0] ^ 1]) + held[1:]))
    passes()
    reference = CachedReference()
    assert torch.equal(reference.target_logps(policy, forest), expected)
    assert passes() == 1
    with caplog.at_level(logging.INFO):
        reference.finish()
    assert "1 misses (1 of them damaged entries)" in caplog.text
    assert torch.equal(CachedReference().target_logps(policy, forest), expected)
    assert passes() == 0


def test_a_truncated_file_stops_the_run_with_the_command(random_qwen3: str) -> None:
    policy, forest = policy_of(random_qwen3), together(paths())
    CachedReference().target_logps(policy, forest)
    (path,) = stored_files(Path(CachedReference().folder))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"{path.name} is damaged .* `lit-align cache prune --folder .* {path.stem}`"):
        CachedReference().target_logps(policy, forest)
