import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnemos.consolidation import Consolidator, FeedbackNetwork, FeedbackReplay, VariationalAutoencoder


def network() -> FeedbackNetwork:
    torch.manual_seed(0)
    return FeedbackNetwork(VariationalAutoencoder(6, (5, 4), 2), 3)


def data(rows: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(rows, 6, generator=generator), torch.randint(3, (rows,), generator=generator)


def test_the_first_layers_are_common() -> None:
    model, (inputs, targets) = network(), data()
    first = model.autoencoder.encoder[0].weight
    for loss in (cross_entropy(model(inputs), targets), model.loss(inputs)):
        (gradient,) = torch.autograd.grad(loss, first)
        assert gradient.abs().sum() > 0
    assert model(inputs).shape == (8, 3)
    one, other = torch.Generator().manual_seed(2), torch.Generator().manual_seed(2)
    torch.testing.assert_close(model.loss(inputs, one), model.autoencoder.loss(inputs, other) / 6)
    assert torch.equal(model.sample(3, one), model.autoencoder.sample(3, other))


def test_what_it_made_before_is_answered_and_made_again() -> None:
    model, (inputs, targets) = network(), data()
    term = FeedbackReplay(rows=4)
    consolidator = Consolidator(model, [term], new_share=0.25)
    new = cross_entropy(model(inputs), targets) + model.loss(inputs)
    assert consolidator.loss(new, inputs) == new
    consolidator.observe(inputs, targets)
    consolidator.end_context()
    with torch.no_grad():
        model.classifier.weight.mul_(3)
    new = cross_entropy(model(inputs), targets) + model.loss(inputs)
    before = term.previous
    assert before is term.teacher.network
    assert before is not None
    generator = torch.Generator()
    generator.set_state(term.random.get_state())
    made = before.sample(4, generator)
    answers = (before(made) / 2).softmax(1)
    lesson = 4 * (answers * (answers.log() - (model(made) / 2).log_softmax(1))).sum(1).mean()
    expected = 0.25 * new + 0.75 * (lesson + model.loss(made, generator))
    found = consolidator.loss(new, inputs)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert all(one.grad is None for one in before.parameters())


def steps(model: FeedbackNetwork, consolidator: Consolidator, mover: torch.optim.Optimizer) -> None:
    inputs, targets = data()
    noise = torch.Generator().manual_seed(3)
    for _ in range(3):
        new = cross_entropy(model(inputs), targets) + model.loss(inputs, noise)
        mover.zero_grad()
        consolidator.loss(new, inputs).backward()
        mover.step()
        consolidator.observe(inputs, targets)


def begin() -> tuple[FeedbackNetwork, Consolidator, torch.optim.Optimizer]:
    model = network()
    return model, Consolidator(model, [FeedbackReplay(rows=4)]), torch.optim.Adam(model.parameters())


def test_goes_on_bit_for_bit() -> None:
    parts = begin()
    steps(*parts)
    parts[1].end_context()
    steps(*parts)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in parts], file)
    steps(*parts)
    others = begin()
    file.seek(0)
    for part, state in zip(others, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    steps(*others)
    for one, other in zip(parts[0].parameters(), others[0].parameters(), strict=True):
        assert torch.equal(one, other)


def test_refused() -> None:
    with pytest.raises(TypeError, match="must be a GenerativeModel, which makes its own inputs, not Linear"):
        Consolidator(nn.Linear(2, 2), [FeedbackReplay()])
    with pytest.raises(ValueError, match="classes must be at least 1, not 0"):
        FeedbackNetwork(VariationalAutoencoder(6, (5,), 2), 0)
