"""Reading prompts with verifiable instructions, in the format of IFEval's file."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from pathlib import Path

from lit_align.data.sources.json_rows import read_json_rows
from lit_align.data.sources.rows import Row, describe
from lit_align.evals.instructions.contract import Instruction
from lit_align.evals.instructions.vocabulary import make

OWN_FILE = Path(__file__).parents[2] / "assets" / "instructions" / "prompts.jsonl"
"""The prompts that come with the package."""


@dataclass(frozen=True)
class InstructionPrompt:
    """What is asked, and what of it can be verified.

    Attributes:
        key: Names the prompt within its file.
        text: What the user says.
        names: The file's names for the instructions, such as ``punctuation:no_comma``.
        instructions: The instructions, one for each name.
    """

    key: str
    text: str
    names: tuple[str, ...]
    instructions: tuple[Instruction, ...]

    @property
    def family(self) -> str:
        """The part of the name before the colon where there is one instruction, else ``several``."""
        return self.names[0].partition(":")[0] if len(self.names) == 1 else "several"

    def describe(self) -> str:
        """The instructions with their parameters, for a reader.

        Example:
            >>> InstructionPrompt("1", "…", ("punctuation:no_comma",), (make("punctuation:no_comma", {}),)).describe()
            'punctuation:no_comma()'
        """
        said = []
        for name, instruction in zip(self.names, self.instructions, strict=True):
            given = zip(fields(instruction), astuple(instruction), strict=True)
            said.append(f"{name}({', '.join(f'{field.name}={value!r}' for field, value in given)})")
        return "; ".join(said)


def read_prompts(file: Path) -> list[InstructionPrompt]:
    """Read a file of prompts: IFEval's own, unchanged, or any of its format.

    A row has ``key`` (a number or text), ``prompt``, ``instruction_id_list`` and ``kwargs``, a list with the parameters
    of each instruction; other columns are not read.

    Args:
        file: JSON Lines, or one JSON list.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file has no row, or a row breaks a rule; the message names file, line and key.
        ImportError: An instruction needs a package that is not installed.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no file of instructions at {file}; IFEval's is input_data.jsonl of its repository")
    prompts: dict[str, InstructionPrompt] = {}
    for row in read_json_rows(file):
        prompt = _prompt(row)
        if prompt.key in prompts:
            raise ValueError(f"{row.where}: a second row with the key {prompt.key}")
        prompts[prompt.key] = prompt
    if not prompts:
        raise ValueError(f"{file}: has no prompt")
    return list(prompts.values())


def _prompt(row: Row) -> InstructionPrompt:
    key = row.value("key")
    if isinstance(key, bool) or not isinstance(key, int | str) or key == "":
        raise ValueError(f"{row.where}: key must be a number or text, not {describe(key)}")
    where = f"{row.where}, key {key}"
    text = row.text("prompt")
    if not text.strip():
        raise ValueError(f"{where}: prompt is blank")
    names, parameters = row.value("instruction_id_list"), row.value("kwargs")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where}: instruction_id_list must be a list of one or more names, not {describe(names)}")
    if not isinstance(parameters, list) or not all(isinstance(one, dict) for one in parameters):
        raise ValueError(f"{where}: kwargs must be a list of objects, not {describe(parameters)}")
    if len(parameters) != len(names):
        raise ValueError(f"{where}: kwargs has {len(parameters)} objects for {len(names)} instructions; one each")
    try:
        made = tuple(make(name, one) for name, one in zip(names, parameters, strict=True))
        for instruction in made:
            instruction.check()
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return InstructionPrompt(str(key), text, tuple(names), made)
