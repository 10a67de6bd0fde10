"""The probe on planted directions, and the states it reads on a tiny model."""

from typing import Any

import numpy as np
import pytest
import torch

from antibody.screening.probe import CHUNK, Probe, States, fit_probe, read_states

ROWS = [
    (list(range(5, 5 + prompt)), list(range(40, 40 + response)))
    for prompt, response in [(3, 1), (9, 40), (1, CHUNK), (6, CHUNK + 1), (4, 2)]
]


def planted(count: int, shift: float, seed: int) -> list[States]:
    """Noise, with a shift along one axis of the response."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        chunks = random.normal(size=(1 + seed % 2, 8))
        chunks[:, 2] += shift
        rows.append(States(random.normal(size=8), chunks))
    return rows


def test_the_probe_finds_the_planted_direction() -> None:
    probe = fit_probe(planted(80, -3.0, seed=0), planted(300, 3.0, seed=1))
    assert np.abs(probe.response_weight).argmax() == 2
    assert np.abs(probe.prompt_weight).max() < np.abs(probe.response_weight[2]) / 3
    harmful, benign = ([probe.score(row) for row in planted(50, shift, seed=2)] for shift in (-3.0, 3.0))
    assert max(harmful) < 0 < min(benign)


def test_more_rows_of_one_kind_do_not_move_the_border() -> None:
    """The classes are balanced: mirrored data have their border at 0, however many rows there are of each."""
    probe = fit_probe(planted(40, -2.0, seed=0), planted(400, 2.0, seed=0))
    middle = States(np.zeros(8), np.zeros((1, 8)))
    assert abs(probe.score(middle)) < 0.5


def test_the_worst_chunk_decides() -> None:
    probe = Probe(np.array([0.5, 0.0]), np.array([1.0, 0.0]), bias=0.25)
    easy, bad = [4.0, 0.0], [-3.0, 9.0]
    row = States(np.array([2.0, 7.0]), np.array([easy, bad, easy]))
    assert probe.score(row) == pytest.approx(0.5 * 2 - 3 + 0.25)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_states_do_not_depend_on_batches_and_stop_half_way(tiny_model: Any, batch_size: int) -> None:
    """They are those after one of the two layers, whatever padding a batch needs."""
    tiny_model.train()
    found = read_states(tiny_model, ROWS, pad_token_id=0, batch_size=batch_size)
    assert tiny_model.training
    tiny_model.eval()
    for (prompt, response), states in zip(ROWS, found, strict=True):
        with torch.no_grad():
            hidden = tiny_model(torch.tensor([prompt + response]), output_hidden_states=True).hidden_states[1][0]
        np.testing.assert_allclose(states.prompt, hidden[len(prompt) - 1], rtol=1e-4, atol=1e-4)
        parts = hidden[len(prompt) :].split(CHUNK)
        assert len(states.chunks) == len(parts)
        for chunk, part in zip(states.chunks, parts, strict=True):
            np.testing.assert_allclose(chunk, part.mean(dim=0), rtol=1e-4, atol=1e-4)


def test_nothing_above_the_middle_is_computed(tiny_model: Any) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the second layer was run")

    tiny_model.model.layers[1].register_forward_pre_hook(refuse)
    assert len(read_states(tiny_model, ROWS, pad_token_id=0)) == len(ROWS)
    assert not tiny_model.model.layers[0]._forward_hooks
