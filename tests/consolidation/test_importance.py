import pytest
import torch
from torch import Tensor, nn

from mnemos.consolidation.importance import fisher, sensitivity


class Indirect(nn.Module):
    """The same function of the same weights, in a way that no hook on a layer sees."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        for layer in self.network:
            if isinstance(layer, nn.Linear):
                inputs = nn.functional.linear(inputs, layer.weight, layer.bias)
            else:
                inputs = layer(inputs)
        return inputs


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 3)).double()


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    inputs, targets = torch.randn(7, 5, dtype=torch.float64), torch.randint(3, (7,))
    return [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]


def test_exact_is_the_definition(network: nn.Sequential, batches: list[tuple[Tensor, Tensor]]) -> None:
    """E over examples and answers of the squared gradient, as autograd computes it one by one."""
    network.eval()
    weights = dict(network.named_parameters())
    total = {name: torch.zeros_like(one) for name, one in weights.items()}
    for inputs, _ in batches:
        for row in inputs:
            for answer in range(3):
                logarithm = network(row).log_softmax(-1)[answer]
                gradients = torch.autograd.grad(logarithm, list(weights.values()))
                for name, gradient in zip(weights, gradients, strict=True):
                    total[name] += logarithm.exp().detach() * gradient.square() / 7
    network.train()
    found = fisher(network, batches)
    assert network.training
    for name in weights:
        torch.testing.assert_close(found[name], total[name])


@pytest.mark.parametrize("kind", ["exact", "sampled", "empirical"])
def test_layers_and_examples_agree(
    kind: str, network: nn.Sequential, batches: list[tuple[Tensor, Tensor]]
) -> None:
    """The products of vectors are the powers of each example's gradient."""
    fast = fisher(network, batches, kind, generator=torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    slow = fisher(Indirect(network), batches, kind, generator=torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    for name, value in fast.items():
        torch.testing.assert_close(slow[f"network.{name}"], value)
        assert value.abs().sum() > 0


def test_sensitivity_agrees(network: nn.Sequential, batches: list[tuple[Tensor, Tensor]]) -> None:
    fast, slow = sensitivity(network, batches), sensitivity(Indirect(network), batches)
    for name, value in fast.items():
        torch.testing.assert_close(slow[f"network.{name}"], value)


def test_sampled_is_exact_in_the_mean(network: nn.Sequential, batches: list[tuple[Tensor, Tensor]]) -> None:
    generator = torch.Generator().manual_seed(2)
    often = [(inputs.repeat(3000, 1), targets.repeat(3000)) for inputs, targets in batches]
    exact, sampled = fisher(network, batches), fisher(network, often, "sampled", generator=generator)
    for name, value in exact.items():
        torch.testing.assert_close(sampled[name], value, rtol=0.1, atol=0.05 * value.max().item())


def test_batched_is_empirical_one_at_a_time(
    network: nn.Sequential, batches: list[tuple[Tensor, Tensor]]
) -> None:
    """And with more at a time it is another number."""
    singly = [
        (row[None], target[None])
        for inputs, targets in batches
        for row, target in zip(inputs, targets, strict=True)
    ]
    empirical = fisher(network, batches, "empirical")
    for name, value in fisher(network, singly, "batched").items():
        torch.testing.assert_close(value, empirical[name])
    assert fisher(network, batches, "batched")["0.weight"].sum() < 0.8 * empirical["0.weight"].sum()


def test_a_layer_used_twice(batches: list[tuple[Tensor, Tensor]]) -> None:
    """Its gradient is a sum of products, and is made example by example."""
    torch.manual_seed(1)
    layer = nn.Linear(5, 5).double()
    found = fisher(nn.Sequential(layer, nn.Tanh(), layer), batches)
    inputs = torch.cat([one for one, _ in batches])
    expected = torch.zeros_like(layer.weight)
    for row in inputs:
        for answer in range(5):
            logarithm = layer(layer(row).tanh()).log_softmax(-1)[answer]
            gradient = torch.autograd.grad(logarithm, layer.weight)[0]
            expected += logarithm.exp().detach() * gradient.square() / len(inputs)
    torch.testing.assert_close(found["0.weight"], expected)


def test_what_does_not_answer_does_not_matter(
    network: nn.Sequential, batches: list[tuple[Tensor, Tensor]]
) -> None:
    found = fisher(network, batches, outputs=lambda logits: logits[:, :2])
    assert found["3.weight"][2].abs().sum() == 0
    assert found["3.weight"][:2].abs().min() > 0


def test_refused(network: nn.Sequential, batches: list[tuple[Tensor, Tensor]]) -> None:
    with pytest.raises(Exception, match=r"exact.*, .*sampled"):
        fisher(network, batches, "true")  # type: ignore[arg-type]
    for kind in ("exact", "batched"):
        with pytest.raises(ValueError, match="at least one example"):
            fisher(network, [], kind)  # type: ignore[arg-type]
