"""The least time a step can take on a device: the arithmetic that the mathematics needs, over a measured matmul rate.

Every distinct position is computed once: positions that share all their tokens so far, as rows with one system prompt
do, have the same hidden states as long as the parameters are the same. With n positions at depths d (how many
positions each attends to), s of them scored by the LM head, and the weights of the linear layers W, the adapter A and
the head H, in multiplications and additions:

    forward   2 (W + A) n + 4 a Σd + 2 H s         a = layers × heads × head size
    backward  2 W n + 4 A n + 8 a Σd + 2 H s       frozen weights need no gradient

    SFT                  forward and backward of the rows
    Antibody, stage 2    the same, and a forward pass of the refusals' own positions
    Antibody, stage 1    at θ: one forward of harmful and alignment rows, a backward of each
                         at θ': one forward of harmful rows and refusals, a backward of each

Norms, rotations, the optimiser and the memory's bandwidth are free here, so nothing reaches the floor.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

Row = Mapping[str, Any]


class Weights(NamedTuple):
    """Numbers of weights, and the attention's width ``a``."""

    linear: int
    adapter: int
    head: int
    attention: int


class Positions(NamedTuple):
    """Distinct positions, the sum of what they attend to, and scored positions."""

    number: int
    depth: int
    scored: int


def weights_of(model: Any) -> Weights:
    """The weights that a position is multiplied by, from the model's modules and config."""
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Weights(
        linear=sum(m.weight.numel() for m in linear if not m.weight.requires_grad),
        adapter=sum(m.weight.numel() for m in linear if m.weight.requires_grad),
        head=head.weight.numel(),
        attention=config.num_hidden_layers * heads * size,
    )


def positions(rows: Iterable[Row], responses: Sequence[str]) -> Positions:
    """The distinct positions of prompts with one or more responses each. A row's last token predicts nothing."""
    trie: dict[tuple[int, int], int] = {}
    depth = scored = 0
    for row in rows:
        for name in responses:
            response, node = row[name], 0
            scored += len(response)
            for place, token in enumerate((row["prompt_ids"] + response)[:-1]):
                if (node, token) not in trie:
                    trie[node, token] = len(trie) + 1
                    depth += place + 1
                node = trie[node, token]
    return Positions(len(trie), depth, scored)


def forward(weights: Weights, at: Positions) -> float:
    """Floating-point operations of a forward pass."""
    body = 2 * (weights.linear + weights.adapter) * at.number
    return body + 4 * weights.attention * at.depth + 2 * weights.head * at.scored


def backward(weights: Weights, at: Positions) -> float:
    """Floating-point operations of a backward pass to the adapter."""
    body = (2 * weights.linear + 4 * weights.adapter) * at.number
    return body + 8 * weights.attention * at.depth + 2 * weights.head * at.scored


def step_flops(weights: Weights, rows: Sequence[Row], harmful: Sequence[Row] | None, *, defended: bool) -> float:
    """Floating-point operations of one step.

    Args:
        weights: Of the model.
        rows: The step's rows.
        harmful: The rows of ``D_harm`` in the alignment stage; else None.
        defended: Antibody's step, and not plain SFT on the rows.
    """
    answered = positions(rows, ["response_ids"])
    if not defended:
        return forward(weights, answered) + backward(weights, answered)
    if harmful is None:
        both = positions(rows, ["response_ids", "refusal_ids"])
        return forward(weights, both) + backward(weights, answered)
    attack, refused = positions(harmful, ["response_ids"]), positions(harmful, ["refusal_ids"])
    at_theta = forward(weights, positions([*rows, *harmful], ["response_ids"]))
    at_attacked = forward(weights, positions(harmful, ["response_ids", "refusal_ids"]))
    back = 2 * backward(weights, attack) + backward(weights, refused) + backward(weights, answered)
    return at_theta + at_attacked + back


def matmul_rate(model: Any, synchronize: Callable[[], None], *, seconds: float = 0.2) -> float:
    """Floating-point operations a second in the model's dtype, the best of two shapes: its own layers', and a square.

    Args:
        model: Whose dtype, device and shapes are used.
        synchronize: Waits for the device.
        seconds: How long each shape is repeated; the fastest repetition counts.
    """
    config = model.config.get_text_config()
    tokens, square = 1024, 1024
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    shapes = [(tokens, config.hidden_size, inner), (square, square, square)]
    return max(_rate(*shape, model.dtype, model.device, synchronize, seconds) for shape in shapes)


def _rate(
    m: int, k: int, n: int, dtype: torch.dtype, device: torch.device, synchronize: Callable[[], None], seconds: float
) -> float:
    a, b = torch.randn(m, k, dtype=dtype, device=device), torch.randn(k, n, dtype=dtype, device=device)
    fastest, began = float("inf"), time.perf_counter()
    # On an accelerator one launch costs more than one product, so several are timed together.
    repeats = 1 if device.type == "cpu" else 100
    with torch.no_grad():
        while time.perf_counter() - began < seconds:
            synchronize()
            started = time.perf_counter()
            for _ in range(repeats):
                torch.mm(a, b)
            synchronize()
            fastest = min(fastest, (time.perf_counter() - started) / repeats)
    return 2 * m * k * n / fastest
