"""Stage 1: leave the model where the harmful loss is flat (arXiv 2603.00498, section 4.1).

    θ'  = θ − ρ g_h / ‖g_h‖                          g_h = ∇L_harm(θ)
    g_s = g_h − g_p                                  g_p = ∇L_harm(θ')
    δ   = g_a + λ_t g_s + λ_refusal g_r              g_r = ∇L_refusal(θ'),  g_a = ∇L_align(θ)

λ_t is the multiplier of ``min ½‖δ − g_a‖²  s.t.  ⟨g_s, δ⟩ ≥ η‖g_s‖²``:

    kkt       λ_t = max(0, η − ⟨g_a, g_s⟩ / ‖g_s‖²)      Theorem 4.1
    cosine    λ_t = max(0, η − cos(g_a, g_s))            the published code
    constant  λ_t = η                                    with λ_refusal = 0 this is Booster, see `booster`

The perturbation is a constant: no second derivatives. Four forward and backward passes a step (three where λ_refusal
is 0), no copy of the model: at most two vectors of θ's size are kept next to ``.grad``.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from antibody.errors import UsageError
from antibody.objectives.gradients import Gradient, cosine, dot, restored, token_mean_gradient
from antibody.objectives.step import SEVERAL_PASSES, Situation, State, Step, StepResult


def kkt_rule(align_dot_sharpness: float, align_norm: float, sharpness_norm: float, eta: float) -> float:
    """Theorem 4.1. Without any sharpness the constraint holds by itself, and λ is 0."""
    return max(0.0, eta - align_dot_sharpness / sharpness_norm**2) if sharpness_norm > 0 else 0.0


def cosine_rule(align_dot_sharpness: float, align_norm: float, sharpness_norm: float, eta: float) -> float:
    """The published code. Two vectors of which one is zero have a cosine of 0."""
    return max(0.0, eta - cosine(align_dot_sharpness, align_norm, sharpness_norm))


def constant_rule(align_dot_sharpness: float, align_norm: float, sharpness_norm: float, eta: float) -> float:
    return eta


RULES: dict[str, Callable[[float, float, float, float], float]] = {
    "cosine": cosine_rule,
    "kkt": kkt_rule,
    "constant": constant_rule,
}


@contextmanager
def perturbed(parameters: Sequence[Tensor], direction: Gradient, radius: float) -> Iterator[float]:
    """Moves θ to ``θ − radius · direction / ‖direction‖`` and back, bitwise, whatever happens inside.

    Only the trainable parameters are saved. A direction of zero moves nothing. Gives ``‖direction‖``.
    """
    norm = math.sqrt(dot(direction, direction))
    with restored(parameters):
        with torch.no_grad():
            for parameter, component in zip(parameters, direction, strict=True):
                parameter.sub_(component, alpha=radius / norm if norm > 0 else 0.0)
        yield norm


# The published code's, for the rule that it has; it smooths no other.
MOMENTUM = {"cosine": 0.99, "kkt": 0.0, "constant": 0.0}


class AntibodyAlignment:
    """One alignment step. Defaults are the published ones.

    Args:
        rho: ρ, the radius of the simulated attack.
        eta: η, how much flatter a step must leave the harmful loss.
        lambda_refusal: λ_refusal, the weight of the refusal at the attacked parameters.
        rule: A key of `RULES`.
        momentum: Momentum of λ_t's exponential moving average, 0 for none; None is what `MOMENTUM` says. It starts at
            the first step's λ (ASSUMPTION: the paper does not say; from 0 it would take a hundred steps to reach η).
    """

    judges = False
    refuses: Mapping[Situation, str] = SEVERAL_PASSES

    def __init__(
        self,
        *,
        rho: float = 0.1,
        eta: float = 5.0,
        lambda_refusal: float = 0.05,
        rule: str = "cosine",
        momentum: float | None = None,
    ) -> None:
        if rule == "constant" and momentum:
            raise UsageError(
                f"rule='constant' has nothing to average with momentum={momentum}.",
                hint="Leave momentum unset, or use rule='cosine'.",
                code="conflict",
            )
        self.rho = rho
        self.eta = eta
        self.lambda_refusal = lambda_refusal
        self.rule = RULES[rule]
        self.momentum = MOMENTUM[rule] if momentum is None else momentum
        self.lambda_average: float | None = None
        self.batches = frozenset({"align", "harmful"} | ({"refusal"} if lambda_refusal else set()))

    def __call__(self, step: Step) -> StepResult:
        # 1. g_h = ∇L_harm(θ)
        g_h, loss_harmful = token_mean_gradient(step, step.micro_batches("harmful"))
        # 2. θ' = θ − ρ g_h / ‖g_h‖
        with perturbed(step.parameters, g_h, self.rho) as norm_h:
            # 3. g_p = ∇L_harm(θ')
            g_p, loss_perturbed = token_mean_gradient(step, step.micro_batches("harmful"))
            # In the memory of g_h
            g_s = [h.sub_(p) for h, p in zip(g_h, g_p, strict=True)]
            del g_h, g_p
            # 4. g_r = ∇L_refusal(θ')
            refused = token_mean_gradient(step, step.micro_batches("refusal")) if self.lambda_refusal else None
        # 5. Back at θ: g_a = ∇L_align(θ)
        g_a, loss_align = token_mean_gradient(step, step.micro_batches("align"))

        product, norm_a, norm_s = dot(g_a, g_s), math.sqrt(dot(g_a, g_a)), math.sqrt(dot(g_s, g_s))
        lambda_t = self._smoothed(self.rule(product, norm_a, norm_s, self.eta))

        # 6. δ = g_a + λ_t g_s + λ_refusal g_r
        for parameter, a, s in zip(step.parameters, g_a, g_s, strict=True):
            parameter.grad = a.add_(s, alpha=lambda_t)
        metrics = {
            "loss_align": loss_align,
            "loss_harmful": loss_harmful,
            "loss_harmful_perturbed": loss_perturbed,
            "lambda_t": lambda_t,
            "cosine": cosine(product, norm_a, norm_s),
            "grad_norm_align": norm_a,
            "grad_norm_harmful": norm_h,
            "grad_norm_sharpness": norm_s,
        }
        if refused is not None:
            g_r, loss_refusal = refused
            for a, r in zip(g_a, g_r, strict=True):
                a.add_(r, alpha=self.lambda_refusal)
            metrics |= {"loss_refusal": loss_refusal, "grad_norm_refusal": math.sqrt(dot(g_r, g_r))}
        return StepResult(loss=loss_align, metrics=metrics)

    def _smoothed(self, value: float) -> float:
        previous = value if self.lambda_average is None else self.lambda_average
        self.lambda_average = self.momentum * previous + (1 - self.momentum) * value
        return self.lambda_average

    def state_dict(self) -> State:
        return {"lambda_average": self.lambda_average}

    def load_state_dict(self, state: State) -> None:
        average = state["lambda_average"]
        assert not isinstance(average, list), "a number"
        self.lambda_average = average
