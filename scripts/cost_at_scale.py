"""The tables of docs/scale.md: what a step costs at 7B and 70B, and how the same arithmetic fares where it is measured.

python scripts/cost_at_scale.py            # the calculation
python scripts/cost_at_scale.py --check    # against steps of two processes on this machine's CPU: ten minutes
python scripts/cost_at_scale.py --gpu      # the first rows, against a GPU of at least 64 GB: two minutes
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils._python_dispatch import TorchDispatchMode

from antibody.benchmarks.scale import H100, STAGES, Setup, Shape, cost, plans, table
from antibody.data.collation import pad_rows
from antibody.models.lora import LoraSettings, new_adapter
from antibody.objectives.alignment import AntibodyAlignment
from antibody.objectives.processes import Processes
from antibody.objectives.sft import PlainSFT
from antibody.objectives.weights import AntibodyWeights
from antibody.training.steps import ModelStep

SHAPE = Shape(layers=8, hidden=1024, inner=2816, heads=16, kv_heads=16, vocabulary=1000)
SETUP = Setup(SHAPE, 32, sharded=False, gpus=1, rows=8, micro_rows=8, prompt=32, response=32, compute_bytes=4)
STEPS, GPU_STEPS = 3, 12
OBJECTIVES = {
    "sft": PlainSFT("rows"),
    "finetune": AntibodyWeights(score="mean", tau=1.0),
    "align": AntibodyAlignment(rho=0.1, eta=5.0, lambda_refusal=0.05, rule="cosine", momentum=0.99),
}


class SentBytes(TorchDispatchMode):
    """Adds up what the ring collectives under it send."""

    def __init__(self, processes: int) -> None:
        super().__init__()
        self.share = (processes - 1) / processes
        self.bytes = 0.0

    def __torch_dispatch__(self, function: Any, _: Any, arguments: Any = (), options: Any = None) -> Any:
        name = function.name()
        if name == "c10d::allreduce_":
            self.bytes += 2 * self.share * sum(map(nbytes, arguments[0]))
        elif name in {"c10d::_allgather_base_", "c10d::_reduce_scatter_base_"}:
            self.bytes += self.share * max(nbytes(arguments[0]), nbytes(arguments[1]))
        return function(*arguments, **(options or {}))


def nbytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def batches(setup: Setup) -> dict[str, Any]:
    """Random tokens of exactly the lengths that are calculated with. No two rows begin alike."""

    def tokens(width: int) -> list[list[int]]:
        return torch.randint(setup.shape.vocabulary, (setup.rows, width)).tolist()

    prompts, responses, refusals = (tokens(width) for width in (setup.prompt, setup.response, setup.refusal))
    rows, refused = (pad_rows(prompts, answers, 0) for answers in (responses, refusals))
    return {"rows": [rows], "refusals": [refused], "harmful": [rows], "refusal": [refused], "align": [rows]}


def llama(shape: Shape) -> Any:
    """A randomly initialised model."""
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - only a worker needs it

    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=shape.hidden,
            intermediate_size=shape.inner,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            vocab_size=shape.vocabulary,
        )
    ).train()


def with_lora(model: Any, rank: int) -> Any:
    return new_adapter(model, LoraSettings(r=rank, alpha=rank, target_modules=("q_proj", "k_proj", "v_proj")))


def trained(model: Any) -> list[torch.nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def measure(setup: Setup, stage: str) -> dict[str, float]:
    """The faster of two steps' seconds, and bytes sent and peak resident bytes, of this process."""
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    torch.manual_seed(0)
    model = llama(setup.shape)
    if setup.rank is not None:
        model = with_lora(model, setup.rank)
    if setup.sharded:
        mesh = init_device_mesh("cpu", (setup.gpus,))
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    parameters = trained(model)
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    processes = Processes(setup.gpus, torch.device("cpu"))
    step = ModelStep(model, parameters, processes, batches(setup), 0, contextlib.nullcontext)
    seconds, counted = [], SentBytes(setup.gpus)
    for number in range(STEPS):
        started = time.perf_counter()
        with counted if number == STEPS - 1 else contextlib.nullcontext():
            OBJECTIVES[stage](step)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - loaded
    return {"seconds": min(seconds[1:]), "sent": counted.bytes, "memory": peak}


def check_on_gpu() -> None:
    """Prints the steps of one GPU with LoRA: what is calculated next to what is measured, the median of `GPU_STEPS`."""
    name, setup = plans()[0]
    assert setup.rank is not None, "the first plan trains an adapter"
    device = torch.device("cuda")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with device:
        model = llama(setup.shape)
    torch.set_default_dtype(torch.float32)
    model = with_lora(model, setup.rank)
    parameters = trained(model)
    rows = {key: [to_device(piece, device) for piece in pieces] for key, pieces in batches(setup).items()}
    step = ModelStep(model, parameters, Processes(1, device), rows, 0, contextlib.nullcontext)
    print(f"{torch.cuda.get_device_name(device)}, {name}, torch {torch.__version__}\n")
    print("| stage | GB peak, calculated | measured | s/step, calculated | measured | x SFT, calculated | measured |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    undefended: tuple[float, float] | None = None
    for stage in STAGES:
        optimizer = torch.optim.AdamW(parameters, lr=1e-5)
        torch.cuda.reset_peak_memory_stats(device)
        objective, seconds = OBJECTIVES[stage], []
        for _ in range(GPU_STEPS):
            torch.cuda.synchronize(device)
            started = time.perf_counter()
            objective(step)
            optimizer.step()
            optimizer.zero_grad()
            torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - started)
        expected, found = cost(setup, stage), statistics.median(seconds[2:])
        calculated, _ = expected.seconds(H100, 1)
        undefended = undefended or (calculated, found)
        print(
            f"| {stage} | {expected.memory / 1e9:.0f} | {torch.cuda.max_memory_allocated(device) / 1e9:.0f} "
            f"| {calculated:.2f} | {found:.2f} | {calculated / undefended[0]:.2f} | {found / undefended[1]:.2f} |",
            flush=True,
        )


def to_device(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {key: tensor.to(device) for key, tensor in batch.items()}


def worker(case: dict[str, Any]) -> None:
    """One process: measures, and the first writes what it found."""
    warnings.simplefilter("ignore", FutureWarning)
    torch.set_num_threads(1)
    setup = replace(SETUP, **case["setup"])
    if setup.gpus > 1:
        dist.init_process_group("gloo")
    bare = case["stage"] == "bandwidth"
    found = {"bytes_a_second": bandwidth(setup.gpus)} if bare else measure(setup, case["stage"])
    if int(os.environ.get("RANK", "0")) == 0:
        Path(case["output"]).write_text(json.dumps(found))
    if setup.gpus > 1:
        dist.destroy_process_group()


def bandwidth(processes: int) -> float:
    """Bytes a second that an all-reduce of 64 MB sends."""
    tensor = torch.ones(2**24)
    dist.all_reduce(tensor)
    started = time.perf_counter()
    for _ in range(5):
        dist.all_reduce(tensor)
    return 5 * 2 * (processes - 1) / processes * nbytes(tensor) / (time.perf_counter() - started)


def launched(stage: str, **setup: Any) -> dict[str, float]:
    """Measures in new processes."""
    with tempfile.TemporaryDirectory() as folder:
        case = {"stage": stage, "setup": setup, "output": f"{folder}/found.json"}
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(setup["gpus"])]
        command = [sys.executable, *launcher, __file__, "--worker", json.dumps(case)]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return json.loads(Path(case["output"]).read_text())


def check() -> None:
    """Prints what is calculated next to what is measured."""
    speed = launched("bandwidth", gpus=2)["bytes_a_second"]
    print(f"gloo between two processes: {speed / 1e9:.2f} GB/s. The model: {SHAPE.parameters / 1e6:.0f}M parameters.\n")
    print("| training | processes | stage | MB sent, calculated | counted | GB peak, calculated | measured "
          "| s/step, calculated | measured |")  # fmt: skip
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, kind in (
        ("LoRA, DDP", {"sharded": False, "rank": 32}),
        ("full, DDP", {"sharded": False, "rank": None}),
        ("full, FSDP2", {"sharded": True, "rank": None}),
    ):
        for stage in OBJECTIVES:
            # One process makes the same global batch, and gives the rate that the arithmetic of two is calculated at.
            alone = launched(stage, gpus=1, rows=16, micro_rows=16, **(kind | {"sharded": False}))
            rate = cost(replace(SETUP, rows=16, micro_rows=16, **(kind | {"sharded": False})), stage).flops
            rate /= alone["seconds"]
            setup = replace(SETUP, gpus=2, **kind)
            expected, found = cost(setup, stage), launched(stage, gpus=2, **kind)
            seconds = expected.flops / rate + expected.sent / speed
            print(
                f"| {name} | 2 | {stage} | {expected.sent / 1e6:.1f} | {found['sent'] / 1e6:.1f} "
                f"| {expected.memory / 1e9:.2f} | {found['memory'] / 1e9:.2f} "
                f"| {seconds:.2f} | {found['seconds']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="measure on this machine")
    parser.add_argument("--gpu", action="store_true", help="measure on this machine's GPU")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        worker(chosen.worker)
    elif chosen.check:
        check()
    elif chosen.gpu:
        check_on_gpu()
    else:
        print(table())
