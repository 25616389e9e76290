"""The layers are attention where they say so, answer padding with zeros, and learn what they are for."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from mnemos.models.hopfield import HopfieldAssociation, HopfieldLookup, HopfieldPooling


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_one_step_is_multi_head_attention() -> None:
    layer = HopfieldAssociation(12, heads=3)
    peer = nn.MultiheadAttention(12, 3, bias=False, batch_first=True)
    with torch.no_grad():
        peer.in_proj_weight.copy_(torch.cat([layer.query.weight, layer.key.weight, layer.value.weight]))
        peer.out_proj.weight.copy_(layer.output.weight)
    queries, stored, mask = torch.randn(2, 5, 12), torch.randn(2, 7, 12), torch.rand(2, 7) < 0.7
    expected = peer(queries, stored, stored, key_padding_mask=~mask, need_weights=False)[0]
    torch.testing.assert_close(layer(queries, stored, mask=mask), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 3])
def test_padding_is_not_there_and_may_hold_anything(steps: int) -> None:
    layer = HopfieldAssociation(6, 4, heads=2, key_size=5, inverse_temperature=2.0, steps=steps)
    queries, stored = torch.randn(2, 3, 6), torch.randn(2, 7, 4)
    mask = torch.arange(7) < torch.tensor([[4], [0]])
    found = layer(queries, stored.masked_fill(~mask.unsqueeze(-1), torch.nan), mask=mask)
    torch.testing.assert_close(found[:1], layer(queries[:1], stored[:1, :4]))
    assert not found[1].any()  # nothing is stored in this row
    found.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_more_steps_are_further_updates_in_the_space_of_the_heads() -> None:
    layer = HopfieldAssociation(6, steps=4, inverse_temperature=3.0)
    queries, stored = torch.randn(1, 3, 6), torch.randn(1, 7, 6)
    state, keys, values = layer.query(queries), layer.key(stored), layer.value(stored)
    for _ in range(3):
        state = torch.softmax(3.0 * state @ keys.mT, -1) @ keys
    expected = layer.output(torch.softmax(3.0 * state @ keys.mT, -1) @ values)
    torch.testing.assert_close(layer(queries, stored), expected)


def test_pooling_takes_sets_of_any_size_in_any_order() -> None:
    pooling = HopfieldPooling(HopfieldAssociation(8, 5, steps=2), 8, queries=3)
    inputs = torch.randn(2, 9, 5)
    pooled = pooling(inputs)
    assert pooled.shape == (2, 3, 8)
    torch.testing.assert_close(pooling(inputs[:, torch.randperm(9)]), pooled)
    mask = torch.arange(9) < torch.tensor([[9], [0]])
    masked = pooling(inputs, mask=mask)
    torch.testing.assert_close(masked[0], pooled[0])
    assert not masked[1].any()


def test_pooling_learns_to_find_one_telling_pattern_in_a_bag() -> None:
    """Multiple instance learning: a bag is positive if any of its 100 patterns is near the secret one."""
    pooling = HopfieldPooling(HopfieldAssociation(16, 8, inverse_temperature=1.0), 16)
    model = nn.Sequential(pooling, nn.Flatten(), nn.Linear(16, 1))
    secret, generator = 5 * functional.normalize(torch.randn(8), dim=0), torch.Generator().manual_seed(1)

    def bags(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = torch.randn(count, 100, 8, generator=generator)
        labels = torch.rand(count, generator=generator) < 0.5
        inputs[labels, 17] = secret + 0.2 * torch.randn(int(labels.sum()), 8, generator=generator)
        return inputs, labels

    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        inputs, labels = bags(64)
        loss = functional.binary_cross_entropy_with_logits(model(inputs).squeeze(1), labels.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    inputs, labels = bags(500)
    accuracy = ((model(inputs).squeeze(1) > 0) == labels).float().mean().item()
    average = (inputs.mean(1) @ secret > 0.125).eq(labels).float().mean().item()  # what the mean alone tells
    assert accuracy > 0.93, accuracy
    assert accuracy > average + 0.2, (accuracy, average)


def test_lookup_with_the_training_set_stored_is_its_nearest_neighbour() -> None:
    inputs, targets = torch.randn(40, 6), torch.randn(40, 3)
    layer = HopfieldLookup(6, 3, slots=40, inverse_temperature=200.0)
    with torch.no_grad():
        layer.keys.copy_(functional.normalize(inputs, dim=-1))
        layer.values.copy_(targets)
    asked = functional.normalize(inputs + 0.01 * torch.randn(40, 6), dim=-1)
    torch.testing.assert_close(layer(asked.view(4, 10, 6)), targets.view(4, 10, 3), atol=0.02, rtol=0)


def test_lookup_trains_its_patterns() -> None:
    layer = HopfieldLookup(4, 2, slots=5, steps=2)
    layer(torch.randn(2, 3, 4)).square().sum().backward()
    assert layer.keys.grad.any()
    assert layer.values.grad.any()


@pytest.mark.compiles
def test_layers_compile_into_one_graph() -> None:
    mask = torch.arange(7) < torch.tensor([[4], [0]])
    layer = HopfieldAssociation(6, heads=2, steps=3)
    pooling, lookup = HopfieldPooling(layer, 6), HopfieldLookup(6, 3, slots=9, steps=2)
    inputs = torch.randn(2, 7, 6)
    for module, given in ((pooling, {"mask": mask}), (lookup, {})):
        torch.compiler.reset()
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(inputs, **given), module(inputs, **given))


@pytest.mark.parametrize("name", ["query_size", "heads", "key_size", "steps"])
def test_sizes_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        HopfieldAssociation(**{"query_size": 4, name: 0})
    with pytest.raises(ValueError, match="inverse_temperature must be above 0"):
        HopfieldLookup(4, 2, 3, inverse_temperature=-1.0)
