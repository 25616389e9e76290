import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from mnemos.consolidation import Consolidator, GenerativeModel, GenerativeReplay, VariationalAutoencoder
from mnemos.consolidation.distillation import distillation

SGD = torch.optim.SGD


class Middle(GenerativeModel):
    """Makes the middle of what it has seen, and nothing else; its sample carries a gradient."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.middle = nn.Parameter(torch.zeros(width))

    def loss(self, inputs: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return (inputs - self.middle).square().sum(1).mean() / 2

    def sample(self, rows: int, generator: torch.Generator | None = None) -> Tensor:
        return self.middle.expand(rows, -1)


def network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 5)


def inputs(rows: int = 6) -> Tensor:
    return torch.rand(rows, 4, generator=torch.Generator().manual_seed(1))


def lived(temperature: float | None, **settings: Any) -> tuple[nn.Linear, GenerativeReplay, Consolidator]:
    """One context of the classes 0 and 2 is over; 3 has been met since, and the network has changed."""
    model, generator = network(), Middle()
    term = GenerativeReplay(generator, SGD(generator.parameters(), lr=1.0), rows=3, temperature=temperature)
    consolidator = Consolidator(model, [term], **settings)
    consolidator.observe(inputs(), torch.tensor([0, 2, 0, 2, 2, 0]))
    consolidator.end_context()
    with torch.no_grad():
        model.weight.mul_(2)
    consolidator.observe(inputs(), torch.full((6,), 3))
    return model, term, consolidator


def test_hard_labels_are_the_classes_that_were_known() -> None:
    for favourite in (1, 2, 3):  # an output that was never taught, one that was, one that came later
        model, term, _ = lived(None)
        assert term.teacher.network is not None
        assert term.previous is not None
        with torch.no_grad():
            term.teacher.network.bias[favourite].add_(9)  # type: ignore[operator, index, union-attr]
        made = term.previous.sample(3)
        expected = made @ term.teacher.network.weight.T + term.teacher.network.bias  # type: ignore[operator, union-attr]
        labels = torch.where(expected[:, 0] > expected[:, 2], 0, 2)
        assert favourite != 2 or (labels == 2).all()
        torch.testing.assert_close(term.loss(inputs(), attached=False), cross_entropy(model(made), labels))


def test_soft_targets_rule_out_what_came_later() -> None:
    model, term, consolidator = lived(2.0)
    assert term.teacher.network is not None
    assert term.previous is not None
    made = term.previous.sample(3)
    taught = (term.teacher.network(made)[:, [0, 2]] / 2).softmax(1)
    students = (model(made)[:, [0, 2, 3]] / 2).log_softmax(1)  # 1 and 4 were never taught
    expected = 4 * (taught * (taught.log() - students[:, :2])).sum(1).mean()
    found = term.loss(inputs(), attached=False)
    torch.testing.assert_close(found, expected)
    new = cross_entropy(model(inputs()), torch.full((6,), 3))
    torch.testing.assert_close(consolidator.loss(new, inputs()), new / 2 + expected / 2)


def test_targets_that_are_no_classes() -> None:
    """Then all outputs answer, and softly."""
    model, generator = network(), Middle()
    term = GenerativeReplay(generator, rows=3)
    consolidator = Consolidator(model, [term], mse_loss)
    consolidator.observe(inputs(), torch.rand(6, 5))
    consolidator.end_context()
    with torch.no_grad():
        model.weight.mul_(2)
    assert term.teacher.network is not None
    made = generator.sample(3)
    expected = distillation(model(made), term.teacher.network(made))
    torch.testing.assert_close(term.loss(inputs(), attached=False), expected)


@pytest.mark.parametrize("share", [None, 0.25])
def test_the_generator_shares_as_the_network_does(share: float | None) -> None:
    """At a rate of 1 it moves to the mean of what is new and what it made before, in their shares."""
    generator = Middle()
    term = GenerativeReplay(generator, SGD(generator.parameters(), lr=1.0), rows=3)
    consolidator = Consolidator(network(), [term], new_share=share)
    targets, before = torch.zeros(6, dtype=torch.int64), torch.zeros(4)
    for contexts in range(3):
        new = inputs() + contexts
        part = share if share is not None and contexts else 1 / (contexts + 1)
        consolidator.loss(torch.zeros(()), new)
        consolidator.observe(new, targets)
        expected = part * new.mean(0) + (1 - part) * before
        torch.testing.assert_close(generator.middle.detach(), expected)
        consolidator.end_context()
        before = generator.middle.detach().clone()


def test_nothing_reaches_the_generator_before() -> None:
    model, term, consolidator = lived(2.0)
    assert term.previous is not None
    made = term.replayed(inputs())
    assert made is not None
    assert not made.requires_grad
    before = term.previous.sample(1).clone()
    optimizer = SGD(model.parameters(), lr=0.1)
    consolidator.loss(cross_entropy(model(inputs()), torch.full((6,), 3)), inputs()).backward()
    assert all(one.grad is None for one in term.previous.parameters())
    assert term.teacher.network is not None
    assert all(one.grad is None for one in term.teacher.network.parameters())
    optimizer.step()
    consolidator.observe(inputs() + 5, torch.full((6,), 3))
    assert torch.equal(term.previous.sample(1), before)
    assert not torch.equal(term.generator.sample(1), before)


def steps(model: nn.Module, consolidator: Consolidator, optimizer: torch.optim.Optimizer, count: int) -> None:
    """Each on the same batch, whose classes are new ones."""
    targets = torch.tensor([3, 4, 3, 4, 3, 4])
    for _ in range(count):
        optimizer.zero_grad()
        consolidator.loss(cross_entropy(model(inputs()), targets), inputs()).backward()
        optimizer.step()
        consolidator.observe(inputs(), targets)


def begin(rows: int = 4, **settings: Any) -> tuple[nn.Linear, Consolidator, torch.optim.Optimizer]:
    model, generator = network(), VariationalAutoencoder(4, (3,), 2)
    term = GenerativeReplay(generator, rows=rows)
    return model, Consolidator(model, [term], **settings), torch.optim.Adam(model.parameters())


@pytest.mark.parametrize("share", [None, 1.0])
def test_before_the_first_context_ends_and_at_a_share_of_one_it_is_plain_training(
    share: float | None,
) -> None:
    model, consolidator, optimizer = begin(new_share=share)
    if share is not None:
        consolidator.end_context()
    steps(model, consolidator, optimizer, 4)
    plain = network()
    steps(plain, Consolidator(plain, []), torch.optim.Adam(plain.parameters()), 4)
    assert torch.equal(model.weight, plain.weight)


def test_goes_on_bit_for_bit() -> None:
    """In the middle of a context, in other objects, with the moments of the generator's optimiser."""
    ends = []
    model, consolidator, optimizer = begin()
    steps(model, consolidator, optimizer, 3)
    consolidator.end_context()
    steps(model, consolidator, optimizer, 3)
    file = io.BytesIO()
    torch.save([model.state_dict(), consolidator.state_dict(), optimizer.state_dict()], file)
    steps(model, consolidator, optimizer, 3)
    ends.append((model, consolidator.terms[0]))
    model, consolidator, optimizer = begin()
    file.seek(0)
    parts = torch.load(file, weights_only=True)
    for part, state in zip((model, consolidator, optimizer), parts, strict=True):
        part.load_state_dict(state)
    steps(model, consolidator, optimizer, 3)
    ends.append((model, consolidator.terms[0]))
    (one, term), (other, again) = ends
    assert torch.equal(one.weight, other.weight)
    for part in ("generator", "previous"):
        for found, expected in zip(
            getattr(again, part).parameters(), getattr(term, part).parameters(), strict=True
        ):
            assert torch.equal(found, expected)


def test_refused() -> None:
    for settings, match in (
        ({"rows": 0}, "rows must be at least 1, not 0"),
        ({"temperature": 0.0}, "temperature must be above 0, or None, not 0"),
        ({"optimizer": SGD(network().parameters(), lr=1.0)}, "must move weights of the generator"),
    ):
        with pytest.raises(ValueError, match=match):
            GenerativeReplay(Middle(), **settings)  # type: ignore[arg-type]
    term = GenerativeReplay(Middle(), temperature=None)
    consolidator = Consolidator(network(), [term], mse_loss)
    with pytest.raises(ValueError, match=r"need classes for targets.*not torch.float32 of shape \(6, 5\)"):
        consolidator.observe(inputs(), torch.rand(6, 5))
    assert not term.generator.sample(1).any()  # nothing was learned
