"""RepNoise (arXiv 2405.14577): alignment that turns what the model knows of harmful responses into noise.

    L = L_align + β L_noise − α log(1 + L_harm)

    L_noise  mean over the layers of MMD²(H, N): a vector of H is a row's hidden states after the layer's feed-forward
             block, at the positions of its harmful response; one of N is Gaussian noise at the same positions
    L_harm   cross-entropy a token of the harmful responses, where the head reads them from each depth; their mean
    MMD²     mean over all pairs of k(h, h') + k(n, n') − k(h, n) − k(n, h'), by the kernel
             k(a, b) = Σ_{i=0..4} exp(−‖a − b‖² / (s 2^{i−2})), where s is the mean ‖a − b‖² of different rows

The retained L_align is that of the alignment rows. The kernel compares every pair of rows, so hidden states are first
read without gradient; a second pass then takes the loss's derivative by them to the parameters, micro-batch by
micro-batch. The published code adds the last depth's cross-entropy once more; here every depth counts once.

Published (the code's ``rep_noise_loss``): α = 1, β = 0.001. Booster's authors run it with α = 0.1 under LoRA
(``repNoise.sh``: lr 5e-4, weight decay 0.1, batch 5, 20 epochs). Its README: settings must be searched for anew.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from antibody.objectives.gradients import set_gradients, take_gradient, token_mean_gradient
from antibody.objectives.step import SEVERAL_PASSES, LayerStates, Situation, State, Step, StepResult

# Of the kernel: widths, and the factor between one and the next.
WIDTHS, FACTOR = 5, 2.0


class RepNoise:
    """One alignment step.

    Args:
        alpha: α, the weight of the ascent on the harmful loss.
        beta: β, the weight of the noise.
    """

    batches = frozenset({"align", "harmful"})
    judges = False
    refuses: Mapping[Situation, str] = {
        **SEVERAL_PASSES,
        "recomputed": "hidden states that are computed again in backward would be read twice",
        "sharded": "its head reads from every depth, and the head of a sharded model is gathered for the last alone",
        "processes": "it compares every pair of rows of a batch, and other processes' rows are not at hand",
    }

    def __init__(self, *, alpha: float = 1.0, beta: float = 0.001) -> None:
        self.alpha = alpha
        self.beta = beta
        self.steps = 0

    def __call__(self, step: Step) -> StepResult:
        pieces = step.micro_batches("harmful")
        # 1. H, L_noise and L_harm, without gradient
        with torch.no_grad():
            seen = [step.by_layer(batch) for batch in pieces]
        tokens = sum(states.likelihoods.tokens.sum().item() for states in seen)
        loss_harmful = sum(states.likelihoods.nll.sum().item() for states in seen) / tokens
        loss_noise, by_hidden = noise_gradients(seen, seed=self.steps)
        # 2. ∇(β L_noise − α log(1 + L_harm))
        ascent = self.alpha / (1 + loss_harmful) / tokens
        for batch, derivatives in zip(pieces, by_hidden, strict=True):
            states = step.by_layer(batch)
            noise = sum((h * d).sum() for h, d in zip(states.hidden, derivatives, strict=True))
            step.backward(self.beta * noise - ascent * states.likelihoods.nll.sum())
        g_harmful = take_gradient(step.parameters)
        # 3. δ = ∇L_align + that
        g_align, loss_align = token_mean_gradient(step, step.micro_batches("align"))
        set_gradients(step.parameters, [a.add_(h) for a, h in zip(g_align, g_harmful, strict=True)])
        self.steps += 1
        return StepResult(
            loss=loss_align,
            metrics={"loss_align": loss_align, "loss_noise": loss_noise, "loss_harmful_depths": loss_harmful},
        )

    def state_dict(self) -> State:
        return {"steps": self.steps}

    def load_state_dict(self, state: State) -> None:
        steps = state["steps"]
        assert isinstance(steps, int | float), "a number"
        self.steps = int(steps)


def noise_gradients(seen: Sequence[LayerStates], *, seed: int) -> tuple[float, list[list[Tensor]]]:
    """L_noise, and its derivative by the hidden states of every micro-batch and layer.

    The noise does not depend on how the rows are split: it is drawn in the order of the rows' positions, and rows with
    the same positions may change places without changing the distance.

    Args:
        seen: The micro-batches.
        seed: Of the noise.
    """
    width = max(states.answered.shape[1] for states in seen)
    answered = torch.cat([_widened(states.answered, width) for states in seen])
    layers = len(seen[0].hidden)
    loss, derivatives = 0.0, [[] for _ in seen]  # type: tuple[float, list[list[Tensor]]]
    for layer in range(layers):
        hidden = torch.cat([_widened(states.hidden[layer], width) for states in seen])
        precise = hidden.to(torch.promote_types(hidden.dtype, torch.float32)).requires_grad_()
        noise = drawn_noise(answered, precise, seed=seed * layers + layer)
        with torch.enable_grad():
            mask = answered.unsqueeze(-1).to(precise.dtype)
            distance = squared_mmd((precise * mask).flatten(1), noise.flatten(1)) / layers
        [gradient] = torch.autograd.grad(distance, precise)
        loss += distance.item()
        parts = torch.split(gradient, [len(states.answered) for states in seen])
        for states, part, found in zip(seen, parts, derivatives, strict=True):
            found.append(part[:, : states.answered.shape[1]].to(states.hidden[layer].dtype))
    return loss, derivatives


def drawn_noise(answered: Tensor, like: Tensor, *, seed: int) -> Tensor:
    """Standard Gaussian noise ``[B, T, H]`` where ``answered`` ``[B, T]`` is true, 0 elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.zeros(like.shape, dtype=like.dtype)
    places = [tuple(row.nonzero().flatten().tolist()) for row in answered.cpu()]
    for row in sorted(range(len(places)), key=places.__getitem__):
        count = len(places[row])
        noise[row, list(places[row])] = torch.randn(count, like.shape[-1], generator=generator, dtype=like.dtype)
    return noise.to(like.device)


def squared_mmd(first: Tensor, second: Tensor) -> Tensor:
    """MMD² of two sets of as many vectors, ``[B, D]`` each, by the kernel above."""
    rows = torch.cat([first, second])
    squares = rows.square().sum(dim=1)
    distances = (squares.unsqueeze(0) + squares.unsqueeze(1) - 2 * rows @ rows.T).clamp(min=0)
    count, half = len(rows), len(first)
    # The kernel's width is a constant, as published.
    mean = (distances.detach().sum() / (count * count - count)).clamp(min=torch.finfo(rows.dtype).tiny)
    widths = [mean * FACTOR ** (index - WIDTHS // 2) for index in range(WIDTHS)]
    kernel = sum((torch.exp(-distances / width) for width in widths), start=torch.zeros_like(distances))
    within = kernel[:half, :half] + kernel[half:, half:]
    across = kernel[:half, half:] + kernel[half:, :half]
    return (within - across).mean()


def _widened(rows: Tensor, width: int) -> Tensor:
    """``[B, T, ...]`` to ``[B, width, ...]``, filled with zeros."""
    after = (0, width - rows.shape[1])
    return functional.pad(rows, after if rows.dim() == 2 else (0, 0, *after))
