"""What every quadratic penalty does, and each of them measures."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnemos.consolidation import EWC, MAS, SI, Consolidator
from mnemos.consolidation.importance import fisher, sensitivity
from mnemos.consolidation.quadratic import QuadraticPenalty

Batches = list[tuple[Tensor, Tensor]]
PENALTIES: dict[str, Callable[[float], QuadraticPenalty]] = {
    "ewc": EWC,
    "online ewc": lambda strength: EWC(strength, keep=0.9),
    "mas": MAS,
    "si": SI,
}


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def context(number: int, steps: int = 12) -> Batches:
    generator = torch.Generator().manual_seed(number)
    return [
        (torch.randn(5, 6, generator=generator) + number, torch.randint(3, (5,), generator=generator))
        for _ in range(steps)
    ]


def learn(
    consolidator: Consolidator | None, model: nn.Module, batches: Batches, attached: bool = True
) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    if consolidator and attached:
        consolidator.attach(optimizer)
    for inputs, targets in batches:
        loss = cross_entropy(model(inputs), targets)
        if consolidator:
            loss = consolidator.loss(loss, inputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if consolidator:
            consolidator.observe(inputs, targets)
    if consolidator:
        consolidator.end_context(batches)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([one.detach().flatten() for one in model.parameters()])


@pytest.mark.parametrize("name", PENALTIES)
def test_without_strength_it_is_plain_training(name: str) -> None:
    plain, held = network(), network()
    consolidator = Consolidator(held, [PENALTIES[name](0.0)])
    for number in range(3):
        learn(None, plain, context(number))
        learn(consolidator, held, context(number))
    assert torch.equal(weights(plain), weights(held))


@pytest.mark.parametrize("name", PENALTIES)
def test_holds(name: str) -> None:
    """The stronger, the less is left of the way that plain training goes."""
    gone = []
    for strength in (0.0, 10.0, 1e4):
        model = network()
        consolidator = Consolidator(model, [PENALTIES[name](strength)])
        learn(consolidator, model, context(0))
        before = weights(model)
        learn(consolidator, model, context(1, steps=60))
        penalty = consolidator.terms[0]
        assert isinstance(penalty, QuadraticPenalty)
        gone.append((weights(model) - before).norm())
    assert gone[0] > gone[1] > gone[2]


@pytest.mark.parametrize("name", [name for name in PENALTIES if name != "si"])
def test_before_the_step_is_as_in_the_loss(name: str) -> None:
    """Its gradient, added to the others', gives the same weights."""
    found = []
    for attached in (True, False):
        model = network().double()
        consolidator = Consolidator(model, [PENALTIES[name](20.0)])
        for number in range(3):
            batches = [(inputs.double(), targets) for inputs, targets in context(number)]
            learn(consolidator, model, batches, attached)
        found.append(weights(model))
    torch.testing.assert_close(*found)
    plain = network().double()
    for number in range(3):
        learn(None, plain, [(inputs.double(), targets) for inputs, targets in context(number)])
    assert (weights(plain) - found[0]).norm() > 0.1


def test_one_quadratic_is_the_sum_of_all() -> None:
    """EWC's gradient is that of a penalty about each of the weights at which a context ended."""
    model = network().double()
    penalty = EWC(3.0)
    consolidator = Consolidator(model, [penalty])
    pairs = []
    for number in range(3):
        batches = [(inputs.double(), targets) for inputs, targets in context(number)]
        learn(None, model, batches)
        consolidator.end_context(batches)
        pairs.append(
            (fisher(model, batches), {name: one.detach().clone() for name, one in model.named_parameters()})
        )
    learn(None, model, [(inputs.double(), targets) for inputs, targets in context(9)])
    value = penalty.loss(torch.empty(0), attached=False)
    assert value is not None
    for name, weight in model.named_parameters():
        expected = sum(3.0 * f[name] * (weight.detach() - there[name]) for f, there in pairs)
        (gradient,) = torch.autograd.grad(value, weight, retain_graph=True)
        torch.testing.assert_close(gradient, expected)


def test_online_ewc_forgets_what_mattered() -> None:
    model = network()
    penalty = EWC(1.0, keep=0.5)
    consolidator = Consolidator(model, [penalty])
    found = []
    for number in range(2):
        consolidator.end_context(context(number))
        found.append(fisher(model, context(number)))
    for name, weight in model.named_parameters():
        torch.testing.assert_close(penalty.importance[name], 0.5 * found[0][name] + found[1][name])
        assert torch.equal(penalty.centre[name], weight)


def test_sensitivities_add_up() -> None:
    model = network()
    penalty = MAS(1.0)
    consolidator = Consolidator(model, [penalty])
    for number in range(2):
        consolidator.end_context(context(number))
    both = [sensitivity(model, context(number)) for number in range(2)]
    for name in both[0]:
        torch.testing.assert_close(penalty.importance[name], both[0][name] + both[1][name])


def test_the_path_makes_the_loss_fall() -> None:
    """SI, eq. 3: in small steps the sum over all weights of ω is how far the loss fell."""
    model = network().double()
    inputs, targets = context(0)[0]
    penalty = SI(1.0)
    consolidator = Consolidator(model, [penalty])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    consolidator.attach(optimizer)
    first = cross_entropy(model(inputs.double()), targets)
    for _ in range(300):
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs.double()), targets)
        loss.backward()
        optimizer.step()
    last = cross_entropy(model(inputs.double()), targets)
    fall = sum(path.sum() for path in penalty.path.values())
    torch.testing.assert_close(fall, (first - last).detach(), rtol=1e-2, atol=0)
    path, start = penalty.path["0.weight"], penalty.start["0.weight"]
    consolidator.end_context()
    gone = (model[0].weight - start).square()  # type: ignore[operator]
    torch.testing.assert_close(penalty.importance["0.weight"], (path.clamp(min=0) / (gone + 0.1)).detach())


def test_the_path_is_of_the_loss_alone() -> None:
    """The penalty's own gradient is not taken for the loss's."""
    paths = []
    for strength in (0.0, 50.0):
        model = network()
        consolidator = Consolidator(model, [SI(strength)])
        learn(consolidator, model, context(0))
        with torch.no_grad():
            for one in model.parameters():
                one.add_(0.1)  # so that the penalty pulls from the first step on
        learn(consolidator, model, context(1)[:0])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        consolidator.attach(optimizer)
        inputs, targets = context(1)[0]
        cross_entropy(model(inputs), targets).backward()
        penalty = consolidator.terms[0]
        assert isinstance(penalty, SI)
        penalty.before_step()
        paths.append(penalty._gradients["0.weight"])
    assert torch.equal(*paths)


def test_must_be_attached() -> None:
    model = network()
    consolidator = Consolidator(model, [SI(1.0)])
    with pytest.raises(RuntimeError, match=r"si must see every step: call attach\(optimizer\) first"):
        consolidator.loss(torch.zeros(()), torch.zeros(1, 6))
    with pytest.raises(RuntimeError, match="si must see every step"):
        consolidator.end_context()
    with pytest.raises(ValueError, match="must move weights of the consolidator's model"):
        consolidator.attach(torch.optim.SGD([nn.Parameter(torch.zeros(1))]))
    optimizer = torch.optim.SGD(model.parameters())
    consolidator.attach(optimizer)
    consolidator.detach()
    assert not consolidator.attached
    with pytest.raises(RuntimeError, match="si must see every step"):
        consolidator.end_context()


def test_a_closure_is_refused() -> None:
    """It would make the gradients after they were looked at."""
    model = network()
    consolidator = Consolidator(model, [EWC(1.0)])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    consolidator.attach(optimizer)
    before = weights(model)
    for arguments, options in (((lambda: 0.0,), {}), ((), {"closure": lambda: 0.0})):
        with pytest.raises(RuntimeError, match=r"was given a closure, .* call attach\(None\)"):
            optimizer.step(*arguments, **options)
    assert torch.equal(weights(model), before)
    optimizer.step(None)
    consolidator.attach(None)  # the caller tells of steps
    assert consolidator.attached
    optimizer.step(lambda: 0.0)


@pytest.mark.parametrize("name", PENALTIES)
def test_goes_on_bit_for_bit(name: str) -> None:
    """In the middle of a context, in other objects."""
    whole = network()
    consolidator = Consolidator(whole, [PENALTIES[name](5.0)])
    first, second = context(0), context(1)
    learn(consolidator, whole, first)
    optimizer = torch.optim.SGD(whole.parameters(), lr=1e-2)
    consolidator.attach(optimizer)
    part = network(seed=1)
    again = Consolidator(part, [PENALTIES[name](5.0)])
    for number, (inputs, targets) in enumerate(second):
        if number == 6:
            part.load_state_dict(whole.state_dict())
            again.load_state_dict(consolidator.state_dict())
            again.attach(torch.optim.SGD(part.parameters(), lr=1e-2))
            others = torch.optim.SGD(part.parameters(), lr=1e-2)
            again.attach(others)
        for model, these, mover in ((whole, consolidator, optimizer), (part, again, None)):
            if model is part and number < 6:
                continue
            mover = mover or others
            mover.zero_grad()
            these.loss(cross_entropy(model(inputs), targets), inputs).backward()
            mover.step()
    consolidator.end_context(second)
    again.end_context(second)
    assert torch.equal(weights(whole), weights(part))
    for one, other in zip(consolidator.terms, again.terms, strict=True):
        assert isinstance(one, QuadraticPenalty)
        assert isinstance(other, QuadraticPenalty)
        for key, value in one.importance.items():
            assert torch.equal(value, other.importance[key])
            assert torch.equal(one.centre[key], other.centre[key])


def test_refused() -> None:
    with pytest.raises(ValueError, match="strength must be 0 or more, not -1"):
        EWC(-1.0)
    with pytest.raises(ValueError, match="keep must be 0 to 1, or None, not 2"):
        EWC(1.0, keep=2.0)
    with pytest.raises(ValueError, match="damping must be above 0, not 0"):
        SI(1.0, damping=0.0)
    model = network()
    consolidator = Consolidator(model, [EWC(1.0)])
    consolidator.end_context(context(0))
    other = Consolidator(nn.Linear(6, 3), [EWC(1.0)])
    with pytest.raises(ValueError, match=r"importance of '0\.weight' fits no weight"):
        other.load_state_dict(consolidator.state_dict())
    with pytest.raises(ValueError, match=r"the state is of the terms \['ewc'\], and these are \['mas'\]"):
        Consolidator(model, [MAS(1.0)]).load_state_dict(consolidator.state_dict())
    with pytest.raises(ValueError, match="terms must have different names"):
        Consolidator(model, [EWC(1.0), EWC(2.0)])
