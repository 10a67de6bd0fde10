"""The gate: an absolute judgement of each row next to the batch's relative one.

    p_i = σ((q_i − q_0) / s)                how likely row i is benign, if as many rows are harmful as benign;
                                            q_i is its score under the aligned snapshot
    h_i = π (1 − p_i) / (π (1 − p_i) + (1 − π) p_i)       how likely it is harmful among the rows of its upload,
    π   = (1 + Σ_i h_i) / (2 + n)                         of whose n rows a share π is harmful
    row i is kept        iff  1 − h_i ≥ threshold
    φ = max(φ_0, 1 − kept / rows)           the anchors' share of the step; φ_0 ≥ the upload's withheld share
    D_j = Σ_t KL(π_aligned(· | x_j, y_j<t) ‖ π(· | x_j, y_j<t)) / N_j           how far anchor j has drifted
    δ = (1 − φ) g_user + φ κ g_anchor       g_anchor = ∇ of D, the mean of D_j over the step's anchors
    D̄ ← m D̄ + (1 − m) D                     the drift of the last few steps; at first D̄ = D
    s = min(1, D_0 / D̄)                     how much of the optimiser's step is taken; D_0 is the tolerance

A softmax over a batch always sums to one: alone, it trains on the least harmful rows of a harmful batch, and Adam
undoes any shrinking of what is left. So the gate acts on the direction: what it withholds of a batch, anchors get,
which are rows of the provider's own alignment data. The floor φ_0 is against drift, which benign rows cause as well.
Anchors pull towards what the aligned model said of them, not towards their labels: where nothing has drifted they are
silent, and the model neither refuses more nor less than it was aligned to. π_aligned is read once, before training
(`antibody.objectives.likelihood.divergence` says how much of it). A batch with nothing kept is no step at all.

Under Adam a gradient's length says little about a step's, and the learning rate much: at a large one, four times κ left
the drift as it was (docs/robustness-choices.md). So where the model drifts, steps are shortened.

The snapshot's score is computed once, before training, so that no drift during the run can reach it.

π is found by expectation maximisation (Saerens, Latinne and Decaestecker 2002, equation 2.9), as if one harmful and one
benign row had been seen before. A doubtful row is let pass in a clean upload and withheld in a harmful one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Of the expectation maximisation; a share this close to the last one is as good.
MOST_ITERATIONS, TOLERANCE = 10_000, 1e-9


class Calibration(NamedTuple):
    """A logistic curve through the scores of held-out rows.

    Attributes:
        decision_point: q_0, the score at which a row is as likely benign as harmful.
        scale: s > 0, the score's distance over which the odds change by a factor of e.
    """

    decision_point: float
    scale: float

    def benign_probability(self, scores: Tensor) -> Tensor:
        """``[B]``, p_i, from scores ``[B]``."""
        return torch.sigmoid((scores - self.decision_point) / self.scale)


def anchor_share(kept: float, rows: float, floor: float) -> float:
    """φ, of a batch with ``kept`` of ``rows`` rows, in [0, 1]."""
    return max(floor, 1 - kept / rows)


def step_scale(drift: float, tolerance: float) -> float:
    """s in (0, 1], of a mean drift D̄ and a tolerance D_0 > 0, both in nats a token; 1 up to the tolerance."""
    return 1.0 if drift <= tolerance else tolerance / drift


def among_upload(probabilities: Tensor) -> Tensor:
    """``[n]``, 1 − h_i: how likely each row is benign, given the rows it was uploaded with.

    Args:
        probabilities: ``[n]``, p_i of every row of the upload, float64.
    """
    share = 0.5
    for _ in range(MOST_ITERATIONS):
        harmful = share * (1 - probabilities)
        harmful = harmful / (harmful + (1 - share) * probabilities)
        previous, share = share, (1 + harmful.sum().item()) / (2 + len(probabilities))
        if abs(share - previous) < TOLERANCE:
            break
    return 1 - harmful
