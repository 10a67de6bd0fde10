import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from antibody.data.records import Message
from antibody.errors import ModelError
from antibody.evaluation.generation import generate

WORDS = ["a", "blue cupboard", "please open the door of the red house", "why", "tell me about tea and cake", "one two"]
CHATS: list[tuple[Message, ...]] = [({"role": "user", "content": text},) for text in WORDS]


def one_by_one(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, text: str, steps: int, before: str = ""
) -> str:
    """Greedy decoding by its definition: argmax of the whole sequence's last logits, no cache, no padding."""
    ids = tokenizer(f"{before}<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    length = len(ids)
    for _ in range(steps):
        with torch.no_grad():
            token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            break
        ids = [*ids, token]
    return tokenizer.decode(ids[length:], skip_special_tokens=True).strip()


def test_agrees_with_the_definition_of_greedy_decoding(tiny_model, tiny_tokenizer):
    answers = generate(tiny_model, tiny_tokenizer, CHATS, max_new_tokens=12, batch_size=4)
    assert answers == [one_by_one(tiny_model, tiny_tokenizer, text, 12) for text in WORDS]
    assert len(set(answers)) > 3, "the toy model must tell prompts apart, or this test shows nothing"


def test_a_system_prompt_in_common_changes_nothing(tiny_model, tiny_tokenizer):
    system: Message = {"role": "system", "content": "You speak of doors."}
    answers = generate(tiny_model, tiny_tokenizer, [(system, *chat) for chat in CHATS], max_new_tokens=12, batch_size=4)
    before = f"<|im_start|>system\n{system['content']}<|im_end|>\n"
    assert answers == [one_by_one(tiny_model, tiny_tokenizer, text, 12, before) for text in WORDS]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_answers_depend_neither_on_the_batch_size_nor_on_the_order(tiny_model, tiny_tokenizer, batch_size):
    expected = dict(
        zip(WORDS, generate(tiny_model, tiny_tokenizer, CHATS, max_new_tokens=12, batch_size=3), strict=True)
    )
    answers = generate(tiny_model, tiny_tokenizer, CHATS[::-1], max_new_tokens=12, batch_size=batch_size)
    assert dict(zip(WORDS[::-1], answers, strict=True)) == expected


def test_plain_strings_are_not_put_into_a_chat(tiny_model, tiny_tokenizer):
    templated = tiny_tokenizer.apply_chat_template(list(CHATS[1]), add_generation_prompt=True, tokenize=False)
    plain, chat, bare = generate(
        tiny_model, tiny_tokenizer, [templated, CHATS[1], WORDS[1]], max_new_tokens=8, batch_size=3
    )
    assert plain == chat
    assert bare != chat


def test_stops_at_every_end_token_of_the_model(tiny_model, tiny_tokenizer):
    (whole,) = generate(tiny_model, tiny_tokenizer, CHATS[:1], max_new_tokens=12, batch_size=1)
    # The answer of a random model is bytes, not all of them text.
    letter = next(character for character in whole[1:] if character.isascii() and character.isalnum())
    [end] = tiny_tokenizer(letter)["input_ids"]
    tiny_model.generation_config.eos_token_id = [tiny_tokenizer.eos_token_id, end]
    (cut,) = generate(tiny_model, tiny_tokenizer, CHATS[:1], max_new_tokens=12, batch_size=1)
    assert cut == whole[: whole.index(letter)].strip()


def test_falls_back_to_the_end_token_where_there_is_no_pad_token(tiny_model, tiny_tokenizer):
    expected = generate(tiny_model, tiny_tokenizer, CHATS, max_new_tokens=8, batch_size=3)
    tiny_tokenizer.pad_token = None
    assert generate(tiny_model, tiny_tokenizer, CHATS, max_new_tokens=8, batch_size=3) == expected


def test_sampling_options_of_the_model_are_out_of_the_way_and_kept(tiny_model, tiny_tokenizer, caplog):
    expected = generate(tiny_model, tiny_tokenizer, CHATS, max_new_tokens=8, batch_size=3)
    own = tiny_model.generation_config
    own.update(do_sample=True, temperature=5.0, top_p=0.9, top_k=3, min_p=0.1, repetition_penalty=9.0)
    before = own.to_dict()
    with caplog.at_level(logging.WARNING):
        assert generate(tiny_model, tiny_tokenizer, CHATS, max_new_tokens=8, batch_size=3) == expected
    assert caplog.records == []
    assert tiny_model.generation_config is own
    assert own.to_dict() == before


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_leaves_the_model_and_the_tokenizer_as_they_were(tiny_model, tiny_tokenizer):
    tiny_model.train()
    tiny_model.lm_head.eval()
    tiny_model.config.use_cache = False
    tiny_model.gradient_checkpointing_enable()
    tiny_tokenizer.padding_side = "right"
    flags = [module.training for module in tiny_model.modules()]
    seen: list[bool] = []
    decoding: list[bool] = []
    tiny_model.register_forward_hook(lambda module, args, output: seen.append(output.past_key_values is not None))
    tiny_model.register_forward_pre_hook(lambda module, args: decoding.append(module.training))
    generate(tiny_model, tiny_tokenizer, CHATS, max_new_tokens=4, batch_size=3)
    assert not any(decoding), "dropout is off while decoding"
    assert all(seen), "decoding runs on the cache although the model is set up for training"
    assert [module.training for module in tiny_model.modules()] == flags
    assert tiny_model.config.use_cache is False
    assert tiny_tokenizer.padding_side == "right"


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_a_peft_model_answers_with_its_adapter(tiny_model, tiny_tokenizer):
    base = generate(tiny_model, tiny_tokenizer, CHATS, max_new_tokens=8, batch_size=3)
    own = tiny_model.generation_config
    own.update(do_sample=True, temperature=5.0)
    model = get_peft_model(tiny_model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    assert generate(model, tiny_tokenizer, CHATS, max_new_tokens=8, batch_size=2) == base, "a fresh adapter is zero"
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    assert generate(model, tiny_tokenizer, CHATS, max_new_tokens=8, batch_size=2) != base
    assert tiny_model.generation_config is own


def test_progress_counts_answered_prompts(tiny_model, tiny_tokenizer):
    counts: list[int] = []
    generate(tiny_model, tiny_tokenizer, CHATS, max_new_tokens=2, batch_size=4, progress=counts.append)
    assert counts == [4, 6]


def test_no_prompts_no_answers(tiny_model, tiny_tokenizer):
    assert generate(tiny_model, tiny_tokenizer, [], max_new_tokens=2, batch_size=4) == []


def test_a_chat_without_a_template_is_refused(tiny_model, tiny_tokenizer):
    tiny_tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        generate(tiny_model, tiny_tokenizer, CHATS, max_new_tokens=2, batch_size=4)


def test_an_empty_prompt_is_refused(tiny_model, tiny_tokenizer):
    with pytest.raises(ModelError, match="no tokens"):
        generate(tiny_model, tiny_tokenizer, ["a", ""], max_new_tokens=2, batch_size=4)


def test_a_model_without_an_end_token_is_refused(tiny_model, tiny_tokenizer):
    tiny_model.generation_config.eos_token_id = None
    tiny_tokenizer.eos_token = None
    with pytest.raises(ModelError, match="end-of-text"):
        generate(tiny_model, tiny_tokenizer, CHATS, max_new_tokens=2, batch_size=4)
