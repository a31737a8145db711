"""``python -m benchmarks NAME``: measurements that stand beside the package; scripts, never a gate."""

from __future__ import annotations

import sys

COMMANDS = {
    "dims": "the steps of dpo and sft-kl at the dimensions of real models, in fp32, bf16 or NF4, on a CPU or CUDA",
    "dpo": "one DPO step beside TRL's DPOTrainer: time, memory, gradients",
    "evaluation": "batched answers beside one by one, TAT-QA with its tables computed once beside each prompt alone",
    "false-alarms": "how often the base, sampled twice, seems to differ from itself",
    "forgetting": "skill gained against skill lost: anchor, lower learning rate, replay",
    "growth": "how time and memory of a step grow: questions, answers, context, vocabulary, window",
    "instruction-rows": "as many instruction rows as Finance-Instruct has, prepared cold and from the cache",
    "progressive": "preference training in stages beside the base as reference and beside one joint run, three seeds",
    "loop": "what `lit-align fit` costs beyond forward and backward",
    "smollm2": "the T-Wix recipe on a real model, with and without the anchor: NLL and KL on held-out rows",
    "optimisations": "one step of ours beside itself without each optimisation: time, memory",
    "packing": "how full forests are on real lengths; FLOPs of all of TAT-QA",
    "profile": "where the time of a window goes: its parts, their FLOPs, the rate of the machine",
    "readme": "the speed tables of README in one run; whether two runs agree",
    "reddit-pairs": "a Reddit file of the real size made into pairs: time and memory",
    "reward-model": "a reward model trained on preference pairs, scored and calibrated as any other",
    "sample": "completions a second beside transformers' own generate, one at a time",
    "smollm2-dpo": "DPO after SFT on a real model: losses, rejected answers and groups on held-out tables of TAT-QA",
    "sft-kl": "one SFT step with the KL anchor beside other libraries: time, memory, gradients",
    "statistics-coverage": "coverage of the intervals, false alarms of the tests, power, by simulation",
    "tatqa-negatives": "how well TAT-QA's rejected answers are told from the chosen ones without the question",
}

USAGE = "usage: python -m benchmarks COMMAND [OPTIONS]\n\n" + "\n".join(
    f"  {name:<19} {purpose}" for name, purpose in COMMANDS.items()
)


def main(words: list[str]) -> None:
    """Run a command.

    Args:
        words: Name of the command, then its options.

    Raises:
        SystemExit: No such command (2), or its help was asked for (0).
    """
    if not words or words[0] in {"-h", "--help"}:
        print(f"{USAGE}\n\n`python -m benchmarks COMMAND --help` lists the options of a command.")
        raise SystemExit(0 if words else 2)
    name, *rest = words
    # Imported here: torch takes seconds, and a list of commands none.
    if name == "dims":
        from benchmarks import at_dims

        at_dims.main(rest)
    elif name == "dpo":
        from benchmarks.dpo import command as dpo

        dpo.main(rest)
    elif name == "evaluation":
        from benchmarks import evaluation

        evaluation.main(rest)
    elif name == "false-alarms":
        from benchmarks import false_alarms

        false_alarms.main(rest)
    elif name == "forgetting":
        from benchmarks.forgetting import command as forgetting

        forgetting.main(rest)
    elif name == "growth":
        from benchmarks.growth import command as growth

        growth.main(rest)
    elif name == "instruction-rows":
        from benchmarks import instruction_rows

        instruction_rows.main(rest)
    elif name == "progressive":
        from benchmarks.progressive import command as progressive

        progressive.main(rest)
    elif name == "loop":
        from benchmarks import loop

        loop.main(rest)
    elif name == "smollm2":
        from benchmarks import smollm2

        smollm2.main(rest)
    elif name == "optimisations":
        from benchmarks import optimisations

        optimisations.main(rest)
    elif name == "packing":
        from benchmarks import packing

        packing.main(rest)
    elif name == "profile":
        from benchmarks.profile import command as profile

        profile.main(rest)
    elif name == "readme":
        from benchmarks import readme

        readme.main(rest)
    elif name == "reddit-pairs":
        from benchmarks import reddit_pairs

        reddit_pairs.main(rest)
    elif name == "reward-model":
        from benchmarks import reward_model

        reward_model.main(rest)
    elif name == "sample":
        from benchmarks import sample

        sample.main(rest)
    elif name == "smollm2-dpo":
        from benchmarks.smollm2_dpo import command as smollm2_dpo

        smollm2_dpo.main(rest)
    elif name == "sft-kl":
        from benchmarks.sft_kl import command as sft_kl

        sft_kl.main(rest)
    elif name == "statistics-coverage":
        from benchmarks.statistics_coverage import command as statistics_coverage

        statistics_coverage.main(rest)
    elif name == "tatqa-negatives":
        from benchmarks.tatqa_negatives import command as tatqa_negatives

        tatqa_negatives.main(rest)
    else:
        print(f"no benchmark {name!r}; there are: {', '.join(COMMANDS)}\n\n{USAGE}", file=sys.stderr)
        raise SystemExit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
