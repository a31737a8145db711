"""Preference losses and their LoRA gradients equal those of TRL's trainers, computed on the trainers' own batches.

The table of :mod:`tests.losses.preference.table` says which loss of TRL each of ours equals.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_align.losses.preference.aot import AOTLoss
from lit_align.losses.preference.contract import AnswerScores, PairScores, PreferenceLoss
from lit_align.losses.preference.f_dpo import AlphaDivergence, FDPOLoss, ForwardKL, JensenShannon
from lit_align.losses.preference.hinge import HingeLoss
from lit_align.losses.preference.ipo import IPOLoss
from lit_align.losses.preference.length import LDDPOLoss
from lit_align.losses.preference.nll import ChosenNLLLoss
from lit_align.losses.preference.sigmoid import SigmoidLoss
from tests.losses.preference.table import CASES, TRL, Case

pytest.importorskip("trl")

pytestmark = [
    pytest.mark.slow,
    # transformers renames gradient to activation checkpointing; TRL and PEFT still use the old names.
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning"),
    # Parts of TRL are marked as experimental, which they are.
    pytest.mark.filterwarnings("ignore:You are importing from 'trl.experimental'"),
]

WORDS = [f"w{number}" for number in range(57)]
# Rejected answers are longer, shorter and as long as the chosen ones. Those are of one length, so that TRL's mean NLL
# over the tokens of the batch is the mean over the answers.
CHOSEN, REJECTED = (6,) * 8, (3, 9, 6, 1, 8, 5, 7, 6)


def rows(prompt: int) -> list[dict[str, str]]:
    draw = random.Random(0)
    return [
        {
            name: "".join(f" {draw.choice(WORDS)}" for _ in range(length))
            for name, length in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected))
        }
        for chosen, rejected in zip(CHOSEN, REJECTED, strict=True)
    ]


def tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = Split(" ", "removed")
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


@dataclass(frozen=True, eq=False)
class Step:
    """A batch of TRL's on a model with a filled adapter, and what TRL makes of it."""

    model: Any
    ids: Tensor
    attention: Tensor
    answer: Tensor
    loss: float
    gradient: Tensor

    def ours(self, loss: PreferenceLoss) -> tuple[float, Tensor]:
        value = loss(self.scores()).mean()
        return float(value.detach()), lora_gradient(self.model, value)

    def scores(self) -> PairScores:
        """From plain forwards: chosen answers are the first half of the rows."""
        log_p = self.log_softmax()
        with torch.no_grad(), self.model.disable_adapter():
            reference = self.log_softmax()
        targets, answer = self.ids[:, 1:], self.answer[:, 1:]
        squares = log_p.detach().mul(2).logsumexp(-1)
        half = len(self.ids) // 2

        def side(half_rows: slice) -> AnswerScores:
            mask = answer[half_rows]

            def of_tokens(values: Tensor) -> Tensor:
                return values[half_rows].gather(2, targets[half_rows].unsqueeze(2)).squeeze(2)[mask]

            pairs, _ = mask.nonzero(as_tuple=True)
            positions = (mask.cumsum(1) - 1)[mask]
            statistics: Any = {"log_sum_squares": squares[half_rows][mask]}
            return AnswerScores(of_tokens(log_p), of_tokens(reference), pairs, positions, half, statistics)

        return PairScores(side(slice(half)), side(slice(half, None)))

    def log_softmax(self) -> Tensor:
        logits = self.model(input_ids=self.ids, attention_mask=self.attention, use_cache=False).logits
        result: Tensor = logits[:, :-1].double().log_softmax(-1)
        return result


def lora_gradient(model: Any, loss: Tensor) -> Tensor:
    parameters = [parameter for _, parameter in sorted(model.named_parameters()) if parameter.requires_grad]
    assert len(parameters) == 28  # two factors for seven layers in two blocks
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, parameters)]).double()


def fill(model: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            spread = 0.2 if "lora_B" in name else parameter.shape[1] ** -0.5
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * spread)


def trl_step(trl: TRL, base: str) -> Step:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    module = import_module("trl" if trl.trainer == "DPO" else f"trl.experimental.{trl.trainer.lower()}")
    # ORPO's NLL takes in the prompt, of which only the first token is not predicted: let it be the only one.
    data = rows(prompt=1 if trl.trainer == "ORPO" else 4)
    with tempfile.TemporaryDirectory() as folder:
        trainer = getattr(module, f"{trl.trainer}Trainer")(
            model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
            args=getattr(module, f"{trl.trainer}Config")(
                output_dir=folder,
                per_device_train_batch_size=len(data),
                gradient_checkpointing=False,
                bf16=False,
                use_cpu=True,
                report_to=[],
                disable_tqdm=True,
                **trl.settings,
            ),
            train_dataset=Dataset.from_list(data),
            processing_class=tokenizer(),
            peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
    fill(trainer.model)
    trainer.model.train()
    batch = trainer.data_collator([trainer.train_dataset[row] for row in range(len(data))])
    loss = trainer.compute_loss(trainer.model, dict(batch))
    if trl.trainer == "DPO":
        ids, attention, answer = batch["input_ids"], batch["attention_mask"], batch["completion_mask"].bool()
    else:
        whole = trainer.concatenated_inputs(batch, padding_value=0)
        ids, attention = whole["concatenated_input_ids"], whole["concatenated_attention_mask"]
        answer = whole["concatenated_labels"] != -100
    assert answer[:, 1:].sum(1).tolist() == [length + 1 for length in (*CHOSEN, *REJECTED)]  # with the end of turn
    return Step(trainer.model, ids, attention, answer, float(loss.detach()), lora_gradient(trainer.model, loss))


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from random_models import save_random_model

    base = save_random_model(Path(tmp_path_factory.mktemp("base")), "qwen3", vocab_size=61)
    found: dict[str, Step] = {}

    def step(trl: TRL) -> Step:
        return found[str(trl)] if str(trl) in found else found.setdefault(str(trl), trl_step(trl, base))

    return step


def difference(step: Step, loss: PreferenceLoss) -> tuple[float, float]:
    """Relative, of the loss and of the gradient."""
    value, gradient = step.ours(loss)
    return abs(value - step.loss) / abs(step.loss), float((gradient - step.gradient).norm() / step.gradient.norm())


PARITY = [case for case in CASES if isinstance(case.trl, TRL)]


@pytest.mark.parametrize("case", PARITY, ids=str)
def test_value_and_gradients_are_those_of_trl(case: Case, steps: Any) -> None:
    value, gradient = difference(steps(case.trl), case.loss)
    assert value < 1e-5
    assert gradient < 1e-5


def with_beta(loss: PreferenceLoss, factor: float) -> PreferenceLoss:
    """The loss with its beta, or that of its inner loss, multiplied."""
    for name in ("beta", "coef"):
        if name in {field.name for field in fields(loss)}:
            return replace(loss, **{name: factor * getattr(loss, name)})
    if hasattr(loss, "loss"):
        return replace(loss, loss=with_beta(loss.loss, factor))
    return replace(loss, losses=tuple(with_beta(part, factor) for part in loss.losses[:2]) + loss.losses[2:])


# Every third of those that have one: what is put to the test is the comparison, which they share.
@pytest.mark.parametrize("case", [case for case in PARITY if case.loss != ChosenNLLLoss()][::3], ids=str)
def test_a_beta_two_percent_off_is_told_apart(case: Case, steps: Any) -> None:
    assert max(difference(steps(case.trl), with_beta(case.loss, 1.02))) > 1e-3


def of_trl(**settings: Any) -> TRL:
    return TRL({"loss_type": ["sigmoid"], "beta": 0.5, **settings})


@pytest.mark.parametrize(
    ("planted", "trl"),
    [
        (IPOLoss(0.5, reduction="sum"), of_trl(loss_type=["ipo"])),
        (SigmoidLoss(0.5), of_trl(loss_type=["aot"])),
        (AOTLoss(0.5), of_trl()),
        (SigmoidLoss(0.5), of_trl(use_weighting=True)),
        (SigmoidLoss(0.5), of_trl(ld_alpha=0.25)),
        (LDDPOLoss(SigmoidLoss(0.5), alpha=0.26), of_trl(ld_alpha=0.25)),
        (FDPOLoss(SigmoidLoss(0.5), ForwardKL()), of_trl(f_divergence_type="js_divergence")),
        (FDPOLoss(SigmoidLoss(0.5), JensenShannon()), of_trl(f_divergence_type="forward_kl")),
        (
            FDPOLoss(HingeLoss(0.2), AlphaDivergence(0.7)),
            of_trl(loss_type=["hinge"], beta=0.2, f_divergence_type="alpha_divergence", f_alpha_divergence_coef=0.7),
        ),
    ],
    ids=str,
)
def test_another_loss_is_told_apart(planted: PreferenceLoss, trl: TRL, steps: Any) -> None:
    assert max(difference(steps(trl), planted)) > 1e-3
