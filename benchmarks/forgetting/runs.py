"""One run of the forgetting benchmark: the quickstart's model and data under one setting and one seed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal, cast

import lightning as L  # noqa: N812  the name that its users know
from torch.optim import AdamW
from typing_extensions import override

from benchmarks.forgetting.log import Record
from lit_align.data.chat import ChatFormat
from lit_align.data.lengths import Lengths
from lit_align.data.part import Workshop
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.table_skills import NEW_SKILLS, OLD_SKILLS, TableSkillItems, TableSkills
from lit_align.data.tokenising import Tokenising
from lit_align.environment import environment
from lit_align.evals.benchmark import ItemResult
from lit_align.evals.exact_match import ExactMatchBenchmark
from lit_align.losses.anchor import KLAnchor
from lit_align.models.loading import LoRA, Weights
from lit_align.modules.sft import SFTModule
from lit_align.schedule import CosineSchedule
from lit_align.tokenizer import load_tokenizer

FULL_LR = 3e-3  # configs/quickstart.yaml

Method = Literal["untrained", "plain SFT", "anchor", "replay KL", "replay NLL"]


@dataclass(frozen=True)
class Setting:
    """What distinguishes one run from another, beside the seed.

    Attributes:
        method: ``untrained`` is the baseline; ``plain SFT`` has no anchor; ``anchor`` has the KL on the trained
            answers; ``replay KL`` has it on replayed conversations; ``replay NLL`` trains on these instead.
        strength: Coefficient of the KL, or weight of a replayed token's NLL, >= 0; 0 for the first two.
        lr: Peak learning rate, > 0; 0 if untrained.
        steps: Optimizer steps, > 0; 0 if untrained.
        items: Questions of each skill, > 0.
    """

    method: Method
    strength: float
    lr: float
    steps: int
    items: int


def benchmarks_of(items: int) -> tuple[ExactMatchBenchmark, ExactMatchBenchmark]:
    """The questions of the new skill and those of the old ones, as in ``configs/quickstart.yaml``.

    Args:
        items: Questions of each skill, > 0.
    """
    new = TableSkillItems(skills=list(NEW_SKILLS), n_per_skill=items, seed=3)
    old = TableSkillItems(skills=list(OLD_SKILLS), n_per_skill=items, seed=3)
    return ExactMatchBenchmark(new, name="new skill"), ExactMatchBenchmark(old, name="old skills")


class RehearsalData(SFTDataModule):
    """The windows of a run with replay, in which the replayed conversations carry NLL.

    The conversations of each window are those of ``SFTDataModule`` with the same replay and seed, one for one.

    Args:
        weight: Weight of a replayed token's NLL relative to that of a new one, > 0.
        seed: Seed of the order.
    """

    anchored_share = 0.0  # nothing that is replayed needs an anchor

    def __init__(self, weight: float, seed: int) -> None:
        super().__init__(**_replayed(), seed=seed)
        self.weight = weight

    @override
    def _tokenising(self, part: str, weight: float, workshop: Workshop) -> Tokenising:
        return super()._tokenising(part, self.weight if part == "replay" else weight, workshop)


def data_of(setting: Setting, seed: int) -> SFTDataModule:
    """Training data of a setting.

    Args:
        setting: Any but ``untrained``.
        seed: Seed of the order of conversations.
    """
    if setting.method == "replay NLL":
        return RehearsalData(setting.strength, seed)
    return SFTDataModule(**(_replayed() if setting.method == "replay KL" else _new_only()), seed=seed)


def _new_only() -> dict[str, Any]:
    return {
        "sources": [TableSkills(skills=list(NEW_SKILLS), n=400, seed=1)],
        "window": 16,
        "token_budget": 2048,
        "lengths": Lengths(max_length=256),
    }


def _replayed() -> dict[str, Any]:
    return {**_new_only(), "replay": [TableSkills(skills=list(OLD_SKILLS), n=256, seed=2)], "replay_share": 0.75}


def module_of(setting: Setting, seed: int) -> SFTModule:
    """A policy that is ready to be trained, its adapter drawn from the seed.

    Args:
        setting: Any; ``untrained`` gives the bare base with an adapter that does nothing yet.
        seed: Seed of the adapter.
    """
    L.seed_everything(seed, verbose=False)
    text: Literal["trained", "replayed"] = "replayed" if setting.method == "replay KL" else "trained"
    coefficient = setting.strength if setting.method in ("anchor", "replay KL") else 0.0
    module = SFTModule(
        weights=Weights(dtype="float32"),
        lora=LoRA(rank=16, alpha=32),
        anchor=KLAnchor(coef=coefficient, text=text),
        optimizer=lambda parameters: AdamW(parameters, lr=setting.lr, weight_decay=0.0),
        schedule=CosineSchedule(warmup_steps=10, floor=0.1),
    )
    module.configure_model()  # here, so that the adapter's draw does not depend on what the trainer draws before
    return module


def run_once(setting: Setting, seed: int) -> Record:
    """Train under a setting, ask all questions, and describe the run in plain types.

    Args:
        setting: What to train; ``untrained`` only asks.
        seed: Seed of adapter, order and torch.

    Returns:
        Setting, seed, right (1) or wrong (0) by question in the items' order, share of answers at the length cap,
        seconds and environment.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    module = module_of(setting, seed)
    if setting.method == "untrained":
        chat = ChatFormat(load_tokenizer(module.base))
    else:
        data = data_of(setting, seed)
        _trainer(setting.steps).fit(module, datamodule=data)
        chat = data.chat
    module.eval()
    new, old = (benchmark.run(module.policy, chat) for benchmark in benchmarks_of(setting.items))
    return {
        **identity(setting, seed),
        "new": _bits(new),
        "old": _bits(old),
        "cap_hit": sum(bool(item.hit_cap) for item in [*new, *old]) / len([*new, *old]),
        "wall_s": round(time.perf_counter() - wall, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "environment": environment(),
    }


def identity(setting: Setting, seed: int) -> Record:
    """What two records share if and only if they are of the same run: setting, seed and questions.

    Args:
        setting: The setting.
        seed: The seed; the baseline's is 0.
    """
    return {"setting": asdict(setting), "seed": seed, "questions": list(_questions(setting.items))}


@cache
def _questions(items: int) -> tuple[dict[str, str | int], ...]:
    return tuple(benchmark.conditions() for benchmark in benchmarks_of(items))


def setting_of(record: Record) -> Setting:
    """The setting of a record.

    Raises:
        ValueError: The record lacks a key or has one too many: it was written by another version.
    """
    try:
        return Setting(**cast(dict[str, Any], record["setting"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"a record was written by another version ({error}); start over with --fresh") from error


def _trainer(steps: int) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


def _bits(results: Sequence[ItemResult]) -> str:
    return "".join("1" if item.scores["exact_match"] else "0" for item in results)
