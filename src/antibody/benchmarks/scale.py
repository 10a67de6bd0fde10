"""What a step costs on GPUs that are not at hand: arithmetic, memory and communication, from a model's shape alone.

Per GPU, with P trainable parameters, N parameters in all, G GPUs, M micro-batches and the operations of
`antibody.benchmarks.speed.floor` (nothing shared between rows):

                     SFT                     Antibody, stage 2               Antibody, stage 1
    passes           forward, backward       and a forward of the refusals   four forwards and backwards
    DDP              1 all-reduce of P       1                               4
    FSDP2, M times   2 gathers of N,         3 gathers,                      8 gathers,
                     1 reduce-scatter of P   1 reduce-scatter                4 reduce-scatters
    kept vectors     0                       0                               2 of P

A ring all-reduce sends 2 (G − 1)/G of its bytes, a gather and a reduce-scatter (G − 1)/G. Trained parameters, their
gradients and what is kept are float32, gathered and frozen ones bfloat16. Without sharding a refusal is scored on the
response's keys and values, else by a forward pass of prompt and refusal. The scalars that the processes agree on, a
few dozen bytes a micro-batch, are left out.
"""

from dataclasses import dataclass, replace
from typing import Literal

from antibody.benchmarks.speed.floor import Positions, Weights, backward, forward

Stage = Literal["sft", "finetune", "align"]
STAGES: tuple[Stage, ...] = ("sft", "finetune", "align")

FLOAT32, BFLOAT16 = 4, 2
# Gradient and both of AdamW's moments; the parameter itself is counted with the weights.
OPTIMISED = 3 * FLOAT32


@dataclass(frozen=True)
class Shape:
    """A dense decoder of Llama's kind, its embedding and its head apart."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int

    @property
    def kv_width(self) -> int:
        return self.hidden // self.heads * self.kv_heads

    @property
    def linear(self) -> int:
        """Weights of all layers."""
        attention = 2 * self.hidden**2 + 2 * self.hidden * self.kv_width
        return self.layers * (attention + 3 * self.hidden * self.inner)

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def norms(self) -> int:
        return (2 * self.layers + 1) * self.hidden

    @property
    def parameters(self) -> int:
        return self.linear + 2 * self.embedding + self.norms

    def adapter(self, rank: int) -> int:
        """Weights of LoRA on the query, key and value projections."""
        return self.layers * rank * (2 * self.hidden + 2 * (self.hidden + self.kv_width))


SHAPES = {
    # Llama-2-7B and Llama-2-70B, from their config.json.
    "7B": Shape(layers=32, hidden=4096, inner=11008, heads=32, kv_heads=32, vocabulary=32000),
    "70B": Shape(layers=80, hidden=8192, inner=28672, heads=64, kv_heads=8, vocabulary=32000),
}


@dataclass(frozen=True)
class Machine:
    """GPUs in nodes. Rates are what is reached, not what is printed on the box.

    Attributes:
        flops: Operations a second and GPU.
        memory: Bytes a GPU.
        per_node: GPUs of a node.
        inside: Bytes a second that a GPU sends to its node.
        across: Bytes a second that a GPU sends to other nodes.
    """

    flops: float
    memory: float
    per_node: int
    inside: float
    across: float

    def bandwidth(self, gpus: int) -> float:
        """Of a ring over so many GPUs: as fast as its slowest link."""
        return self.inside if gpus <= self.per_node else self.across


# ASSUMPTION: 40% of 989 TFLOP/s in bfloat16, 80% of 450 GB/s NVLink and of one 400 Gb/s port a GPU.
H100 = Machine(flops=0.4 * 989e12, memory=80e9, per_node=8, inside=0.8 * 450e9, across=0.8 * 50e9)


@dataclass(frozen=True)
class Setup:
    """What is trained, how, on what.

    Attributes:
        rank: Of LoRA on query, key and value; None trains all parameters.
        sharded: FSDP2, else DDP.
        gpus: Processes.
        rows: Of a GPU in a step.
        micro_rows: Of a GPU in a forward pass.
        prompt, response, refusal: Tokens of a row.
        compute_bytes: Of a frozen, gathered or intermediate number.
    """

    shape: Shape
    rank: int | None
    sharded: bool
    gpus: int
    rows: int = 16
    micro_rows: int = 16
    prompt: int = 128
    response: int = 128
    refusal: int = 10
    compute_bytes: int = BFLOAT16

    @property
    def trainable(self) -> int:
        return self.shape.parameters if self.rank is None else self.shape.adapter(self.rank)

    @property
    def weights(self) -> Weights:
        attention = self.shape.layers * self.shape.hidden
        if self.rank is None:
            return Weights(linear=0, adapter=self.shape.linear, head=self.shape.embedding, attention=attention)
        return Weights(self.shape.linear, self.trainable, self.shape.embedding, attention)


@dataclass(frozen=True)
class Cost:
    """Of a step and GPU.

    Attributes:
        flops: Operations.
        memory: Peak bytes.
        sent: Bytes.
    """

    flops: float
    memory: float
    sent: float

    def seconds(self, machine: Machine, gpus: int) -> tuple[float, float]:
        """With all of the communication behind the arithmetic, and with none."""
        computing, sending = self.flops / machine.flops, self.sent / machine.bandwidth(gpus)
        return max(computing, sending), computing + sending


def cost(setup: Setup, stage: Stage) -> Cost:
    return Cost(flops=flops(setup, stage), memory=memory(setup, stage), sent=sent(setup, stage))


def flops(setup: Setup, stage: Stage) -> float:
    """Operations of a step and GPU."""
    answered, refused = (
        Positions(setup.rows * (width - 1), setup.rows * width * (width - 1) // 2, setup.rows * scored)
        for width, scored in (
            (setup.prompt + setup.response, setup.response),
            (setup.prompt + setup.refusal, setup.refusal),
        )
    )
    # The head's own gradient, which a frozen head has not.
    trained_head = 2 * setup.weights.head if setup.rank is None else 0

    def both_ways(at: Positions) -> float:
        return forward(setup.weights, at) + backward(setup.weights, at) + trained_head * at.scored

    if stage == "sft":
        return both_ways(answered)
    if stage == "align":
        return 3 * both_ways(answered) + both_ways(refused)
    if not setup.sharded:
        before = setup.rows * setup.refusal * setup.prompt
        refused = Positions(setup.rows * setup.refusal, before, refused.scored)
    return both_ways(answered) + forward(setup.weights, refused)


def memory(setup: Setup, stage: Stage) -> float:
    """Peak bytes of a GPU: weights, what the optimiser holds, what the stage keeps, activations, logits."""
    shape, parts = setup.shape, setup.gpus if setup.sharded else 1
    frozen = 0 if setup.rank is None else setup.compute_bytes * shape.parameters
    # What is gathered: a layer and the one after it, and the embedding with the head.
    gathered = setup.compute_bytes * (2 * shape.linear // shape.layers + 2 * shape.embedding) if setup.sharded else 0
    kept = 2 * FLOAT32 * setup.trainable if stage == "align" else 0
    # DDP holds all gradients once more, in buckets of its own.
    buckets = FLOAT32 * setup.trainable if setup.gpus > 1 and not setup.sharded else 0
    states = (FLOAT32 + OPTIMISED) * setup.trainable + kept + buckets
    tokens = setup.micro_rows * (setup.prompt + setup.response)
    # What a layer keeps for its backward: the inputs of two norms and seven matrices, of attention and of the gate.
    layer = setup.compute_bytes * (6 * shape.hidden + 3 * shape.kv_width + 4 * shape.inner)
    logits = setup.micro_rows * setup.response * shape.vocabulary * (setup.compute_bytes + 2 * FLOAT32)
    return (frozen + states) / parts + gathered + tokens * shape.layers * layer + logits


def sent(setup: Setup, stage: Stage) -> float:
    """Bytes that a GPU sends in a step."""
    share = (setup.gpus - 1) / setup.gpus
    if not setup.sharded:
        return 2 * share * FLOAT32 * setup.trainable * (4 if stage == "align" else 1)
    gathers, reductions = {"sft": (2, 1), "finetune": (3, 1), "align": (8, 4)}[stage]
    gathered = gathers * setup.compute_bytes * setup.shape.parameters
    reduced = reductions * FLOAT32 * setup.trainable
    return share * (gathered + reduced) * -(-setup.rows // setup.micro_rows)


def plans() -> list[tuple[str, Setup]]:
    """The settings of docs/scale.md: the smallest micro-batches that let a model's activations fit."""
    small, large = SHAPES["7B"], SHAPES["70B"]
    kinds = [
        ("7B LoRA, DDP", Setup(small, 32, sharded=False, gpus=1)),
        ("7B full, FSDP2", Setup(small, None, sharded=True, gpus=1, micro_rows=8)),
        ("70B LoRA, FSDP2", Setup(large, 32, sharded=True, gpus=1, micro_rows=4)),
        ("70B full, FSDP2", Setup(large, None, sharded=True, gpus=1, micro_rows=2)),
    ]
    return [(name, replace(setup, gpus=gpus)) for name, setup in kinds for gpus in (1, 8, 64)]


def table(machine: Machine = H100) -> str:
    """All plans in Markdown."""
    lines = [
        "| model | GPUs | stage | PFLOP | GB peak | fits | GB sent | s/step, overlapped | s/step, not | x SFT |",
        "| --- | ---: | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, setup in plans():
        _, undefended = cost(setup, "sft").seconds(machine, setup.gpus)
        for stage in STAGES:
            step = cost(setup, stage)
            best, worst = step.seconds(machine, setup.gpus)
            fits = "yes" if step.memory <= machine.memory else "no"
            lines.append(
                f"| {name} | {setup.gpus} | {stage} | {step.flops / 1e15:.2f} | {step.memory / 1e9:.0f} | {fits} "
                f"| {step.sent / 1e9:.1f} | {best:.2f} | {worst:.2f} | {worst / undefended:.2f} |"
            )
    return "\n".join(lines)
