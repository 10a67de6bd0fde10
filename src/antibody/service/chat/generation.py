"""One answer, token by token."""

from collections.abc import Callable
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from antibody.models.base import BaseModel
from antibody.service.chat.protocol import Question, Reply

# What a decoder writes for a character of which not all bytes have come yet.
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class UnanswerableError(Exception):
    """The chat cannot be put to the model."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class _Text(BaseStreamer):  # type: ignore[misc]
    """Turns tokens into text, and passes on what cannot change any more."""

    def __init__(self, tokenizer: Any, stop: list[str], say: Callable[[str], None]) -> None:
        self.tokenizer = tokenizer
        self.stop = stop
        self.say = say
        self.tokens: list[int] = []
        self.said = 0
        self.stopped = False
        self.prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if not self.prompt_seen:
            self.prompt_seen = True
            return
        self.tokens.extend(value.flatten().tolist())
        self._pass_on(last=False)

    def end(self) -> None:
        self._pass_on(last=True)

    def _pass_on(self, *, last: bool) -> None:
        if self.stopped:
            return
        text = self.tokenizer.decode(self.tokens, skip_special_tokens=True)
        found = [at for each in self.stop if (at := text.find(each)) >= 0]
        if found:
            self.stopped = True
            text = text[: min(found)]
        elif not last:
            text = text.rstrip(UNFINISHED)
            # The end of it may be the beginning of a text to stop at.
            text = text[: len(text) - max((_overlap(text, each) for each in self.stop), default=0)]
        if len(text) > self.said:
            self.say(text[self.said :])
            self.said = len(text)


class _Until(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, ended: Callable[[], bool]) -> None:
        self.ended = ended

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.ended(), device=input_ids.device)


def answer(loaded: BaseModel, question: Question, say: Callable[[str], None], cancelled: Callable[[], bool]) -> Reply:
    """Generates an answer, passing on its text as it comes, and returns its end.

    Raises:
        UnanswerableError: The chat does not suit the model.
    """
    ids = _prompt_ids(loaded.tokenizer, question)
    config = loaded.model.config.get_text_config()
    room = int(getattr(config, "max_position_embeddings", 2**31)) - len(ids)
    if room <= 0:
        raise UnanswerableError(
            f"The chat has {len(ids)} tokens, more than the model can read.", "context_length_exceeded"
        )
    text = _Text(loaded.tokenizer, question.stop, say)
    most = min(question.max_tokens, room)
    if question.temperature > 0:
        torch.manual_seed(question.seed if question.seed is not None else torch.seed())
    inputs = torch.tensor([ids], device=loaded.model.device)
    with torch.no_grad():
        loaded.model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            generation_config=_config(loaded, question, most),
            streamer=text,
            stopping_criteria=StoppingCriteriaList([_Until(lambda: text.stopped or cancelled())]),
        )
    cut = len(text.tokens) >= most and not text.stopped and text.tokens[-1] not in _ends(loaded)
    return Reply(
        question.id,
        finish_reason="length" if cut else "stop",
        prompt_tokens=len(ids),
        completion_tokens=len(text.tokens),
    )


def _config(loaded: BaseModel, question: Question, most: int) -> GenerationConfig:
    drawn = (
        {"do_sample": True, "temperature": question.temperature, "top_p": question.top_p, "top_k": 0}
        if question.temperature > 0
        else {"do_sample": False}
    )
    return GenerationConfig(
        max_new_tokens=most, eos_token_id=_ends(loaded), pad_token_id=loaded.tokenizer.pad_token_id, **drawn
    )


def _ends(loaded: BaseModel) -> list[int]:
    named = loaded.model.generation_config.eos_token_id
    listed = named if isinstance(named, list) else [named]
    return [token for token in dict.fromkeys([loaded.tokenizer.eos_token_id, *listed]) if token is not None]


def _prompt_ids(tokenizer: Any, question: Question) -> list[int]:
    if tokenizer.chat_template is None:
        raise UnanswerableError("The model has no chat template.", "no_chat_template")
    try:
        ids: list[int] = tokenizer.apply_chat_template(
            question.messages, add_generation_prompt=True, tokenize=True, return_dict=True
        )["input_ids"]
    except TemplateError as error:
        raise UnanswerableError(
            "The model's chat template refuses the order or the roles of these messages.", "invalid_messages"
        ) from error
    return ids


def _overlap(text: str, stop: str) -> int:
    """How many letters at the end of a text begin another."""
    return next((size for size in range(min(len(text), len(stop)), 0, -1) if text.endswith(stop[:size])), 0)
