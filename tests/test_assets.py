import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoTokenizer, GenerationConfig, Qwen3ForCausalLM, TokenizersBackend

import lit_align
from lit_align.data.sources.scale_answers import ScalePairs
from lit_align.data.sources.table_skills import ALL_SKILLS, OLD_SKILLS, TableSkillItems, TableSkills

FOLDER = Path(lit_align.__file__).parent / "assets" / "tiny_qwen3"
ANY_TEXT = [
    "",
    " ",
    "Привет, мир! Ёжик — «под» дождём…",
    "😀👩‍👩‍👧 ﷽ 漢字 e\u0301 \u212b",
    "\x00\x01\x7f\t\r\n \n\n\r\u2028\ufeff",
    "2019 12019 20199 1999 revenue2020 don't 3.14",
    "  two spaces  and trailing ",
    "<|im_start|>user\n<think>\nx</think><|im_end|><|endoftext|><unk>",
]


@pytest.fixture(scope="module")
def tokenizer() -> TokenizersBackend:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


def render(tokenizer: TokenizersBackend, *turns: tuple[str, str], **options: bool) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))


def test_the_folder_holds_a_model_and_a_tokenizer_in_three_megabytes() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 3_000_000


@pytest.mark.parametrize("text", ANY_TEXT)
def test_any_text_round_trips_through_the_tokenizer(tokenizer: TokenizersBackend, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_character_of_the_first_planes_round_trips(tokenizer: TokenizersBackend) -> None:
    codes = [code for code in range(0x20000) if not 0xD800 <= code < 0xE000]
    for first in range(0, len(codes), 4096):
        text = "".join(chr(code) for code in codes[first : first + 4096])
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", ANY_TEXT)
def test_the_tokenizer_adds_no_tokens_of_its_own(tokenizer: TokenizersBackend, text: str) -> None:
    assert tokenizer.encode(text) == tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.bos_token is None


@pytest.mark.parametrize("token", ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"])
def test_a_special_token_is_one_token(tokenizer: TokenizersBackend, token: str) -> None:
    assert len(tokenizer.encode(token)) == 1
    assert len(tokenizer.encode(f"a{token}b")) == 3


def test_think_tags_are_text_and_turn_marks_are_not_as_in_qwen3(tokenizer: TokenizersBackend) -> None:
    ids = tokenizer.encode("<|im_start|><think>hm</think><|im_end|>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>hm</think>"


def test_padding_and_end_are_those_of_qwen3(tokenizer: TokenizersBackend, model: Qwen3ForCausalLM) -> None:
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    written = GenerationConfig.from_pretrained(FOLDER)
    for config in (model.config, written):
        assert (config.pad_token_id, config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)


def test_numbers_are_split_into_digits_and_years_are_not(tokenizer: TokenizersBackend) -> None:
    assert [tokenizer.decode([i]) for i in tokenizer.encode("revenue 2019 47")][-3:] == [" 2019", " 4", "7"]


def test_every_word_of_the_skills_is_one_token(tokenizer: TokenizersBackend) -> None:
    for conversation in TableSkills(skills=list(ALL_SKILLS), n=60, seed=11).conversations():
        for message in conversation.messages:
            pieces = [tokenizer.decode([i]) for i in tokenizer.encode(message.content)]
            words = [piece.strip() for piece in pieces if piece.strip().isalpha()]
            assert words == re.findall(r"[A-Za-z]+", message.content)


def test_template_writes_the_empty_think_block_in_the_last_turn_only(tokenizer: TokenizersBackend) -> None:
    turns = [("system", "S"), ("user", "A"), ("assistant", "B"), ("user", "C"), ("assistant", "D")]
    assert render(tokenizer, *turns) == (
        "<|im_start|>system\nS<|im_end|>\n"
        "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"
        "<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nD<|im_end|>\n"
    )


def test_template_keeps_a_thought_in_the_last_turn_and_strips_earlier_ones(tokenizer: TokenizersBackend) -> None:
    thought = "<think>\nhm\n</think>\n\nB"
    assert render(tokenizer, ("user", "A"), ("assistant", thought), ("user", "C"), ("assistant", thought)) == (
        "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n"
        f"<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\n{thought}<|im_end|>\n"
    )


def test_template_opens_the_answer_with_and_without_thinking(tokenizer: TokenizersBackend) -> None:
    asked = "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\n"
    assert render(tokenizer, ("user", "A"), add_generation_prompt=True) == asked
    assert render(tokenizer, ("user", "A"), add_generation_prompt=True, enable_thinking=True) == asked
    without = render(tokenizer, ("user", "A"), add_generation_prompt=True, enable_thinking=False)
    assert without == asked + "<think>\n\n</think>\n\n"


def test_a_rendered_answer_begins_with_the_prompt_that_generation_gives(tokenizer: TokenizersBackend) -> None:
    prompt = render(tokenizer, ("user", "A"), add_generation_prompt=True, enable_thinking=False)
    assert render(tokenizer, ("user", "A"), ("assistant", "B")) == prompt + "B<|im_end|>\n"


def test_the_model_answers_held_out_questions_of_the_old_skills(
    tokenizer: TokenizersBackend, model: Qwen3ForCausalLM
) -> None:
    items = TableSkillItems(skills=list(OLD_SKILLS), n_per_skill=8, seed=5).items()
    prompts = [
        render(tokenizer, ("user", item.prompt[0].content), add_generation_prompt=True, enable_thinking=False)
        for item in items
    ]
    batch = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    with torch.no_grad():
        written = model.generate(**batch, max_new_tokens=40)[:, batch["input_ids"].shape[1] :]
    answers = tokenizer.batch_decode(written, skip_special_tokens=True)
    right = sum(answer == item.answer for answer, item in zip(answers, items, strict=True))
    assert right / len(items) >= 0.6


def test_the_weights_are_bfloat16() -> None:
    assert Qwen3ForCausalLM.from_pretrained(FOLDER, dtype="auto").dtype == torch.bfloat16


# PEFT 0.21 reads a property that transformers has renamed.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_undecided_adapter_opens_in_peft_on_the_bundled_base_and_gives_a_number_now_with_its_scale_now_without(
    tokenizer: TokenizersBackend,
) -> None:
    base = Qwen3ForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    undecided = PeftModel.from_pretrained(base, FOLDER.parent / "tiny_qwen3_undecided").eval()
    pairs = ScalePairs(split="eval", n=60, seed=21).pairs(lambda _: True)
    chats = [[{"role": "user", "content": pair.prompt[0].content}] for pair in pairs]
    tokenizer.padding_side = "left"
    batch = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, enable_thinking=False, padding=True, return_tensors="pt", return_dict=True
    )
    greedy = GenerationConfig(do_sample=False, max_new_tokens=24, eos_token_id=tokenizer.eos_token_id, pad_token_id=0)
    written = undecided.generate(**batch, generation_config=greedy)[:, batch["input_ids"].shape[1] :]
    said = [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]
    scaled = sum(text == pair.chosen for text, pair in zip(said, pairs, strict=True))
    plain = sum(text == pair.rejected for text, pair in zip(said, pairs, strict=True))
    assert scaled + plain >= 57
    assert min(scaled, plain) >= 12
