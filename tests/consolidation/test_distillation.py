import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, kl_div

from mnemos.consolidation import Consolidator, LwF
from mnemos.consolidation.distillation import distillation


def network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 5)


def test_a_perfect_student_pays_nothing() -> None:
    outputs = torch.randn(6, 5)
    assert distillation(outputs, outputs).item() == pytest.approx(0, abs=1e-6)
    shifted = distillation(outputs + 3, outputs)  # a softmax does not see what is added to all
    assert shifted.item() == pytest.approx(0, abs=1e-5)
    assert distillation(outputs, outputs.flip(1)) > 0.1


def test_the_gradient_keeps_its_size() -> None:
    """T² times: in the limit of a high temperature it is that of half the squared distance, centred."""
    outputs = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    taught = torch.randn(3, 4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(distillation(outputs, taught, 1e4), outputs)
    difference = outputs.detach() - taught
    expected = (difference - difference.mean(1, keepdim=True)) / 4 / 3
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


def test_the_teacher_is_the_network_before() -> None:
    model = network()
    term = LwF()
    consolidator = Consolidator(model, [term], new_share=0.25)
    inputs, targets = torch.randn(6, 4), torch.tensor([0, 2, 0, 2, 2, 0])
    assert term.loss(inputs, attached=False) is None
    consolidator.observe(inputs, targets)
    consolidator.end_context()
    before = model(inputs).detach()
    assert term.loss(inputs, attached=False).item() == pytest.approx(0, abs=1e-6)  # type: ignore[union-attr]
    with torch.no_grad():
        model.weight.mul_(2)
    consolidator.observe(inputs, targets + 1)  # outputs that were not taught when the teacher was made
    now = model(inputs)
    student, teacher = (one[:, [0, 2]].div(2).log_softmax(1) for one in (now, before))
    expected = 4 * kl_div(student, teacher, reduction="batchmean", log_target=True)
    found = term.loss(inputs, attached=False)
    torch.testing.assert_close(found, expected)
    new = cross_entropy(now, targets)
    torch.testing.assert_close(consolidator.loss(new, inputs), 0.25 * new + 0.75 * expected)


def test_goes_on() -> None:
    model, inputs = network(), torch.randn(6, 4)
    term = LwF()
    consolidator = Consolidator(model, [term])
    consolidator.observe(inputs, torch.tensor([1, 2, 1, 2, 1, 2]))
    consolidator.end_context()
    with torch.no_grad():
        model.weight.mul_(2)
    other = LwF()
    again = Consolidator(model, [other])
    again.load_state_dict(consolidator.state_dict())
    assert again.contexts == 1
    assert torch.equal(term.loss(inputs, attached=False), other.loss(inputs, attached=False))  # type: ignore[arg-type]


def test_targets_that_are_no_classes() -> None:
    """Then all outputs count."""
    term = LwF()
    consolidator = Consolidator(network(), [term], nn.functional.mse_loss)
    consolidator.observe(torch.randn(3, 4), torch.randn(3, 5))
    consolidator.end_context()
    assert not len(term.teacher.known)
    assert term.loss(torch.randn(3, 4), attached=False) is not None


def test_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be above 0, not 0"):
        LwF(0.0)
