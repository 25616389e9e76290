"""What only `ProductKey` claims; the laws that it shares with every memory are in the suite."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

import mnemos
from mnemos.memories import ProductKey, SiluGate, StoredValues, ValueTable
from mnemos.sparse_optimizer import SparseOptimizer
from mnemos.stores.row_optimizer import adam, sgd
from mnemos.stores.trainable import TrainableRows


@pytest.fixture
def memory() -> ProductKey:
    torch.manual_seed(0)
    return ProductKey(5, 8, 3, heads=2, top_k=6, key_size=10)


def test_it_reads_what_the_paper_says(memory: ProductKey) -> None:
    """Equations 1 to 3 of Lample et al. 2019, a slot at a time over the flat table of n² keys."""
    inputs = torch.randn(2, 3, 5)
    outputs, _ = memory(inputs)
    keys = functional.layer_norm(memory.keys, (5,)) / 5**0.5
    for row in range(2):
        for step in range(3):
            expected = torch.zeros(3)
            for head in range(2):
                halves = memory.query(inputs[row, step]).view(2, 2, 5)[:, head]
                query = memory.query_norm(halves).flatten()
                flat = torch.stack(
                    [torch.cat([keys[0, head, s // 8], keys[1, head, s % 8]]) for s in range(64)]
                )
                best = (flat @ query).topk(6)
                for weight, slot in zip(best.values.softmax(0), best.indices, strict=True):
                    expected = expected + weight * memory.values.rows[slot]
            torch.testing.assert_close(outputs[row, step], expected)


def test_a_reading_is_its_weights_times_the_rows(memory: ProductKey) -> None:
    values, weights, slots = memory.read(torch.randn(2, 4, 5))
    assert weights.shape == slots.shape == (2, 4, 12)
    torch.testing.assert_close(weights.sum(-1), torch.full((2, 4), 2.0))  # one for each head
    torch.testing.assert_close((weights.unsqueeze(-1) * memory.values.rows[slots]).sum(2), values)


def test_usage_is_what_real_steps_read_since_the_last_reset(memory: ProductKey) -> None:
    inputs = torch.randn(3, 6, 5)
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[0, 2:4] = False
    reset = torch.zeros(3, 6, dtype=torch.bool)
    reset[1, 3] = reset[2, 0] = True
    slots = memory.read(inputs).slots
    _, state = memory(inputs)
    _, state = memory(inputs, state, mask=mask, reset=reset)
    expected = [[slots[0], slots[0, :2], slots[0, 4:]], [slots[1, 3:]], [slots[2]]]
    for row, parts in enumerate(expected):
        counts = torch.cat([part.flatten() for part in parts]).bincount(minlength=64)
        assert torch.equal(state.usage[row], counts.int())


def test_the_gradient_and_the_step_touch_only_rows_that_were_read(memory: ProductKey) -> None:
    memory = ProductKey(5, 50, 3, heads=2, top_k=6, key_size=10)
    before = memory.values.rows.detach().clone()
    inputs = torch.randn(2, 4, 5)
    read = memory.read(inputs).slots.unique()
    optimizer = SparseOptimizer([memory.values.rows], adam, lr=0.1)
    memory(inputs)[0].sum().backward()
    assert torch.equal(memory.values.rows.grad.coalesce().indices()[0], read)
    optimizer.step()
    changed = (memory.values.rows != before).any(1).nonzero().squeeze(1)
    assert torch.equal(changed, read)


def test_rows_and_time_do_not_mix_in_the_normalisation(memory: ProductKey) -> None:
    memory.train()
    inputs = torch.randn(4, 6, 5)
    alone = memory(inputs[:1, :1])[0]
    torch.testing.assert_close(memory(inputs)[0][:1, :1], alone)


def test_the_gate_is_the_papers(memory: ProductKey) -> None:
    gate = SiluGate(5, 3, 7)
    gated = ProductKey(5, 8, 3, heads=2, top_k=6, key_size=10, gate=gate)
    gated.load_state_dict(memory.state_dict(), strict=False)
    inputs = torch.randn(2, 4, 5)
    opened = functional.silu(inputs @ gate.gate.weight.T) * memory(inputs)[0]
    outputs, _ = gated(inputs)
    assert gated.output_size == outputs.shape[-1] == 7
    torch.testing.assert_close(outputs, opened @ gate.output.weight.T)


def test_layers_can_share_their_values() -> None:
    shared = ValueTable(64, 3)
    layers = [ProductKey(3, 8, 3, heads=1, top_k=4, key_size=6, values=shared) for _ in range(2)]
    inputs = torch.randn(1, 5, 3)
    middle = layers[0](inputs)[0]
    layers[1](middle)[0].sum().backward()
    read = torch.cat(
        [layer.read(x).slots.flatten() for layer, x in zip(layers, (inputs, middle), strict=True)]
    )
    assert torch.equal(shared.rows.grad.coalesce().indices()[0], read.unique())
    assert sum(p.numel() for p in torch.nn.ModuleList(layers).parameters()) == 64 * 3 + sum(
        p.numel() for layer in layers for n, p in layer.named_parameters() if n != "values.rows"
    )


def test_counting_can_be_left_out(memory: ProductKey) -> None:
    quiet = ProductKey(5, 8, 3, heads=2, top_k=6, key_size=10, count_usage=False)
    quiet.load_state_dict(memory.state_dict())
    inputs = torch.randn(2, 4, 5)
    outputs, state = quiet(inputs)
    assert mnemos.nbytes(state) == 0
    assert torch.equal(outputs, memory(inputs)[0])


def test_one_slot_answers_everything() -> None:
    memory = ProductKey(5, 1, 3, heads=2, top_k=1, key_size=6)
    outputs, state = memory(torch.randn(2, 4, 5))
    torch.testing.assert_close(outputs, 2 * memory.values.rows.expand(2, 4, 3))
    assert state.usage.tolist() == [[8], [8]]


@pytest.mark.parametrize("location", [":memory:", "embedded"])
def test_values_in_a_store_are_values_in_ram_that_outlive_the_process(location: str, tmp_path: Path) -> None:
    path = location if location == ":memory:" else str(tmp_path / "values.memory")
    torch.manual_seed(1)
    in_ram = ProductKey(5, 8, 3, heads=2, top_k=6, key_size=10)
    with mnemos.open(path) as store:
        ids = store.write(torch.zeros(64, 1), in_ram.values.rows.detach())
        rows = TrainableRows(store, values=sgd(0.1))
        stored = ProductKey(5, 8, 3, heads=2, top_k=6, key_size=10, values=StoredValues(rows, ids))
        stored.load_state_dict(in_ram.state_dict(), strict=False)
        optimizer = SparseOptimizer([in_ram.values.rows], sgd, lr=0.1)
        for step in range(3):
            inputs = torch.randn(2, 4, 5)
            outputs = [memory(inputs)[0] for memory in (in_ram, stored)]
            torch.testing.assert_close(outputs[0], outputs[1])
            for memory, output in zip((in_ram, stored), outputs, strict=True):
                memory.zero_grad()
                output.square().sum().backward()
            torch.testing.assert_close(in_ram.keys.grad, stored.keys.grad)
            optimizer.step()
            assert rows.step() == len(in_ram.read(inputs).slots.unique()), f"rows moved in step {step}"
        assert not [name for name, _ in stored.named_parameters() if name.startswith("values")]
        torch.testing.assert_close(store.gather(ids)[1], in_ram.values.rows.detach())
    if location == "embedded":
        with mnemos.open(path) as store:
            torch.testing.assert_close(store.gather(ids)[1], in_ram.values.rows.detach())


def test_stored_values_must_be_vectors_of_floats() -> None:
    with mnemos.open(":memory:") as store:
        ids = store.write(torch.zeros(4, 1), torch.arange(4))
        with pytest.raises(ValueError, match=r"must be vectors of floats, not torch\.int64"):
            StoredValues(TrainableRows(store), ids)


def test_it_learns_facts_by_heart() -> None:
    torch.manual_seed(2)
    keys, answers = torch.randn(1, 300, 16), torch.randint(8, (300,))
    memory = ProductKey(16, 24, 8, heads=2, top_k=8, key_size=16)
    rows = memory.values.rows
    optimizers = [
        SparseOptimizer([rows], adam, lr=0.05),
        torch.optim.Adam([p for p in memory.parameters() if p is not rows], lr=3e-3),
    ]
    for _ in range(60):
        loss = functional.cross_entropy(memory(keys)[0][0], answers)
        memory.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    assert (memory(keys)[0][0].argmax(-1) == answers).double().mean() > 0.97


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 0}, "heads must be at least 1, not 0"),
        ({"top_k": 65}, "top_k must be at most half_keys², which is 64, not 65"),
        ({"key_size": 7}, "key_size must be even and at least 6, not 7"),
        ({"key_size": 4}, "key_size must be even and at least 6, not 4"),
        ({"values": ValueTable(60, 3)}, "values must be 64 of width 3, not 60 of 3"),
    ],
)
def test_arguments_are_checked(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProductKey(**{"input_size": 5, "half_keys": 8, "value_size": 3, "top_k": 6, "key_size": 10, **change})
