"""Batched greedy decoding of chat prompts. One answer a prompt, in the order they were asked."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from antibody.data.records import Message
from antibody.errors import ModelError
from antibody.objectives.likelihood import SHORTEST_SHARED_PREFIX, keeps_a_cache, prefix_cache


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[tuple[Message, ...] | str],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """Greedy answers to `prompts`, without special tokens and without outer whitespace.

    Prompts are batched by length and padded; what they all begin with, such as a system prompt, is computed once. In
    float32 an answer does not depend on what it is batched with; in bfloat16 two nearly equal logits may fall either
    way when the batch size changes.

    Args:
        model: A causal language model or a PEFT model around one. Its training flags, generation config and
            ``use_cache`` are as before when this returns.
        tokenizer: The model's tokenizer. Chats go through its chat template, plain strings are encoded as they are.
        prompts: Chats that end before the assistant's turn, or plain strings.
        max_new_tokens: Most tokens of an answer.
        batch_size: Prompts decoded together.
        progress: Called after every batch with the number of prompts answered so far.

    Raises:
        ModelError: The tokenizer has no chat template but a chat was given, a prompt has no tokens, or neither the
            model nor the tokenizer names an end-of-text token.
    """
    end_ids = _end_ids(model, tokenizer)
    pad_id = end_ids[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, use_cache=True, eos_token_id=end_ids, pad_token_id=pad_id
    )
    encoded = [_encode(tokenizer, prompt) for prompt in prompts]
    # The longest batch comes first: if memory is short, it fails at once and not after an hour.
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]), reverse=True)
    answers = [""] * len(encoded)
    with _greedy_mode(model, config):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            width = len(encoded[batch[0]])
            shared = _shared([encoded[i] for i in batch]) if keeps_a_cache(model) else 0
            # Padded by hand, so that the tokenizer's own padding side is neither needed nor touched.
            gaps = [width - len(encoded[i]) for i in batch]
            rows = [
                [*encoded[i][:shared], *[pad_id] * gap, *encoded[i][shared:]]
                for i, gap in zip(batch, gaps, strict=True)
            ]
            seen = [[1] * shared + [0] * gap + [1] * (width - shared - gap) for gap in gaps]
            input_ids = torch.tensor(rows).to(model.device)
            output = model.generate(
                input_ids=input_ids,
                attention_mask=torch.tensor(seen).to(model.device),
                past_key_values=prefix_cache(model, input_ids[:1, :shared], len(batch)) if shared else None,
                generation_config=config,
            )
            for index, tokens in zip(batch, output[:, width:].tolist(), strict=True):
                # Cut here, because a pad token that the tokenizer does not call special would survive decoding.
                length = next((at for at, token in enumerate(tokens) if token in end_ids), len(tokens))
                answers[index] = tokenizer.decode(tokens[:length], skip_special_tokens=True).strip()
            if progress is not None:
                progress(start + len(batch))
    return answers


def _shared(prompts: Sequence[list[int]]) -> int:
    """Number of leading tokens that all prompts share, leaving each its last one; 0 where it does not pay."""
    shortest = min(len(prompt) for prompt in prompts) - 1
    length = next((at for at in range(shortest) if len({prompt[at] for prompt in prompts}) > 1), shortest)
    return length if len(prompts) > 1 and length >= SHORTEST_SHARED_PREFIX else 0


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: tuple[Message, ...] | str) -> list[int]:
    if isinstance(prompt, str):
        ids: list[int] = tokenizer(prompt)["input_ids"]
    elif tokenizer.chat_template is None:
        raise ModelError(
            "The tokenizer has no chat template, so a chat cannot be put to this model.",
            hint="Use an instruction-tuned model, or give prompts as plain text.",
            code="no_chat_template",
        )
    else:
        ids = tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, tokenize=True, return_dict=True)[
            "input_ids"
        ]
    if not ids:
        raise ModelError(
            "A prompt has no tokens, so there is nothing to answer.",
            hint="Remove the empty prompt from the file.",
            code="empty_prompt",
        )
    return ids


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer: the tokenizer's and every one that the model names.

    The two often differ: a chat model may end a turn with one token and a document with another.
    """
    named = model.generation_config.eos_token_id
    listed = named if isinstance(named, list) else [named]
    end_ids = [token for token in dict.fromkeys([tokenizer.eos_token_id, *listed]) if token is not None]
    if not end_ids:
        raise ModelError(
            "Neither the model nor its tokenizer names an end-of-text token.",
            hint="Set `eos_token` in the tokenizer's configuration.",
            code="no_end_token",
        )
    return end_ids


@contextmanager
def _greedy_mode(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    """Evaluation mode, no gradients, and `config` alone in charge; everything is put back afterwards.

    `generate` fills what a config leaves open from the model's own one, so a model that ships with sampling options
    or a repetition penalty would otherwise not decode greedily.
    """
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    own_config = core.generation_config
    training = [module for module in model.modules() if module.training]
    # Only the last position of the prompts reaches the head, a view with gaps, for which torch copies the head's
    # weights once a row: 15 of 24 s for 60 answers of 32 tokens on one core (torch 2.13, SmolLM2-135M).
    head = model.get_output_embeddings().register_forward_pre_hook(_without_gaps)
    model.eval()
    core.generation_config = config
    try:
        with torch.no_grad():
            yield
    finally:
        head.remove()
        core.generation_config = own_config
        for module in training:
            module.training = True


def _without_gaps(_: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    hidden, *rest = arguments
    return (hidden.contiguous(), *rest)
