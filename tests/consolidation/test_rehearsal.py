import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import mnemos
from mnemos.consolidation import (
    AGEM,
    Consolidator,
    DarkReplay,
    Episodes,
    Prioritised,
    PrioritisedReplay,
    Replay,
)

Made = type[Replay | PrioritisedReplay | DarkReplay | AGEM]


def episodes(capacity: int | None = None) -> Episodes:
    return Episodes(mnemos.open(":memory:"), capacity)


def network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def data(rows: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 4, generator=generator), torch.randint(3, (rows,), generator=generator)


def test_replay_of_everything_is_joint_training_in_the_mean() -> None:
    """Over many samples the gradient is that of the loss over all that was lived through."""
    model, (inputs, targets) = network(), data()
    term = Replay(episodes(), rows=20_000)
    consolidator = Consolidator(model, [term], new_share=0.0)
    for part in range(0, 12, 4):
        consolidator.observe(inputs[part : part + 4], targets[part : part + 4])
    consolidator.loss(torch.zeros(()), inputs[:4]).backward()
    joint = torch.autograd.grad(cross_entropy(model(inputs), targets), model.weight)[0]
    assert model.weight.grad is not None
    torch.testing.assert_close(model.weight.grad, joint, rtol=0.1, atol=0.01)


def test_every_context_counts_alike() -> None:
    model, (inputs, targets) = network(), data()
    term = Replay(episodes(), online=False)
    consolidator = Consolidator(model, [term])
    new = cross_entropy(model(inputs), targets)
    assert consolidator.loss(new, inputs) == new
    for contexts in (1, 2):
        consolidator.observe(inputs, targets)
        assert len(term.episodes) == 12 * (contexts - 1)  # none of a context before it ends
        consolidator.end_context([(inputs, targets)])
        state = term.episodes.state_dict()
        old = term.loss(inputs, attached=False)
        term.episodes.load_state_dict(state)
        expected = new / (contexts + 1) + old * contexts / (contexts + 1)  # type: ignore[operator]
        torch.testing.assert_close(consolidator.loss(new, inputs), expected)


def test_dark_experience() -> None:
    """DER pays for what is answered otherwise than at the time, DER++ for what was to be answered, too."""
    model, (inputs, targets) = network(), data()
    term = DarkReplay(episodes(), rows=1000, logits=0.5, again=0.0)
    both = DarkReplay(term.episodes, rows=1000, logits=0.5, again=2.0)
    consolidator, other = Consolidator(model, [term]), Consolidator(model, [both])
    assert consolidator.loss(torch.zeros(()), inputs) == 0
    consolidator.observe(inputs, targets)
    assert term.loss(inputs, attached=False).item() == 0  # type: ignore[union-attr]
    with torch.no_grad():
        assert model.bias is not None
        model.bias.add_(3)
    assert consolidator.loss(torch.zeros(()), inputs).item() == pytest.approx(0.5 * 9)
    again = other.loss(torch.zeros(()), inputs).item() - 0.5 * 9
    assert again == pytest.approx(2 * cross_entropy(model(inputs), targets).item(), rel=0.1)


def test_a_step_may_not_harm() -> None:
    """A-GEM takes from the gradient what would raise the loss of what is replayed, and no more."""
    model, (inputs, targets) = network(), data()
    store = episodes()
    term = AGEM(store, rows=64)
    consolidator = Consolidator(model, [term])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    consolidator.attach(optimizer)
    store.write(inputs[:1], targets[:1])  # a single experience, so that samples are all the same
    reference = torch.autograd.grad(cross_entropy(model(inputs[:1]), targets[:1]), list(model.parameters()))

    def gradients(wanted: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        optimizer.zero_grad()
        cross_entropy(model(inputs[:1]), wanted).backward()
        before = [one.grad.clone() for one in model.parameters() if one.grad is not None]
        optimizer.step()
        return before, [one.grad for one in model.parameters() if one.grad is not None]

    before, after = gradients(targets[:1])  # it helps
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    before, after = gradients((targets[:1] + 1) % 3)  # it harms
    assert sum((one * ref).sum() for one, ref in zip(before, reference, strict=True)) < -0.1
    dot = sum((one * ref).sum() for one, ref in zip(after, reference, strict=True))
    assert abs(float(dot)) < 1e-6
    taken = [one - other for one, other in zip(before, after, strict=True)]
    ratio = [
        one.flatten() @ ref.flatten() / ref.square().sum() for one, ref in zip(taken, reference, strict=True)
    ]
    assert torch.stack(ratio).std() < 1e-6  # along the reference and nothing else


def test_a_gem_without_memory_is_plain_training() -> None:
    found = []
    for terms in ([], [AGEM(episodes(), online=False)]):
        model, (inputs, targets) = network(), data()
        consolidator = Consolidator(model, terms)  # type: ignore[arg-type]
        optimizer = torch.optim.Adam(model.parameters())
        consolidator.attach(optimizer)
        for _ in range(5):
            optimizer.zero_grad()
            consolidator.loss(cross_entropy(model(inputs), targets), inputs).backward()
            optimizer.step()
        found.append(model.weight.detach())
    assert torch.equal(*found)


def test_what_was_answered_worst_comes_back_most() -> None:
    """In proportion to its loss; and with all corrected, the gradient is again that of joint training."""
    model, (inputs, targets) = network(), data()
    term = PrioritisedReplay(episodes(), 20_000, Prioritised(1.0, floor=0.0), correction=1.0)
    consolidator = Consolidator(model, [term], new_share=0.0)
    assert consolidator.loss(torch.zeros(()), inputs) == 0
    consolidator.observe(inputs, targets)
    consolidator.loss(torch.zeros(()), inputs)  # all are drawn alike, and their losses become known
    losses = cross_entropy(model(inputs), targets, reduction="none").detach()
    state = term.episodes.state_dict()
    batch = term.episodes.sample(20_000, term.priorities)
    shares = (batch.ids - batch.ids.min()).bincount(minlength=12) / 20_000
    torch.testing.assert_close(shares, losses / losses.sum(), rtol=0, atol=2e-4)
    term.episodes.load_state_dict(state)
    consolidator.loss(torch.zeros(()), inputs).backward()
    joint = torch.autograd.grad(cross_entropy(model(inputs), targets), model.weight)[0]
    assert model.weight.grad is not None
    # Importance weights are divided by their greatest, which makes the gradient smaller and nothing else.
    scale = losses.min() / losses.mean()
    torch.testing.assert_close(model.weight.grad, scale * joint, rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("make", [Replay, PrioritisedReplay, DarkReplay, AGEM])
def test_goes_on_bit_for_bit(make: Made, tmp_path: object) -> None:
    """From a state in the middle, on the same store, in other objects."""
    inputs, targets = data(40)
    with mnemos.open(f"{tmp_path}/episodes") as store:
        ends = []
        model, mover, consolidator = begin(make, Episodes(store, 10))
        run(model, mover, consolidator, inputs[:20], targets[:20])
        state, weights = consolidator.state_dict(), model.state_dict()
        weights = {name: one.clone() for name, one in weights.items()}
        store.snapshot(f"{tmp_path}/copy")
        run(model, mover, consolidator, inputs[20:], targets[20:])
        ends.append(model.weight.detach())
    with mnemos.open(f"{tmp_path}/copy") as store:
        model, mover, consolidator = begin(make, Episodes(store, 10, seed=5))
        model.load_state_dict(weights)
        consolidator.load_state_dict(state)
        run(model, mover, consolidator, inputs[20:], targets[20:])
        ends.append(model.weight.detach())
    assert torch.equal(*ends)


def begin(make: Made, store: Episodes) -> tuple[nn.Linear, torch.optim.Optimizer, Consolidator]:
    model = network()
    consolidator = Consolidator(model, [make(store, rows=4)], new_share=0.5)
    mover = torch.optim.SGD(model.parameters(), lr=0.1)
    consolidator.attach(mover)
    return model, mover, consolidator


def run(
    model: nn.Module,
    mover: torch.optim.Optimizer,
    consolidator: Consolidator,
    inputs: Tensor,
    targets: Tensor,
) -> None:
    for rows, wanted in zip(inputs.split(4), targets.split(4), strict=True):
        mover.zero_grad()
        consolidator.loss(cross_entropy(model(rows), wanted), rows).backward()
        mover.step()
        consolidator.observe(rows, wanted)


def test_refused() -> None:
    with pytest.raises(ValueError, match="rows must be at least 1, not 0"):
        Replay(episodes(), rows=0)
    with pytest.raises(ValueError, match="again must be 0 or more, not -1"):
        DarkReplay(episodes(), again=-1.0)
    with pytest.raises(ValueError, match="correction must be 0 to 1, not 2"):
        PrioritisedReplay(episodes(), correction=2.0)
    with pytest.raises(ValueError, match="new_share must be 0 to 1, or None, not 2"):
        Consolidator(network(), [], new_share=2.0)
    with pytest.raises(RuntimeError, match="a-gem must see every step"):
        Consolidator(network(), [AGEM(episodes())]).loss(torch.zeros(()), torch.zeros(1, 4))
