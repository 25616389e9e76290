"""What only `Engram` claims; the laws that it shares with every memory are in the suite."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from mnemos import Engram, load, save
from mnemos.memories import MappedTable, NGramHash
from mnemos.testing import MemorySuite

HASHING = NGramHash(rows=97, heads=3)
WIDTH = 6


def first_coordinate(inputs):
    """Tokens that are written into the inputs themselves, so that the laws can be asked with real ones."""
    return (inputs[..., 0].abs() * 4).long().clamp_max(9)


@pytest.fixture
def memory() -> Engram:
    torch.manual_seed(0)
    engram = Engram(WIDTH, HASHING, nn.Embedding(HASHING.table_rows, 4))
    nn.init.normal_(engram.taps)
    return engram.eval()


class TestLawsWithTokens(MemorySuite):
    """Every law once more with tokens that come again, so that n-grams are met twice."""

    @pytest.fixture
    def memory(self):
        torch.manual_seed(0)
        hashing = NGramHash(rows=7, orders=(2, 3), heads=2)
        return Engram(4, hashing, nn.Embedding(hashing.table_rows, 3), codes=first_coordinate)


def text(batch=2, time=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(40, (batch, time), generator=generator)


def test_the_past_is_all_that_counts(memory):
    inputs, tokens = torch.randn(2, 12, WIDTH), text()
    outputs, _ = memory(inputs, tokens=tokens)
    other = tokens.clone()
    other[:, 8:] += 1
    later = inputs.clone()
    later[:, 8:] += 1
    changed, _ = memory(later, tokens=other)
    assert torch.equal(changed[:, :8], outputs[:, :8])
    assert (changed[:, 8:] != outputs[:, 8:]).any(2).all()


def test_equal_ngrams_find_equal_rows_wherever_they_stand(memory):
    tokens = torch.tensor([[5, 6, 7, 1, 5, 6, 7], [9, 9, 5, 6, 7, 5, 6]])
    rows = memory.rows(tokens)
    assert torch.equal(rows[0, 2], rows[0, 6])
    assert torch.equal(rows[0, 2], rows[1, 4])
    assert not torch.equal(rows[0, 2], rows[1, 6])
    assert torch.equal(rows[0, 1, :3], rows[1, 6, :3])  # the bigram 5 6, after something else
    assert not torch.equal(rows[0, 1, 3:], rows[1, 6, 3:])
    assert (rows < HASHING.table_rows).all()
    shares = torch.tensor(HASHING.sizes).cumsum(0)
    assert ((rows < shares) & (rows >= shares - torch.tensor(HASHING.sizes))).all()


def test_addresses_are_the_same_in_every_process(memory):
    program = (
        "import torch; from torch import nn; from mnemos.memories import Engram, NGramHash;"
        f"hashing = {HASHING!r};"
        f"memory = Engram({WIDTH}, hashing, nn.Embedding(hashing.table_rows, 4));"
        f"print(memory.rows(torch.tensor({text().tolist()})).tolist())"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(memory.rows(text()).tolist())
    # Written down, so that a later version cannot move what has been trained.
    assert memory.rows(torch.tensor([[3, 1, 4]]))[0, 2].tolist() == KNOWN


KNOWN = [57, 160, 201, 378, 461, 597]


def test_an_ngram_never_reaches_over_a_reset(memory):
    inputs, tokens = torch.randn(1, 6, WIDTH), text(1, 6)
    reset = torch.tensor([[False, False, False, True, False, False]])
    outputs, _ = memory(inputs, tokens=tokens, reset=reset)
    alone, _ = memory(inputs[:, 3:], tokens=tokens[:, 3:])
    torch.testing.assert_close(outputs[:, 3:], alone)
    joined, _ = memory(inputs, tokens=tokens)
    assert (joined[:, 3:5] != outputs[:, 3:5]).any()


def test_a_masked_step_does_not_enter_the_suffix(memory):
    inputs, tokens = torch.randn(1, 7, WIDTH), text(1, 7)
    mask = torch.tensor([[True, True, False, True, False, False, True]])
    outputs, state = memory(inputs, tokens=tokens.masked_fill(~mask, 39), mask=mask)
    expected, after = memory(inputs[mask].unsqueeze(0), tokens=tokens[mask].unsqueeze(0))
    torch.testing.assert_close(outputs[mask].unsqueeze(0), expected)
    torch.testing.assert_close(state, after)
    assert state.tokens.tolist() == [tokens[mask][-2:].tolist()]


def test_what_was_never_trained_adds_nothing(memory):
    nn.init.zeros_(memory.table.weight)
    outputs, _ = memory(torch.randn(2, 9, WIDTH), tokens=text(2, 9))
    assert not outputs.any()


def test_the_gate_follows_the_agreement_of_input_and_key(memory):
    nn.init.zeros_(memory.taps)
    tokens = text(1, 5)
    key = memory.key(memory.table(memory.rows(tokens)).flatten(2))
    value = memory.value(memory.table(memory.rows(tokens)).flatten(2))
    for inputs, expected in (
        (100 * key, WIDTH**0.5),
        (-3 * key, -(WIDTH**0.5)),
        (torch.zeros_like(key), 0.0),
    ):
        outputs, _ = memory(inputs, tokens=tokens)
        torch.testing.assert_close(outputs, torch.tensor(expected).sigmoid() * value, rtol=1e-4, atol=1e-5)


def test_gradients_touch_only_the_rows_that_were_read():
    table = nn.Embedding(HASHING.table_rows, 4, sparse=True)
    memory = Engram(WIDTH, HASHING, table)
    before, tokens = table.weight.detach().clone(), text()
    memory(torch.randn(2, 12, WIDTH), tokens=tokens)[0].square().sum().backward()
    assert table.weight.grad.is_sparse
    read = memory.rows(tokens).unique()
    assert torch.equal(table.weight.grad.coalesce().indices()[0], read)
    torch.optim.SparseAdam([table.weight], lr=0.1).step()
    changed = (table.weight != before).any(1).nonzero().squeeze(1)
    assert torch.equal(changed, read)


def test_a_mapped_table_answers_as_the_trained_one(memory, tmp_path):
    MappedTable.write(tmp_path / "table.npy", [memory.table.weight])
    mapped = Engram(WIDTH, HASHING, MappedTable(tmp_path / "table.npy"))
    missing = mapped.load_state_dict(memory.state_dict(), strict=False)
    assert missing.unexpected_keys == ["table.weight"]
    assert not missing.missing_keys
    inputs, tokens = torch.randn(2, 12, WIDTH), text()
    expected, _ = memory(inputs, tokens=tokens)
    outputs, state = mapped(inputs, tokens=tokens)
    assert torch.equal(outputs, expected)
    save(tmp_path / "state.mnemos", mapped, state)
    torch.testing.assert_close(load(tmp_path / "state.mnemos", mapped), state, rtol=0, atol=0)


def test_it_learns_what_follows_two_tokens():
    """Targets that no single token tells: the sum of the last two modulo five."""
    torch.manual_seed(0)
    hashing = NGramHash(rows=300, orders=(2,), heads=2)
    memory = Engram(16, hashing, nn.Embedding(hashing.table_rows, 8))
    nn.init.zeros_(memory.table.weight)
    output, tokens = nn.Linear(16, 5), torch.randint(12, (32, 20))
    targets = (tokens[:, 1:] + tokens[:, :-1]) % 5
    optimizer = torch.optim.Adam([*memory.parameters(), *output.parameters()], lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        logits = output(memory(torch.ones(32, 20, 16), tokens=tokens)[0])[:, 1:]
        nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
    tokens = torch.randint(12, (32, 20))
    logits = output(memory(torch.ones(32, 20, 16), tokens=tokens)[0])[:, 1:]
    assert (logits.argmax(2) == (tokens[:, 1:] + tokens[:, :-1]) % 5).float().mean() > 0.97


def test_without_tokens_and_without_codes_there_is_an_error(memory):
    with pytest.raises(ValueError, match="tokens must be given"):
        memory(torch.randn(2, 3, WIDTH))


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=f"table must have {HASHING.table_rows} rows, not 5"):
        Engram(WIDTH, HASHING, nn.Embedding(5, 3))
    with pytest.raises(ValueError, match="heads must be at least 1, not 0"):
        NGramHash(rows=5, heads=0)
    for orders in ((), (3, 2), (2, 2), (0, 1)):
        with pytest.raises(ValueError, match="orders must be ascending"):
            NGramHash(rows=5, orders=orders)
