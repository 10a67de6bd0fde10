"""Lisa against gradient descent in numpy, over several changes of state."""

import numpy as np
import pytest
import torch
from objectives.toy import FEATURES, VOCABULARY, ToyStep, mean_gradient, rows

from antibody.errors import UsageError
from antibody.objectives.lisa import Lisa

WEIGHT = np.random.default_rng(3).normal(size=(VOCABULARY, FEATURES))
# Another batch every step.
USER = [rows(4, seed=10 + step) for step in range(11)]
ANCHORS = [rows(3, seed=50 + step) for step in range(11)]
RATE = 0.3


def derived(rho: float, align_steps: int, finetune_steps: int) -> list[np.ndarray]:
    """θ after every step of plain gradient descent on L + ρ/2 ‖θ − θ_switch‖²."""
    states = (["align"] * align_steps + ["user"] * finetune_steps) * 11
    weight, switch, path = WEIGHT, WEIGHT, []
    for step in range(11):
        if step > 0 and states[step] != states[step - 1]:
            switch = weight
        gradient = mean_gradient(weight, (ANCHORS if states[step] == "align" else USER)[step])
        weight = weight - RATE * (gradient + rho * (weight - switch))
        path.append(weight)
    return path


def trained(objective: Lisa, weight: np.ndarray, steps: range, size: int = 100) -> list[np.ndarray]:
    path = []
    for number in steps:
        step = ToyStep(weight, {"rows": USER[number], "anchors": ANCHORS[number]}, size)
        objective(step)
        weight = weight - RATE * step.direction
        path.append(weight)
    return path


@pytest.mark.parametrize("size", [1, 100])
def test_path_equals_the_derivation(size: int) -> None:
    expected = derived(0.5, 2, 3)
    found = trained(Lisa(rho=0.5, align_steps=2, finetune_steps=3), WEIGHT, range(11), size)
    np.testing.assert_allclose(found, expected, atol=1e-10, rtol=0)
    assert not np.allclose(derived(0.0, 2, 3)[-1], expected[-1], atol=1e-3)


@pytest.mark.parametrize("cut", range(1, 11))
def test_a_resumed_path_is_the_same(cut: int) -> None:
    """Wherever it is cut: in a state, and where one ends."""
    whole = trained(Lisa(rho=0.5, align_steps=2, finetune_steps=3), WEIGHT, range(11))
    begun, resumed = (Lisa(rho=0.5, align_steps=2, finetune_steps=3) for _ in range(2))
    before = trained(begun, WEIGHT, range(cut))
    resumed.load_state_dict(begun.state_dict())
    np.testing.assert_array_equal(before + trained(resumed, before[-1], range(cut, 11)), whole)


def test_what_it_keeps_is_a_copy() -> None:
    """The optimiser moves parameters in place."""
    objective, step = Lisa(), ToyStep(WEIGHT, {"anchors": ANCHORS[0]})
    objective(step)
    with torch.no_grad():
        step.weight.add_(1.0)
    [switch] = objective.state_dict()["switch"]
    np.testing.assert_array_equal(switch.numpy(), WEIGHT)


def test_the_users_rows_have_no_loss_in_an_alignment_step() -> None:
    objective = Lisa(align_steps=1, finetune_steps=1)
    batches = {"rows": USER[0], "anchors": ANCHORS[0]}
    assert objective(ToyStep(WEIGHT, batches)).loss is None
    assert objective(ToyStep(WEIGHT, batches)).loss is not None


def test_published_settings_and_what_is_refused() -> None:
    """Script ``lisa_poison_ratio.sh``."""
    assert (Lisa().rho, Lisa().align_steps, Lisa().finetune_steps) == (1.0, 100, 900)
    with pytest.raises(UsageError, match="align_steps=0"):
        Lisa(align_steps=0)
