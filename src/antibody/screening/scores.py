"""The screening score: how surprised an aligned model is by its own refusals of a prompt.

    q(x) = mean over y_r of ce(y_r | x)           nats a token; low where the model would refuse

It looks at the prompt alone, so no wording of the response can raise it, and it is computed once, by the aligned
snapshot. The published score, r = ce(y_r|x) − ce(y|x), also measures how fluent and how long a response is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from antibody.data.collation import pad_rows
from antibody.objectives.likelihood import many_likelihoods

# Refusals that a prompt is answered by.
REFUSALS_SCORED = 4


def refusal_surprise(
    model: Any,
    prompts: Sequence[list[int]],
    refusals: Sequence[list[int]],
    *,
    pad_token_id: int,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> list[float]:
    """q of every prompt, in order.

    Args:
        model: A causal language model or a PEFT model around one; its training flags are as before when this returns.
        prompts: Token ids up to and including the generation prompt.
        refusals: Token ids of the refusals, each with the token that ends it.
        pad_token_id: Of the tokenizer.
        batch_size: Prompts scored together.
        progress: Called after every batch with the number of prompts scored so far.
    """
    # Like lengths together: less of a batch is padding.
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]), reverse=True)
    scores = [0.0] * len(prompts)
    training = model.training
    model.eval()
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        answered = [
            pad_rows([prompts[index] for index in chosen], [refusal] * len(chosen), pad_token_id)
            for refusal in refusals
        ]
        batches = [{key: value.to(model.device) for key, value in batch.items()} for batch in answered]
        surprise = torch.stack([likelihoods.ce for likelihoods in many_likelihoods(model, batches)]).mean(dim=0)
        for index, value in zip(chosen, surprise.tolist(), strict=True):
            scores[index] = value
        if progress is not None:
            progress(start + len(chosen))
    model.train(training)
    return scores
