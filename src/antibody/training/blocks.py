"""What goes on inside a `transformers` model: its attention and feed-forward blocks, seen and moved by hooks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from antibody.errors import ModelError
from antibody.objectives.likelihood import IGNORED, model_likelihoods, row_likelihoods
from antibody.objectives.step import Batch, LayerStates, RowLikelihoods


def attended(model: Any, batch: Batch, shifts: Sequence[Tensor] | None) -> tuple[RowLikelihoods, list[Tensor]]:
    """One forward pass whose attention blocks' outputs are moved.

    Args:
        model: A `transformers` or PEFT causal language model.
        batch: As for `antibody.objectives.likelihood.model_likelihoods`.
        shifts: For each layer ``[B, T, H]``, what is added to the output; None adds nothing.

    Returns:
        The likelihoods, and the outputs as the layers above saw them, in the graph.
    """
    outputs: list[Tensor] = []

    def move(output: Tensor) -> Tensor:
        moved = output if shifts is None else output + shifts[len(outputs)]
        # Below the first trained layer there is no graph, and a gradient is wanted all the same.
        outputs.append(moved if moved.requires_grad else moved.detach().requires_grad_())
        return outputs[-1]

    with _changed(blocks(model, "Attention"), move):
        return model_likelihoods(model, batch, share_prefix=False), outputs


def by_layer(model: Any, batch: Batch) -> LayerStates:
    """One forward pass, with what each feed-forward block gave and what the head reads from each depth.

    Raises:
        ModelError: ``architecture``, where the head's normalisation is not found.
    """
    decoder = model.get_decoder()
    norm = getattr(decoder, "norm", None)
    if norm is None:
        raise _unknown(model, "normalisation before the head")
    hidden: list[Tensor] = []
    depths: list[Tensor] = []
    targets = batch["labels"][:, 1:]
    scored = targets != IGNORED

    def keep(output: Tensor) -> Tensor:
        hidden.append(output)
        return output

    def enter(_: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        # What a layer reads is what the depth below it gave.
        depths.append((arguments[0] if arguments else options["hidden_states"])[scored])

    watches = [layer.register_forward_pre_hook(enter, with_kwargs=True) for layer in _layers(model)]
    try:
        with _changed(blocks(model, "MLP"), keep):
            last = model_likelihoods(model, batch, share_prefix=False)
    finally:
        for watch in watches:
            watch.remove()
    head = model.get_output_embeddings()
    below = [row_likelihoods(head(norm(depth)), targets).nll for depth in depths]
    nll = torch.stack([*below, last.nll]).mean(dim=0)
    # A row's last token predicts nothing, and is fed only where another row is longer.
    answered = scored & (batch["labels"][:, :-1] != IGNORED)
    return LayerStates(hidden, answered, RowLikelihoods(nll, last.tokens))


def blocks(model: Any, kind: str) -> list[nn.Module]:
    """The block of that kind in each layer, by the end of its class's name: Attention or MLP.

    Raises:
        ModelError: ``architecture``, where a layer has none.
    """
    found = []
    for layer in _layers(model):
        block = next((each for each in layer.children() if type(each).__name__.endswith(kind)), None)
        if block is None:
            raise _unknown(model, f"{kind} block")
        found.append(block)
    return found


def _layers(model: Any) -> Sequence[nn.Module]:
    layers: Sequence[nn.Module] | None = getattr(model.get_decoder(), "layers", None)
    if not layers:
        raise _unknown(model, "list of layers")
    return layers


def _unknown(model: Any, what: str) -> ModelError:
    return ModelError(
        f"No {what} was found in {type(model.get_decoder()).__name__}, which this method has to look into.",
        hint="Use a model built like Llama, Mistral, Qwen or Gemma, or another method.",
        code="architecture",
    )


@contextmanager
def _changed(modules: Sequence[nn.Module], change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, what the modules return goes through a function, in the order in which they are called."""

    def hook(_: Any, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    hooks = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()
