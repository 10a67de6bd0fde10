"""From a record to token ids: what the model reads, and what its loss or score is taken over.

Prompt and response are told apart by the chat template itself: the response is what the template writes after the
generation prompt, up to the token that ends the turn. So training sees exactly what generation will.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jinja2 import TemplateError

from antibody.data.records import Message, Record
from antibody.errors import DataError, ModelError

TOO_LONG = ("prompt_fills_context", "response_truncated_to_nothing")


class Tokens(NamedTuple):
    """A tokenised record.

    Attributes:
        prompt_ids: Up to and including the generation prompt.
        response_ids: The answer and the token that ends it (unless truncated).
        truncated: Whether the end of the response was cut to fit the context.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    truncated: bool


class _Texts(NamedTuple):
    """Prompt and response as the tokenizer will read them.

    Attributes:
        prompt: With its generation prompt.
        response: With what the template adds, or the bare response where there is no template.
        templated: Whether the special tokens are already in the texts.
    """

    prompt: str
    response: str
    templated: bool


def tokenize(record: Record, tokenizer: Any, *, max_length: int) -> Tokens:
    """Tokenise one record.

    Args:
        record: A chat, or a plain prompt that gets no template.
        tokenizer: A `transformers` tokenizer.
        max_length: Most tokens of prompt and response together; a longer response is cut.

    Raises:
        DataError: ``prompt_fills_context``, ``empty_response``, ``response_truncated_to_nothing`` or
            ``template_refused``; names the record's file and line.
        ModelError: ``no_chat_template``, ``template_not_prefix`` or ``no_eos_token``.
    """
    return tokenize_records([record], tokenizer, max_length)[0]


def tokenize_records(records: Sequence[Record], tokenizer: Any, max_length: int) -> list[Tokens]:
    """Tokenise many records, in order; a text that comes again (a prompt, a refusal) is tokenised once.

    Raises:
        DataError: As `tokenize`.
        ModelError: As `tokenize`.
    """
    ids = _exchange_ids([(record, _texts(record, record.response, tokenizer)) for record in records], tokenizer)
    return [
        _fit(record, prompt_ids, response_ids, tokenizer, max_length)
        for record, (prompt_ids, response_ids) in zip(records, ids, strict=True)
    ]


def fitting(records: Sequence[Record], tokenizer: Any, max_length: int) -> list[Record]:
    """The records that are not too long for `tokenize`, in order.

    Raises:
        DataError, ModelError: As `tokenize`, of whatever else is wrong with one.
    """

    def fits(record: Record) -> bool:
        try:
            tokenize(record, tokenizer, max_length=max_length)
        except DataError as error:
            if error.code not in TOO_LONG:
                raise
            return False
        return True

    return [record for record in records if fits(record)]


def _texts(record: Record, response: str, tokenizer: Any) -> _Texts:
    if isinstance(record.prompt, str):
        if tokenizer.eos_token_id is None:
            raise ModelError(
                "The tokenizer has no end-of-sequence token, so a plain response would never end.",
                hint="Set `eos_token` on the tokenizer.",
                code="no_eos_token",
            )
        return _Texts(record.prompt, response, templated=False)
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(
            "The tokenizer has no chat template, and the data are chats.",
            hint="Use an instruction-tuned model, or set `chat_template` on the tokenizer.",
            code="no_chat_template",
        )
    prompt = _render(record, record.prompt, tokenizer, add_generation_prompt=True)
    answer = Message(role="assistant", content=response)
    full = _render(record, (*record.prompt, answer), tokenizer, add_generation_prompt=False)
    if not full.startswith(prompt):
        raise ModelError(
            "The chat template does not continue its generation prompt when an answer is added, so the answer's "
            f"tokens cannot be told from the prompt's (first seen at {record.source}, line {record.line}).",
            hint="Use a template whose prompt is a prefix of the whole chat.",
            code="template_not_prefix",
        )
    return _Texts(prompt, full.removeprefix(prompt), templated=True)


def _render(record: Record, turns: Sequence[Message], tokenizer: Any, *, add_generation_prompt: bool) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=add_generation_prompt)
        )
    except TemplateError as error:
        raise _refuse(
            record,
            "template_refused",
            f"The model's chat template refuses this chat: {str(error)[:200]}.",
            "Change the order or the roles of its turns.",
        ) from error


def _exchange_ids(exchanges: Sequence[tuple[Record, _Texts]], tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """Prompt and response ids of each exchange."""
    templated = [texts for _, texts in exchanges if texts.templated]
    plain = [texts for _, texts in exchanges if not texts.templated]
    joined = _encode([part for each in templated for part in (each.prompt, each.prompt + each.response)], tokenizer)
    alone = _encode([each.response for each in plain], tokenizer)
    prompts = _encode([each.prompt for each in plain], tokenizer, add_special_tokens=True)

    def ids(texts: _Texts) -> tuple[list[int], list[int]]:
        if not texts.templated:
            return prompts[texts.prompt], [*alone[texts.response], tokenizer.eos_token_id]
        prompt_ids, full_ids = joined[texts.prompt], joined[texts.prompt + texts.response]
        if full_ids[: len(prompt_ids)] == prompt_ids:
            response_ids = full_ids[len(prompt_ids) :]
        else:
            # A response that begins with white space can share a token with the end of the generation prompt.
            # The model generates after the whole prompt, so the response is tokenised by itself.
            response_ids = _encode([texts.response], tokenizer)[texts.response]
        return prompt_ids, _up_to_last(tokenizer.eos_token_id, response_ids)

    found = []
    for record, texts in exchanges:
        prompt_ids, response_ids = ids(texts)
        if _says_nothing(response_ids, tokenizer):
            raise _refuse(
                record,
                "empty_response",
                "Nothing is left of the response after the chat template.",
                "Write an answer that is more than white space and special tokens.",
            )
        # Copies, so that no two records share a list.
        found.append((list(prompt_ids), response_ids))
    return found


def _encode(texts: Iterable[str], tokenizer: Any, *, add_special_tokens: bool = False) -> dict[str, list[int]]:
    unique = list(dict.fromkeys(texts))
    if not unique:
        return {}
    encoded = tokenizer(unique, add_special_tokens=add_special_tokens, return_attention_mask=False, verbose=False)
    return dict(zip(unique, encoded["input_ids"], strict=True))


def _fit(record: Record, prompt_ids: list[int], response_ids: list[int], tokenizer: Any, max_length: int) -> Tokens:
    room = max_length - len(prompt_ids)
    if room <= 0:
        raise _refuse(
            record,
            "prompt_fills_context",
            f"The prompt has {len(prompt_ids)} tokens and leaves no room for a response in {max_length}.",
            f"Raise --max-length above {len(prompt_ids)} or shorten the prompt.",
        )
    if len(response_ids) <= room:
        return Tokens(prompt_ids, response_ids, truncated=False)
    if _says_nothing(response_ids[:room], tokenizer):
        raise _refuse(
            record,
            "response_truncated_to_nothing",
            f"The prompt has {len(prompt_ids)} of {max_length} tokens, and what fits of the response says nothing.",
            f"Raise --max-length to {len(prompt_ids) + len(response_ids)} or shorten the prompt.",
        )
    return Tokens(prompt_ids, response_ids[:room], truncated=True)


def _up_to_last(token: int | None, ids: list[int]) -> list[int]:
    """Without what the template writes after the end of the turn, such as a newline."""
    if token is None or token not in ids:
        return list(ids)
    return ids[: len(ids) - ids[::-1].index(token)]


def _says_nothing(ids: list[int], tokenizer: Any) -> bool:
    # An unknown word is a word, although tokenizers call its token special.
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return not tokenizer.decode([id for id in ids if id not in special]).strip()


def _refuse(record: Record, code: str, message: str, hint: str) -> DataError:
    return DataError(message, hint=hint, code=code, path=record.source, line=record.line)
