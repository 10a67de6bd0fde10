"""What a trainer refuses at construction, by name, because its objective would not be what it says."""

from collections.abc import Mapping
from typing import Any

from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.tensor import DTensor

from antibody.errors import UsageError
from antibody.objectives.step import Situation
from antibody.training.configs import NO_DEEPSPEED

# What each situation is called, and what to do instead.
SITUATIONS: dict[Situation, tuple[str, str]] = {
    "dropout": ("dropout", "Set every dropout of the model's config and of the LoRA config to 0."),
    "recomputed": ("gradient_checkpointing", "Set gradient_checkpointing=False, and micro_batch_size to save memory."),
    "sharded": ("sharded parameters", "Use DDP, which leaves them whole."),
    "processes": ("several processes", "Train in one process."),
}


def refuse_arguments(trainer: str, given: Mapping[str, object]) -> None:
    """Refuses arguments of `trl.SFTTrainer` that would bypass the objective.

    Raises:
        UsageError: ``option_refused``.
    """
    for name, value in given.items():
        if value is not None:
            raise UsageError(
                f"{trainer} cannot honour {name}.",
                hint="Rows are paired and weighed here; give `messages`, or `prompt` and `completion`.",
                code="option_refused",
            )


def refuse_unfit(trainer: Any) -> None:
    """Refuses a model, a launch or an option with which the trainer's objective would be another.

    Raises:
        UsageError: ``parallelism``, ``option_refused``, or the situation that the objective refuses.
    """
    refuse_other_parallelism(trainer.accelerator, trainer.model)
    found: dict[Situation, bool] = {
        "dropout": largest_dropout(trainer.model) > 0,
        "recomputed": trainer.args.gradient_checkpointing,
        "sharded": getattr(trainer.accelerator.state, "fsdp_plugin", None) is not None,
        "processes": trainer.processes.count > 1,
    }
    for situation, reason in trainer.objective.refuses.items():
        if found[situation]:
            what, instead = SITUATIONS[situation]
            raise UsageError(
                f"method={trainer.args.method!r} cannot have {what}: {reason}.", hint=instead, code=situation
            )
    if trainer.aux_loss_enabled:
        raise UsageError(
            "The model adds a mixture-of-experts auxiliary loss, which the objective does not weigh.",
            hint="Set router_aux_loss_coef=0.0.",
            code="option_refused",
        )


def largest_dropout(model: nn.Module) -> float:
    """Of the model's modules and of its config."""
    config: Any = model.config
    return max(
        [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
        + [v for k, v in config.get_text_config().to_dict().items() if "drop" in k and isinstance(v, float)],
        default=0.0,
    )


def refuse_other_parallelism(accelerator: Any, model: Any) -> None:
    """Exact are `DistributedDataParallel` and FSDP2, where every process holds rows of its own.

    Raises:
        UsageError: ``parallelism``.
    """
    state = accelerator.state
    plugin, dimensions = getattr(state, "fsdp_plugin", None), accelerator.parallelism_config
    for refused, what, instead in (
        (
            plugin is not None and plugin.fsdp_version == 1,
            "FSDP1 flattens parameters, so that no process has the parts that gradients' products are made of.",
            "Use FSDP2: fsdp_version 2.",
        ),
        (
            state.distributed_type == DistributedType.DEEPSPEED,
            "`accelerate` was told to use DeepSpeed.",
            NO_DEEPSPEED,
        ),
        (
            state.distributed_type == DistributedType.MEGATRON_LM
            or (dimensions is not None and dimensions.non_data_parallel_size > 1),
            "Tensor, context and sequence parallelism spread a row over processes, and rows could not be weighed.",
            "Use data parallelism alone: DDP or FSDP2.",
        ),
        (
            getattr(model, "is_distributed_loading_by_transformers", False)
            or any(isinstance(parameter, DTensor) for parameter in model.parameters()),
            "The model was sharded when it was loaded, and its optimiser could not be resumed exactly.",
            "Load the model whole and let `accelerate` shard it: FSDP2.",
        ),
    ):
        if refused:
            raise UsageError(what, hint=instead, code="parallelism")
