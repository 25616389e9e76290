import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

import mnemos
from mnemos.consolidation import Consolidator, Episodes, ICaRL, NearestMean, herding


def network(classes: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, classes))


def episodes(capacity: int | None = None) -> Episodes:
    return Episodes(mnemos.open(":memory:"), capacity, balanced=capacity is not None)


def examples(rows: int, *classes: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Around a corner for each class."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.tensor(classes)[torch.arange(rows) % len(classes)]
    return 3 * torch.eye(5)[targets] + torch.randn(rows, 5, generator=generator), targets


def herding_literally(features: Tensor, count: int) -> list[int]:
    """Algorithm 4, word for word."""
    chosen: list[int] = []
    for k in range(1, count + 1):
        distances = []
        for row, one in enumerate(features):
            total = one + sum((features[other] for other in chosen), torch.zeros_like(one))
            distance = (features.mean(0) - total / k).norm().item()
            distances.append(float("inf") if row in chosen else distance)
        chosen.append(distances.index(min(distances)))
    return chosen


def test_herding() -> None:
    features = normalize(torch.randn(30, 4, dtype=torch.float64), dim=1)
    assert herding(features, 12).tolist() == herding_literally(features, 12)
    assert herding(features, 5).tolist() == herding(features, 12)[:5].tolist()
    assert sorted(herding(features, 99).tolist()) == list(range(30))


def test_the_mean_of_exemplars_converges_faster_than_by_lot() -> None:
    """The distance times the number stays bounded, as of a sum that never strays from what is wanted."""
    features = normalize(torch.randn(3000, 8, generator=torch.Generator().manual_seed(0)).double(), dim=1)
    order = herding(features, 400)
    numbers = torch.arange(1, 401).unsqueeze(1)
    strays = (features[order].cumsum(0) - numbers * features.mean(0)).norm(dim=1)
    by_lot = (features[:400].cumsum(0) - numbers * features.mean(0)).norm(dim=1)
    assert strays.max() < 2
    assert by_lot[-1] > 10


def test_the_nearest_mean() -> None:
    store = episodes()
    inputs, targets = examples(20, 1, 3)
    store.write(inputs, targets)
    model = network()
    classify = NearestMean(store, model[:-1], outputs=5)
    asked = torch.randn(7, 5)
    scores = classify(asked)
    assert (scores[:, [0, 2, 4]] == -torch.inf).all()
    features = normalize(model[:-1](inputs), dim=1)
    means = normalize(torch.stack([features[targets == one].mean(0) for one in (1, 3)]), dim=1)
    given = normalize(model[:-1](asked), dim=1)
    torch.testing.assert_close(scores[:, [1, 3]], -(given[:, None] - means).square().sum(2))
    # What changes the means: experiences, and weights. Else they are kept.
    assert classify.means()[1] is classify.means()[1]
    before = classify.means()[1]
    torch.optim.SGD(model.parameters(), lr=0.1).step()  # without gradients
    assert classify.means()[1] is before
    with torch.no_grad():
        model[0].weight.mul_(-1)
    changed = classify.means()[1]
    assert not torch.equal(changed, before)
    store.write(*examples(3, 0))
    assert classify.means()[0].tolist() == [0, 1, 3]
    by_function = NearestMean(store, lambda inputs: model[:-1](inputs), outputs=5)
    assert torch.equal(by_function(asked), classify(asked))


def test_means_are_measured_in_eval() -> None:
    store = episodes()
    store.write(*examples(20, 0, 1))
    features = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5))
    classify = NearestMean(store, features, outputs=2)
    asked = torch.randn(3, 5)
    assert torch.equal(classify(asked), NearestMean(store, features.eval(), outputs=2)(asked))
    features.train()
    classify(asked)
    assert features[1].training


def test_what_was_chosen_first_stays() -> None:
    """Each class has its part of the capacity; when it shrinks, the best of the herd are left."""
    model, store = network(), episodes(12)
    consolidator = Consolidator(model, [ICaRL(store, model[:-1])])
    inputs, targets = examples(40, 0, 1)
    order = {
        one: inputs[targets == one][herding(normalize(model[:-1](inputs[targets == one]), dim=1), 6)]
        for one in (0, 1)
    }
    for classes, kept in (((0, 1), 6), ((2,), 4), ((3,), 3)):
        given = (inputs, targets) if classes == (0, 1) else examples(30, *classes)
        consolidator.end_context([tuple(part[:15] for part in given), tuple(part[15:] for part in given)])
        traces = store.traces()
        assert (traces.groups.bincount() == kept).all()
        for one in (0, 1):
            here = store.get(traces.ids[traces.groups == one]).inputs
            best = traces.strength[traces.groups == one].argsort(descending=True)
            assert torch.equal(here[best], order[one][:kept])


def test_so_many_of_each_class() -> None:
    store = episodes()
    consolidator = Consolidator(network(), [ICaRL(store, lambda inputs: inputs, count=3)])
    consolidator.end_context([examples(20, 0, 1)])
    consolidator.end_context([examples(20, 2)])
    assert store.traces().groups.bincount().tolist() == [3, 3, 3]


def test_the_loss_is_the_papers() -> None:
    """Algorithm 3: a sum over new examples and exemplars, of new classes and of what was known."""
    model, store = network(), episodes(8)
    term = ICaRL(store, model[:-1], rows=6)
    consolidator = Consolidator(model, [term])
    old, new = examples(10, 0, 1), examples(7, 2, 3)
    first = consolidator.loss(term.classification(model(old[0]), old[1]), old[0])
    expected = -sum(
        (g if one == y else 1 - g).log()
        for row, y in zip(model(old[0]).sigmoid(), old[1].tolist(), strict=True)
        for one, g in enumerate(row[:2])  # the others have not come yet
    )
    torch.testing.assert_close(first, expected / 10)  # type: ignore[operator]
    consolidator.observe(*old)
    consolidator.end_context([old])
    before = [row.sigmoid() for row in (model(old[0]), model(new[0]))]
    with torch.no_grad():
        model[2].weight.mul_(-0.5)
    consolidator.observe(*new)
    state = store.state_dict()
    found = consolidator.loss(term.classification(model(new[0]), new[1]), new[0])
    store.load_state_dict(state)
    drawn = store.sample(6)
    answers = before[0][[(old[0] == one).all(1).nonzero().item() for one in drawn.inputs]]
    total = torch.zeros(())
    for inputs, targets, taught in ((*new, before[1]), (drawn.inputs, drawn.targets, answers)):
        for row, y, q in zip(model(inputs).sigmoid(), targets.tolist(), taught, strict=True):
            for one, g in enumerate(row):
                wanted = q[one].detach() if one < 2 else torch.tensor(float(one == y))
                total = total - (wanted * g.log() + (1 - wanted) * (1 - g).log())
    torch.testing.assert_close(found, total / 7)


def taught(*, held: bool) -> tuple[nn.Sequential, Consolidator]:
    """A network that learned four classes, two by two."""
    model = network()
    term = ICaRL(episodes(40), model[:-1], rows=20)
    consolidator = Consolidator(model, [term] if held else [])
    mover = torch.optim.Adam(model.parameters(), lr=0.02)
    for classes in ((0, 1), (2, 3)):
        inputs, targets = examples(200, *classes)
        for step in range(60):
            start = 20 * (step % 10)
            rows, wanted = inputs[start : start + 20], targets[start : start + 20]
            outputs = model(rows)
            new = term.classification(outputs, wanted) if held else cross_entropy(outputs, wanted)
            mover.zero_grad()
            consolidator.loss(new, rows).backward()
            mover.step()
            consolidator.observe(rows, wanted)
        consolidator.end_context([(inputs, targets)])
    return model, consolidator


def test_learns_classes_two_by_two() -> None:
    inputs, targets = examples(400, 0, 1, 2, 3, seed=9)
    model, consolidator = taught(held=True)
    classify = NearestMean(consolidator.terms[0].episodes, model[:-1], outputs=4)  # type: ignore[attr-defined]
    assert (classify(inputs).argmax(1) == targets).float().mean() > 0.85
    plain, _ = taught(held=False)
    assert (plain(inputs).argmax(1) == targets).float().mean() < 0.55


def test_goes_on_bit_for_bit() -> None:
    model, consolidator = taught(held=True)
    term = consolidator.terms[0]
    assert isinstance(term, ICaRL)
    state = consolidator.state_dict()
    again = ICaRL(Episodes(term.episodes.store, 40, balanced=True, seed=7), model[:-1], rows=20)
    other = Consolidator(model, [again])
    other.load_state_dict(state)
    with torch.no_grad():
        model[2].weight.mul_(2)
    inputs, targets = examples(10, 1, 3)
    found = [
        one.loss(part.classification(model(inputs), targets), inputs)
        for one, part in ((consolidator, term), (other, again))
    ]
    assert torch.equal(*found)


def test_refused() -> None:
    with pytest.raises(ValueError, match="count must be given"):
        ICaRL(episodes(), nn.Identity())
    with pytest.raises(ValueError, match="must be balanced"):
        ICaRL(Episodes(mnemos.open(":memory:"), 5), nn.Identity())
    with pytest.raises(ValueError, match="count must be at least 1, or None, not 0"):
        ICaRL(episodes(5), nn.Identity(), count=0)
    with pytest.raises(ValueError, match="batches must hold the context's examples"):
        Consolidator(network(), [ICaRL(episodes(5), nn.Identity())]).end_context()
    store = episodes()
    with pytest.raises(ValueError, match=r"exemplars must be of classes from 0 to 1, not \[\]"):
        NearestMean(store, nn.Identity(), outputs=2)(torch.zeros(1, 5))
    store.write(*examples(4, 2))
    with pytest.raises(ValueError, match=r"exemplars must be of classes from 0 to 1, not \[2\]"):
        NearestMean(store, nn.Identity(), outputs=2)(torch.zeros(1, 5))
