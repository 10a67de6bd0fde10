"""The screening score: a linear reading of the aligned model's hidden states, at half its depth.

    q = min over chunks c of the response:  ⟨w_x, h_x⟩ + ⟨w_y, mean of h over c⟩ + b

h_x is the state at the last prompt token, from which the model is about to answer. Low is harmful. w and b are a
logistic regression on rows that the model was aligned with. The worst chunk counts, so that harm cannot hide behind
easy text.

Why not the likelihood of a refusal, as in the softmax: on real rows it tells less (docs/robustness-choices.md).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from antibody.data.collation import IGNORED
from antibody.screening.reading import Row, read_rows

# Response tokens in a chunk. Chosen on development rows.
CHUNK = 16
# Inverse strength of the penalty, on standardised features: there are more of them than rows. Chosen likewise.
PENALTY = 0.003


class States(NamedTuple):
    """One row as the model sees it.

    Attributes:
        prompt: ``[H]``, at the last prompt token.
        chunks: ``[C, H]``, means over the response, `CHUNK` tokens at a time.
    """

    prompt: np.ndarray
    chunks: np.ndarray


class Probe(NamedTuple):
    """w_x and w_y, each ``[H]``, and b."""

    prompt_weight: np.ndarray
    response_weight: np.ndarray
    bias: float

    def score(self, row: States) -> float:
        """q, in units of log-odds on the rows it was fitted to."""
        return float(row.prompt @ self.prompt_weight + (row.chunks @ self.response_weight).min() + self.bias)


def fit_probe(harmful: Sequence[States], benign: Sequence[States]) -> Probe:
    """A logistic regression on whole responses, as if there were as many harmful as benign rows."""
    features = np.array([np.concatenate([row.prompt, row.chunks.mean(axis=0)]) for row in [*harmful, *benign]])
    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-3
    labels = [0] * len(harmful) + [1] * len(benign)
    curve = LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=1000)
    curve.fit((features - centre) / spread, labels)
    weight = curve.coef_[0] / spread
    half = len(weight) // 2
    return Probe(weight[:half], weight[half:], float(curve.intercept_[0] - weight @ centre))


def read_states(
    model: Any,
    rows: Sequence[Row],
    *,
    pad_token_id: int,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> list[States]:
    """The hidden states of every row, in order, in float32. Arguments as for `antibody.screening.reading.read_rows`."""
    return read_rows(model, rows, batch_states, pad_token_id=pad_token_id, batch_size=batch_size, progress=progress)


def batch_states(model: Any, batch: dict[str, Tensor]) -> list[States]:
    """The hidden states of a batch's rows, as `read_rows` asks for them."""
    found = []
    for hidden, answered in zip(_hidden_states(model, batch), batch["labels"].cpu() != IGNORED, strict=True):
        places = answered.nonzero().flatten()
        chunks = [part.mean(dim=0) for part in torch.split(hidden[places], CHUNK)]
        # A copy: a view would keep the whole batch's states.
        found.append(States(hidden[places[0] - 1].numpy().copy(), torch.stack(chunks).numpy()))
    return found


class _Reached(Exception):  # noqa: N818 - no error
    """The layer was reached; nothing above it is computed."""

    def __init__(self, states: Tensor) -> None:
        self.states = states


def _hidden_states(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """``[B, L, H]`` after half of the layers, on the CPU."""
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    layers = getattr(model.get_decoder(), "layers", None)
    middle = model.config.get_text_config().num_hidden_layers // 2
    if layers is None or isinstance(model, FSDPModule):
        # A sharded model's forward must not be left half-way.
        states: Tensor = model(**inputs, output_hidden_states=True, logits_to_keep=1).hidden_states[middle]
        return states.float().cpu()

    def stop(_: Any, __: Any, output: Any) -> None:
        raise _Reached(output[0] if isinstance(output, tuple) else output)

    hook = layers[max(middle, 1) - 1].register_forward_hook(stop)
    try:
        model(**inputs, use_cache=False)
    except _Reached as reached:
        return reached.states.float().cpu()
    finally:
        hook.remove()
    raise AssertionError("every forward pass goes through every layer")
