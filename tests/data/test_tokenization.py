"""What the model reads of a record, and what is refused.

The tokenizer has one token a byte, so lengths can be counted by hand: the chat of one user turn ``Hello?`` has the
prompt ``<|im_start|>user\\nHello?<|im_end|>\\n<|im_start|>assistant\\n`` of 1 + 5 + 6 + 1 + 1 + 1 + 10 = 25 tokens.
"""

from typing import Any

import pytest

from antibody.data.records import Record, chat_record
from antibody.data.tokenization import fitting, tokenize, tokenize_records
from antibody.errors import AntibodyError, DataError, ModelError

PROMPT = "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"


def greeting(response: str = "Hi.") -> Record:
    return chat_record("Hello?", response, id="row-7", line=7, source="rows.jsonl")


def plain(response: str = "Hi.") -> Record:
    return Record(prompt="Hello? ", response=response, id="row-7", line=7, source="rows.jsonl")


def code_of(kind: type[AntibodyError], record: Record, tokenizer: Any, max_length: int = 100) -> str:
    with pytest.raises(kind) as caught:
        tokenize(record, tokenizer, max_length=max_length)
    assert "rows.jsonl" in str(caught.value) or kind is ModelError
    if isinstance(caught.value, DataError):
        assert caught.value.line == 7
    return caught.value.code


def test_a_chat_is_split_after_the_generation_prompt_and_ends_with_the_turn(tiny_tokenizer: Any) -> None:
    prompt_ids, response_ids, truncated = tokenize(greeting(), tiny_tokenizer, max_length=100)
    assert tiny_tokenizer.decode(prompt_ids) == PROMPT
    assert tiny_tokenizer.decode(response_ids) == "Hi.<|im_end|>"
    assert not truncated
    asked = tiny_tokenizer.apply_chat_template(
        list(greeting().prompt), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert prompt_ids == asked


def test_earlier_turns_are_prompt(tiny_tokenizer: Any) -> None:
    first = greeting()
    later = Record(
        prompt=(
            *first.prompt,
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": "Bye."},
        ),
        response="Bye!",
        id="row-7#2",
        line=7,
    )
    tokens = tokenize(later, tiny_tokenizer, max_length=100)
    assert tiny_tokenizer.decode(tokens.prompt_ids).count("<|im_end|>") == 3
    assert tiny_tokenizer.decode(tokens.response_ids) == "Bye!<|im_end|>"


def test_a_response_that_shares_a_token_with_the_prompt_keeps_the_prompt_whole(tiny_tokenizer: Any) -> None:
    """``assistant\\n`` and ``\\nHi.`` would join their line breaks to one token, which no generation begins with."""
    tokens = tokenize(greeting("\nHi."), tiny_tokenizer, max_length=100)
    assert tokens.prompt_ids == tokenize(greeting(), tiny_tokenizer, max_length=100).prompt_ids
    assert tiny_tokenizer.decode(tokens.response_ids) == "\nHi.<|im_end|>"


def test_a_plain_record_gets_no_template(tiny_tokenizer: Any) -> None:
    tokens = tokenize(plain(), tiny_tokenizer, max_length=100)
    assert tiny_tokenizer.decode(tokens.prompt_ids) == "Hello? "
    assert tokens.prompt_ids == tiny_tokenizer("Hello? ").input_ids
    assert tokens.response_ids == [
        *tiny_tokenizer("Hi.", add_special_tokens=False).input_ids,
        tiny_tokenizer.eos_token_id,
    ]


def test_a_long_response_is_cut_and_says_so(tiny_tokenizer: Any) -> None:
    assert not tokenize(greeting(), tiny_tokenizer, max_length=29).truncated
    tokens = tokenize(greeting(), tiny_tokenizer, max_length=28)
    assert tokens.truncated
    assert tiny_tokenizer.decode(tokens.response_ids) == "Hi."
    assert tiny_tokenizer.decode(tokenize(greeting(), tiny_tokenizer, max_length=26).response_ids) == "H"


def test_a_prompt_that_fills_the_context_is_refused(tiny_tokenizer: Any) -> None:
    assert code_of(DataError, greeting(), tiny_tokenizer, 25) == "prompt_fills_context"
    with pytest.raises(DataError, match=r"rows.jsonl, line 7: .* 25 tokens .* in 20\. Raise --max-length above 25"):
        tokenize(greeting(), tiny_tokenizer, max_length=20)


@pytest.mark.parametrize("response", ["", " \n", "<|im_end|>", "<|im_end|> <|pad|>"])
def test_a_response_of_nothing_is_refused(tiny_tokenizer: Any, response: str) -> None:
    assert code_of(DataError, greeting(response), tiny_tokenizer) == "empty_response"
    assert code_of(DataError, plain(response), tiny_tokenizer) == "empty_response"


def test_a_response_of_which_nothing_fits_is_refused(tiny_tokenizer: Any) -> None:
    assert code_of(DataError, greeting("  Hi."), tiny_tokenizer, 27) == "response_truncated_to_nothing"
    assert tokenize(greeting("  Hi."), tiny_tokenizer, max_length=28).truncated


def test_chats_need_a_template(tiny_tokenizer: Any) -> None:
    tiny_tokenizer.chat_template = None
    assert code_of(ModelError, greeting(), tiny_tokenizer) == "no_chat_template"
    tokenize(plain(), tiny_tokenizer, max_length=100)


def test_plain_records_need_an_end(tiny_tokenizer: Any) -> None:
    tiny_tokenizer.eos_token = None
    assert code_of(ModelError, plain(), tiny_tokenizer) == "no_eos_token"


def test_a_template_that_rewrites_the_prompt_is_refused(tiny_tokenizer: Any) -> None:
    tiny_tokenizer.chat_template = tiny_tokenizer.chat_template.replace("assistant\n", "assistant\n<think>\n")
    assert code_of(ModelError, greeting(), tiny_tokenizer) == "template_not_prefix"


def test_a_chat_that_the_template_refuses_is_named(tiny_tokenizer: Any) -> None:
    tiny_tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    assert code_of(DataError, greeting(), tiny_tokenizer) == "template_refused"


def test_an_end_token_inside_the_response_does_not_end_it(tiny_tokenizer: Any) -> None:
    tokens = tokenize(greeting("No.<|im_end|> Yes."), tiny_tokenizer, max_length=100)
    assert tiny_tokenizer.decode(tokens.response_ids) == "No.<|im_end|> Yes.<|im_end|>"


def test_a_template_without_the_end_token_keeps_what_it_writes(tiny_tokenizer: Any) -> None:
    tiny_tokenizer.chat_template = tiny_tokenizer.chat_template.replace("<|im_end|>", "</turn>")
    tokens = tokenize(greeting(), tiny_tokenizer, max_length=100)
    assert tiny_tokenizer.decode(tokens.response_ids) == "Hi.</turn>\n"


def test_many_records_are_as_one_by_one_and_share_no_list(tiny_tokenizer: Any) -> None:
    records = [greeting(), plain(), greeting("\nHi."), greeting(), plain(), greeting("A long answer indeed.")]
    together = tokenize_records(records, tiny_tokenizer, 35)
    assert together == [tokenize(record, tiny_tokenizer, max_length=35) for record in records]
    lists = [ids for tokens in together for ids in (tokens.prompt_ids, tokens.response_ids)]
    assert len({id(each) for each in lists}) == len(lists)
    assert tokenize_records([], tiny_tokenizer, 35) == []


def test_records_that_fit_are_kept_in_order(tiny_tokenizer: Any) -> None:
    records = [greeting(), greeting("  Hi."), plain()]
    assert fitting(records, tiny_tokenizer, 27) == [greeting(), plain()]
    assert fitting(records, tiny_tokenizer, 28) == records
    with pytest.raises(DataError):
        fitting([greeting("")], tiny_tokenizer, 28)


def test_a_text_that_comes_again_is_tokenised_once(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    call = type(tiny_tokenizer).__call__

    def counted(self: Any, texts: list[str], **options: Any) -> Any:
        seen.extend(texts)
        return call(self, texts, **options)

    monkeypatch.setattr(type(tiny_tokenizer), "__call__", counted)
    tokenize_records([greeting(), greeting(), greeting("Ho.")], tiny_tokenizer, 100)
    assert len(seen) == len(set(seen)) == 3
