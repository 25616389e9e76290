"""How much every weight matters to what a network answers: diagonal Fisher information, and sensitivity.

Both are the mean over examples of a power of the gradient of one example. The square of a batch's mean
gradient is not that: it shrinks with the batch, and what is left depends on its order. It is offered because
much published code computes it, under its own name.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mnemos.consolidation.term import Batches, evaluated, trained

Importance = dict[str, Tensor]
Fisher = Literal["exact", "sampled", "empirical", "batched"]


class Scores(NamedTuple):
    """What is differentiated for each example, and how much its gradient counts."""

    values: Float[Tensor, "rows scores"]
    weights: Float[Tensor, "rows scores"]  # without a gradient


Score = Callable[[Tensor, Tensor], Scores]  # of a batch's outputs and targets


def fisher(
    model: nn.Module,
    batches: Batches,
    kind: Fisher = "exact",
    *,
    generator: torch.Generator | None = None,
    outputs: Callable[[Tensor], Tensor] = lambda outputs: outputs,
) -> Importance:
    """The diagonal of the Fisher information, F_i = E[(∂ log p(y|x) / ∂θ_i)²], of every weight that learns.

    Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks", eq. 3; the kinds after
    van de Ven 2025, "On the computation of the Fisher information in continual learning".

    Args:
        model: of inputs to the logits of classes. Measured as in `eval()`.
        batches: examples; targets are used by "empirical" and "batched" alone, and are classes.
        kind: "exact" takes the expectation over the network's own answers y; "sampled" draws one y for each
            example; "empirical" takes the target for y; "batched" squares the mean gradient of each batch
            with its targets, which is no Fisher information (see above).
        generator: of "sampled".
        outputs: what is made of the logits first, for instance a choice of those that may answer.

    Raises:
        ValueError: an unknown kind, or no examples.
    """
    if kind not in get_args(Fisher):
        raise ValueError(f"kind must be one of {', '.join(get_args(Fisher))}, not {kind!r}")
    if kind == "batched":
        return _of_batches(model, batches, outputs)

    def score(given: Tensor, targets: Tensor) -> Scores:
        logarithms = outputs(given).log_softmax(-1)
        chances = logarithms.detach().exp()
        if kind == "exact":
            return Scores(logarithms, chances)
        drawn = torch.multinomial(chances, 1, generator=generator) if kind == "sampled" else targets[:, None]
        chosen = logarithms.gather(1, drawn)
        return Scores(chosen, torch.ones_like(chosen))

    return mean_power(model, batches, score, power=2)


def sensitivity(model: nn.Module, batches: Batches) -> Importance:
    """E |∂ ‖f(x)‖² / ∂θ_i|: how far each weight moves the outputs, whatever was to be answered.

    Aljundi et al. 2018, "Memory Aware Synapses", eq. 2 and section 4.1.
    """

    def score(given: Tensor, targets: Tensor) -> Scores:
        lengths = given.flatten(1).square().sum(1, keepdim=True)
        return Scores(lengths, torch.ones_like(lengths))

    return mean_power(model, batches, score, power=1)


def mean_power(model: nn.Module, batches: Batches, score: Score, power: int) -> Importance:
    """The mean over examples of the weighted sum over scores of |∂ score / ∂θ_i|^power.

    Where every weight belongs to a linear layer that sees one vector an example, the gradient of an example
    is the product of two vectors, and its powers are too (Goodfellow 2015, "Efficient per-example gradient
    computations"): no gradient of an example is ever made. Else one is made after the other.
    """
    totals = {name: torch.zeros_like(one) for name, one in trained(model).items()}
    rows = 0
    with evaluated(model), torch.enable_grad():
        for inputs, targets in batches:
            with _watched(model) as seen:
                outputs = model(inputs)
            scores = score(outputs, targets)
            if _linear_alone(model, seen, len(inputs)):
                _add_products(model, seen, scores, power, totals)
            else:
                _add_one_by_one(model, scores, power, totals)
            rows += len(inputs)
    if not rows:
        raise ValueError("batches must hold at least one example")
    return {name: total / rows for name, total in totals.items()}


class _Seen(NamedTuple):
    layer: nn.Linear
    inputs: Tensor
    outputs: Tensor


@contextlib.contextmanager
def _watched(model: nn.Module) -> Iterator[list[_Seen]]:
    """What goes into and out of linear layers meanwhile."""
    seen: list[_Seen] = []

    def watch(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        seen.append(_Seen(layer, inputs[0].detach(), outputs))

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    handles = [layer.register_forward_hook(watch) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _linear_alone(model: nn.Module, seen: Sequence[_Seen], rows: int) -> bool:
    """Whether each example's gradient is a product of two vectors, for every weight that learns."""
    inside = [id(weight) for one in seen for weight in one.layer.parameters(recurse=False)]
    once = len(set(inside)) == len(inside)  # no layer was called twice, no two are tied
    vectors = all(one.inputs.dim() == 2 and len(one.inputs) == rows for one in seen)
    return once and vectors and {id(weight) for weight in trained(model).values()} <= set(inside)


def _add_products(
    model: nn.Module, seen: Sequence[_Seen], scores: Scores, power: int, totals: Importance
) -> None:
    names = {id(weight): name for name, weight in trained(model).items()}
    for number, values in enumerate(scores.values.unbind(1)):
        gradients = torch.autograd.grad(
            values.sum(), [one.outputs for one in seen], retain_graph=True, allow_unused=True
        )
        for one, gradient in zip(seen, gradients, strict=True):
            if gradient is None:
                continue
            left = gradient.abs().pow(power) * scores.weights[:, number : number + 1]
            if id(one.layer.weight) in names:
                totals[names[id(one.layer.weight)]] += left.mT @ one.inputs.abs().pow(power)
            if id(one.layer.bias) in names:
                totals[names[id(one.layer.bias)]] += left.sum(0)


def _add_one_by_one(model: nn.Module, scores: Scores, power: int, totals: Importance) -> None:
    weights = trained(model)
    for value, counts in zip(scores.values.flatten(), scores.weights.flatten(), strict=True):
        gradients = torch.autograd.grad(value, list(weights.values()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                totals[name] += counts * gradient.abs().pow(power)


def _of_batches(model: nn.Module, batches: Batches, outputs: Callable[[Tensor], Tensor]) -> Importance:
    weights = trained(model)
    totals = {name: torch.zeros_like(one) for name, one in weights.items()}
    count = 0
    with evaluated(model), torch.enable_grad():
        for inputs, targets in batches:
            loss = nn.functional.cross_entropy(outputs(model(inputs)), targets)
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for name, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    totals[name] += gradient.square()
            count += 1
    if not count:
        raise ValueError("batches must hold at least one example")
    return {name: total / count for name, total in totals.items()}
