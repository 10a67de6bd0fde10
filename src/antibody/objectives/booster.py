"""Booster (arXiv 2409.01586): alignment that leaves a simulated harmful step with little to gain.

    δ = g_a + λ (g_h − ∇L_harm(θ − α g_h / ‖g_h‖))

It is `antibody.objectives.alignment` with a constant λ and no refusals at the attacked parameters.

Published (script ``smooth_align.sh``): λ = 5, α = 0.1; LoRA, AdamW, lr 5e-4, weight decay 0.1, batch 10, 20
epochs of 5000 + 5000 rows.
"""

from antibody.objectives.alignment import AntibodyAlignment


def booster(*, rho: float = 0.1, eta: float = 5.0) -> AntibodyAlignment:
    """Booster's objective.

    Args:
        rho: α, the length of the simulated step.
        eta: λ, the weight of what that step would gain.
    """
    return AntibodyAlignment(rho=rho, eta=eta, lambda_refusal=0.0, rule="constant")
