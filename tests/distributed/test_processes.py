"""The same global batch gives the same parameters, however many processes share it and however they are sharded."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

WORKER = Path(__file__).with_name("worker.py")

IN_ORDER = {"train_sampling_strategy": "sequential"}
IN_PARTS = {"gradient_accumulation_steps": 2, "micro_batch_size": 1, "activation_checkpointing": True}

# Stage, LoRA, sharded by FSDP2, options. Ten steps of 8 over 43 rows: the last batch of an epoch has 3.
CASES: dict[str, tuple[str, bool, bool, dict[str, Any]]] = {
    f"{stage}, {'LoRA' if lora else 'full'}, {'FSDP2' if sharded else 'DDP'}, {how}": (stage, lora, sharded, options)
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
} | {
    f"finetune, full, {'FSDP2' if sharded else 'DDP'}, gated": ("finetune", False, sharded, {"gate": "anchor"})
    for sharded in (True, False)
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
    stage, lora, sharded, options = CASES[name]
    sharded = sharded and not more.pop("alone", False)
    described = {"stage": stage, "lora": lora, "sharded": sharded, "options": options, "resume": None} | more
    return {"model": str(model), "output": str(output)} | described


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
        assert entry == pytest.approx(expected, rel=1e-3, abs=1e-5)
    audit, expected_audit = (json.loads((folder / "audit.json").read_text()) for folder in (together, alone))
    assert [row for row, _ in audit] == [row for row, _ in expected_audit]
    for (_, seen), (_, expected_seen) in zip(audit, expected_audit, strict=True):
        assert torch.tensor(seen).numpy() == pytest.approx(
            torch.tensor(expected_seen).numpy(), rel=1e-3, abs=1e-4, nan_ok=True
        )


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
    options = CASES[name][3] | {"save_strategy": "steps", "save_steps": 7}
    begun, resumed = tmp_path / "begun", tmp_path / "resumed"
    launch(2, [case(tiny_model_folder, begun, name, options=options)], tmp_path)
    launch(4, [case(tiny_model_folder, resumed, name, resume=str(begun / "checkpoint-7"))], tmp_path)
    torch.testing.assert_close(parameters(resumed), parameters(trained[1] / name), atol=1e-5, rtol=0)
    assert len(logged(resumed)) == 10
    steps = [step for _, seen in json.loads((resumed / "audit.json").read_text()) for step, *_ in seen]
    assert len(steps) == (75 if name.startswith("finetune") else 0)
