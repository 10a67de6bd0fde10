"""A model as `accelerate` wraps it, and as an objective needs it."""

from typing import Any

from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel


def whole(model: Any) -> Any:
    """The model whose gradients nobody adds up behind the objective's back."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def reshard(model: nn.Module) -> None:
    """Puts FSDP2's sharded parameters back where a pass without gradients, as in an evaluation, left gathered ones."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
