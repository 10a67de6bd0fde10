"""The same global batch gives the same parameters, however many processes share it and however they are sharded."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from distributed.worker import HARMFUL

WORKER = Path(__file__).with_name("worker.py")

IN_ORDER = {"train_sampling_strategy": "sequential"}
IN_PARTS = {"gradient_accumulation_steps": 2, "micro_batch_size": 1, "activation_checkpointing": True}


class Case(NamedTuple):
    """Ten steps of 8 over 43 rows: the last batch of an epoch has 3.

    Attributes:
        stage: align or finetune.
        lora: Or all parameters.
        sharded: By FSDP2.
        options: Of the trainer.
        harmful: Which rows are, see `worker.HARMFUL`.
    """

    stage: str
    lora: bool
    sharded: bool
    options: dict[str, Any]
    harmful: str = "every fourth"


CASES = {
    f"{stage}, {'LoRA' if lora else 'full'}, {'FSDP2' if sharded else 'DDP'}, {how}": Case(
        stage, lora, sharded, options
    )
    for stage in ("align", "finetune")
    for lora, sharded, how, options in (
        (True, False, "one process with nothing but harmful rows", IN_ORDER),
        (True, False, "in parts", IN_PARTS),
        (False, False, "shuffled", {}),
        (False, True, "one process with nothing but harmful rows", IN_ORDER),
        (False, True, "evaluated", {"eval_strategy": "steps", "eval_steps": 2}),
        (False, True, "in parts", {"micro_batch_size": 1}),
        (True, True, "shuffled", {}),
        (True, False, "bfloat16", {"bf16": True}),
        (False, True, "bfloat16", {"bf16": True, "micro_batch_size": 1}),
    )
}
# Fewer anchors than processes: one of them has none.
MASKED, ANCHORED = (
    IN_ORDER | {"gate": "mask"},
    IN_ORDER
    | {
        "gate": "anchor",
        "anchor_rows": 1,
        # Every step is shortened.
        "anchor_tolerance": 1e-5,
    },
)
GATED = {
    "finetune, LoRA, DDP, anchored, one process withheld whole": Case(
        "finetune", True, False, ANCHORED, "all but thirteen"
    ),
    "finetune, LoRA, DDP, masked, batches withheld whole": Case("finetune", True, False, MASKED, "whole batches"),
    "finetune, full, FSDP2, masked, one process withheld whole, in parts": Case(
        "finetune", False, True, MASKED | {"micro_batch_size": 1}, "all but thirteen"
    ),
    "finetune, full, FSDP2, anchored, batches withheld whole": Case("finetune", False, True, ANCHORED, "whole batches"),
}
LISA = {"method": "lisa", "options": {"align_steps": 2, "finetune_steps": 3}}
CASES |= GATED | {
    "align, LoRA, DDP, Vaccine": Case(
        "align", True, False, IN_ORDER | {"method": "vaccine", "activation_checkpointing": False}
    ),
    "finetune, LoRA, DDP, Lisa": Case("finetune", True, False, IN_ORDER | LISA),
    "finetune, LoRA, DDP, Constrained SFT, in parts": Case(
        "finetune", True, False, IN_PARTS | {"method": "constrained_sft"}
    ),
}


def launch(processes: int, cases: list[dict[str, Any]], folder: Path) -> None:
    """Trains all cases one after the other in one launch."""
    file = folder / "cases.json"
    file.write_text(json.dumps(cases))
    for case in cases:
        Path(case["output"]).mkdir(parents=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(WORKER), str(file)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-4000:]


def case(model: Path, output: Path, name: str, **more: Any) -> dict[str, Any]:
    described = CASES[name]._asdict() | {"model": str(model), "output": str(output), "resume": None}
    described["sharded"] &= not more.pop("alone", False)
    return described | more


@pytest.fixture(scope="session")
def trained(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """All cases by 1, 2 and 4 processes."""
    folders = {}
    for processes in (1, 2, 4):
        folders[processes] = tmp_path_factory.mktemp(f"processes-{processes}")
        cases = [case(tiny_model_folder, folders[processes] / name, name, alone=processes == 1) for name in CASES]
        launch(processes, cases, folders[processes])
    return folders


def parameters(folder: Path) -> torch.Tensor:
    found = torch.load(folder / "parameters.pt", weights_only=True)
    return torch.cat([found[name].flatten() for name in sorted(found)])


def logged(folder: Path) -> list[dict[str, float]]:
    """What the steps logged, without how fast they were."""
    steps = [entry for entry in json.loads((folder / "log.json").read_text()) if "loss" in entry]
    return [{key: value for key, value in entry.items() if key != "tokens_per_second"} for entry in steps]


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("name", CASES)
def test_processes_do_not_change_the_parameters(trained: dict[int, Path], name: str, processes: int) -> None:
    alone, together = trained[1] / name, trained[processes] / name
    if name.endswith("bfloat16"):
        # Eight bits of mantissa: other padding rounds other products.
        for entry, expected in zip(logged(together), logged(alone), strict=True):
            for measure, tolerance in {"loss": 1e-2, "lambda_t": 1e-2, "grad_norm": 5e-2}.items():
                assert entry.get(measure, 0) == pytest.approx(expected.get(measure, 0), rel=tolerance)
        return
    torch.testing.assert_close(parameters(together), parameters(alone), atol=1e-5, rtol=0)
    for entry, expected in zip(logged(together), logged(alone), strict=True):
        assert entry == pytest.approx(expected, rel=1e-3, abs=1e-5, nan_ok=True)
    audit, expected_audit = (json.loads((folder / "audit.json").read_text()) for folder in (together, alone))
    assert [row for row, _ in audit] == [row for row, _ in expected_audit]
    for (_, seen), (_, expected_seen) in zip(audit, expected_audit, strict=True):
        assert torch.tensor(seen).numpy() == pytest.approx(
            torch.tensor(expected_seen).numpy(), rel=1e-3, abs=1e-4, nan_ok=True
        )


@pytest.mark.parametrize("name", GATED)
def test_processes_withhold_the_same_rows(trained: dict[int, Path], name: str) -> None:
    """They share the screening too. A row that is withheld has no score of any step, and no weight."""
    expected_scores, _ = json.loads((trained[1] / name / "screened.json").read_text())
    for folder in (trained[processes] / name for processes in (1, 2, 4)):
        scores, probabilities = json.loads((folder / "screened.json").read_text())
        assert scores == pytest.approx(expected_scores, abs=1e-3)
        withheld = [row for row, probability in enumerate(probabilities) if probability < 0.5]
        assert withheld == [row for row in range(43) if HARMFUL[CASES[name].harmful](row)]
        for row, seen in json.loads((folder / "audit.json").read_text()):
            for _, score, weight in seen:
                assert (math.isnan(score), weight == 0) == (row in withheld,) * 2
        # Kept rows take the places of others once; what is left of the 43 places is of withheld ones.
        assert sum(entry["rows_withheld"] for entry in logged(folder)[:6]) == 43 - 2 * (43 - len(withheld))


def test_whole_batches_were_withheld(trained: dict[int, Path]) -> None:
    """The invariance would also hold if none was. Such a step has no loss, and no gradient to clip."""
    for name in GATED:
        steps = [step for step, entry in enumerate(logged(trained[4] / name), start=1) if math.isnan(entry["loss"])]
        assert steps == [5, 6]


def test_steps_were_shortened(trained: dict[int, Path]) -> None:
    for name, case in GATED.items():
        scales = [entry["step_scale"] for entry in logged(trained[4] / name) if "step_scale" in entry]
        assert any(0 < scale < 1 for scale in scales) == (case.options["gate"] == "anchor")


def test_sharded_gradients_are_added_in_float32(trained: dict[int, Path]) -> None:
    """Row by row two and four processes compute the same products in bfloat16: only how they are added could differ."""
    two, four = (logged(trained[processes] / "align, full, FSDP2, bfloat16") for processes in (2, 4))
    for entry, expected in zip(two, four, strict=True):
        assert entry == pytest.approx(expected, rel=1e-4)


def test_the_cases_are_not_all_one(trained: dict[int, Path]) -> None:
    """The invariance would also hold for processes that do not train."""
    begun = torch.load(trained[1] / "finetune, full, DDP, shuffled" / "parameters.pt", weights_only=True)
    other = torch.load(trained[1] / "align, full, DDP, shuffled" / "parameters.pt", weights_only=True)
    assert any(not torch.allclose(begun[name], other[name], atol=1e-4) for name in begun)


@pytest.mark.parametrize("name", ["align, LoRA, DDP, in parts", "finetune, full, FSDP2, in parts"])
def test_resumed_by_another_number_of_processes(
    name: str, trained: dict[int, Path], tiny_model_folder: Path, tmp_path: Path
) -> None:
    """Two processes begin, four go on from step 7, in the second epoch."""
    options = CASES[name].options | {"save_strategy": "steps", "save_steps": 7}
    begun, resumed = tmp_path / "begun", tmp_path / "resumed"
    launch(2, [case(tiny_model_folder, begun, name, options=options)], tmp_path)
    launch(4, [case(tiny_model_folder, resumed, name, resume=str(begun / "checkpoint-7"))], tmp_path)
    torch.testing.assert_close(parameters(resumed), parameters(trained[1] / name), atol=1e-5, rtol=0)
    assert len(logged(resumed)) == 10
    steps = [step for _, seen in json.loads((resumed / "audit.json").read_text()) for step, *_ in seen]
    assert len(steps) == (75 if name.startswith("finetune") else 0)
