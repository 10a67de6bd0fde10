"""Stage 2's own method with what the trainer has to do for it: the gate, and the anchors."""

from antibody.names import DEFAULT_THRESHOLD
from antibody.objectives.weights import AntibodyWeights


def antibody_weights(
    *,
    score: str = "mean",
    tau: float = 1.0,
    average: str = "row",
    gate: str = "anchor",
    gate_threshold: float = DEFAULT_THRESHOLD,
    anchor_rows: int = 4,
    anchor_floor: float = 0.2,
    anchor_scale: float = 8.0,
    anchor_tolerance: float = 0.02,
) -> AntibodyWeights:
    """The objective of `antibody.objectives.weights`; gate ``off`` with average ``token`` is the published method.

    Args:
        score: ``mean`` (published code) or ``sum`` (the paper's text).
        tau: τ, the softmax's temperature. 1 is published.
        average: ``row`` or ``token``, of the weighed losses. Measured: docs/robustness-choices.md.
        gate: ``off``, ``mask`` or ``anchor``, see `antibody.objectives.gate`.
        gate_threshold: Probability of being benign below which a row is withheld.
        anchor_rows: Anchors of every step.
        anchor_floor: φ_0. Measured: docs/robustness-choices.md.
        anchor_scale: κ. Measured likewise.
        anchor_tolerance: D_0, nats a token. Measured likewise.
    """
    floor = anchor_floor if gate == "anchor" else None
    return AntibodyWeights(
        score=score,
        tau=tau,
        average=average,
        anchor_floor=floor,
        anchor_scale=anchor_scale,
        anchor_tolerance=anchor_tolerance,
    )
