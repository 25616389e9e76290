"""What only Kanerva's memory claims; the laws that it shares with every memory are in the suite."""

import math

import pytest
import torch

from mnemos.memories import SparseDistributed
from mnemos.memories.sparse_distributed import activation_share, hard_locations
from mnemos.ops.hamming import hamming_distances, pack, unpack
from mnemos.tree import nbytes

BITS, LOCATIONS, RADIUS = 256, 5000, 108  # 41 of the locations are active, on average


@pytest.fixture(scope="module")
def memory() -> SparseDistributed:
    return SparseDistributed(BITS, locations=LOCATIONS, radius=RADIUS)


def random_words(count: int, bits: int = BITS, seed: int = 0, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, count, bits, generator=generator).sign()


def with_errors(words: torch.Tensor, errors: int) -> torch.Tensor:
    places = torch.rand(words.shape, generator=torch.Generator().manual_seed(1)).argsort(-1)
    return torch.where(places < errors, -words, words)


def test_a_word_is_read_from_an_address_with_errors(memory: SparseDistributed) -> None:
    words = random_words(30)
    state = memory.write(memory.initial_state(1), words, words)
    torch.testing.assert_close(memory.read(state, with_errors(words, 10)).values, words)
    far = memory.read(state, with_errors(words, 128)).values
    assert (far == words).float().mean() < 0.6


def test_recall_reads_until_nothing_changes(memory: SparseDistributed) -> None:
    words = random_words(50)
    state = memory.write(memory.initial_state(1), words, words)
    asked = with_errors(words, 25)
    once, often = (memory.recall(state, asked, times=times).values for times in (1, 20))
    assert (once != words).any(-1).float().mean() > 0.1
    torch.testing.assert_close(often, words)
    torch.testing.assert_close(memory.read(state, often).values, often)


def test_words_at_other_addresses(memory: SparseDistributed) -> None:
    pairs = SparseDistributed(BITS, 7, locations=LOCATIONS, radius=RADIUS)
    addresses, words = random_words(40), random_words(40, 7, seed=2)
    state = pairs.write(pairs.initial_state(1), addresses, words)
    torch.testing.assert_close(pairs.read(state, with_errors(addresses, 15)).values, words)
    outputs, after = pairs(torch.cat([addresses, words], dim=-1))
    assert torch.equal(after.counters, state.counters)
    assert (outputs[:, 0] == 0).all()  # nothing is known before the first step
    with pytest.raises(ValueError, match="value_size must be key_size"):
        pairs.recall(state, addresses)


def test_a_sequence_is_followed_by_storing_each_word_at_the_last(memory: SparseDistributed) -> None:
    words = random_words(20, seed=3)
    state = memory.write(memory.initial_state(1), words[:, :-1], words[:, 1:])
    at = with_errors(words[:, :1], 20)
    for step in range(1, 20):
        at = memory.read(state, at).values
        assert torch.equal(at[:, 0], words[:, step]) or step < 3


def test_activation_is_the_binomial_tail() -> None:
    memory = SparseDistributed(1000, locations=20000, radius=460)
    share = activation_share(1000, 460)
    normal = 0.5 * math.erfc((500 - 460.5) / math.sqrt(250) / math.sqrt(2))
    assert share == pytest.approx(normal, rel=0.02)
    state = memory.initial_state(1)._replace(counters=torch.zeros(1, 20000, 1000, dtype=torch.int8))
    found = (memory.read(state, random_words(60, 1000)).slots >= 0).sum(-1).double()
    deviation = math.sqrt(20000 * share * (1 - share) / 60)
    assert found.mean().item() == pytest.approx(20000 * share, abs=4 * deviation)
    assert activation_share(5, 5) == 1
    assert activation_share(3, 0) == 1 / 8


def test_shared_locations_fall_with_distance_as_attention_does(memory: SparseDistributed) -> None:
    """Bricken & Pehlevan 2021: the weight of a stored word falls exponentially, as a softmax's does."""
    memory = SparseDistributed(64, 1, locations=400_000, radius=24)
    word = random_words(1, 64, seed=5)
    distances = list(range(0, 21, 4))
    asked = torch.cat([with_errors(word, distance) for distance in distances], dim=1)
    state = memory.initial_state(1)
    reading = memory.read(state, asked)
    active = [set(slots[slots >= 0].tolist()) for slots in reading.slots[0]]
    logs = torch.tensor([math.log(len(active[0] & other)) for other in active])
    assert torch.corrcoef(torch.stack([logs, torch.tensor(distances).float()]))[0, 1] < -0.99
    assert logs[-1] < logs[0] - 2


def test_a_reading_names_the_active_locations(memory: SparseDistributed) -> None:
    words = random_words(30, batch=2)
    state = memory.write(memory.initial_state(2), words, words)
    values, weights, slots = memory.read(state, words[:, :4])
    queries = pack(words[:, :4].flatten(0, 1) > 0)
    near = hamming_distances(queries, memory.addresses) <= RADIUS
    assert torch.equal(weights.sum(-1).flatten(), near.sum(1).float())
    for row in range(2):
        for step in range(4):
            active = slots[row, step][slots[row, step] >= 0]
            assert torch.equal(active, near[4 * row + step].nonzero().squeeze(1))
            assert torch.equal(state.counters[row, active].sum(0).sign().float(), values[row, step])


def test_a_word_can_be_taken_out_again(memory: SparseDistributed) -> None:
    words = random_words(20)
    before = memory.write(memory.initial_state(1), words[:, :19], words[:, :19])
    after = memory.write(before, words[:, 19:], words[:, 19:])
    assert not torch.equal(after.counters, before.counters)
    taken = memory.write(after, words[:, 19:], words[:, 19:], strength=-torch.ones(1, 1))
    assert torch.equal(taken.counters, before.counters)


def test_writing_in_place_is_writing(memory: SparseDistributed) -> None:
    words, strength = random_words(20), torch.rand(1, 20) * 3
    mask = torch.arange(20).unsqueeze(0) % 3 > 0
    state = memory.initial_state(1)
    expected = memory.write(state, words, words.flip(1), strength=strength, mask=mask)
    assert not state.counters.any()
    written = memory.write_(state, words, words.flip(1), strength=strength, mask=mask)
    assert written is state
    assert torch.equal(state.counters, expected.counters)
    with pytest.raises(ValueError, match="values must have shape"):
        memory.write_(state, words, words[..., 1:])
    assert torch.equal(state.counters, expected.counters)


def test_strength_is_a_number_of_times(memory: SparseDistributed) -> None:
    words = random_words(3)
    strength = torch.tensor([[2.0, 0.4, 1.0]])
    thrice = words[:, [0, 0, 2]]
    by_strength = memory.write(memory.initial_state(1), words, words, strength=strength)
    assert torch.equal(by_strength.counters, memory.write(memory.initial_state(1), thrice, thrice).counters)


def test_counters_stop_at_their_bits() -> None:
    for bits, limit, dtype in ((2, 1, torch.int8), (8, 127, torch.int8), (9, 255, torch.int16)):
        memory = SparseDistributed(8, locations=10, radius=8, counter_bits=bits)
        word = random_words(1, 8).expand(1, 300, 8)
        state = memory.write(memory.initial_state(1), word, word)
        assert state.counters.dtype == dtype
        assert torch.equal(state.counters.float(), limit * word[:, :1].expand(1, 10, 8))


def test_a_zero_in_a_word_stores_nothing_there(memory: SparseDistributed) -> None:
    words = random_words(2)
    word = torch.cat([words[:, :1, :100], torch.zeros(1, 1, BITS - 100)], dim=-1)
    state = memory.write(memory.initial_state(1), words[:, 1:], word)
    read = memory.read(state, words[:, 1:]).values
    torch.testing.assert_close(read, word)


def test_one_location(memory: SparseDistributed) -> None:
    smallest = SparseDistributed(5, locations=1, radius=5)
    outputs, state = smallest(torch.ones(1, 3, 5))
    assert outputs[0, :, 0].tolist() == [0, 1, 1]
    assert (state.counters == 3).all()


def test_bytes_of_a_hard_location(memory: SparseDistributed) -> None:
    assert nbytes(memory.addresses) == LOCATIONS * BITS // 8
    assert nbytes(memory.initial_state(1)) == LOCATIONS * BITS


def test_the_hard_locations_never_change() -> None:
    assert hard_locations(100, 2, seed=0).tolist() == FIRST
    assert not torch.equal(hard_locations(100, 2, 1), hard_locations(100, 2, 0))
    bits = unpack(hard_locations(100, 2000, seed=7).mT)
    assert bits[:, :100].float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert not bits[:, 100:].any()


FIRST = [[-6696874842932477345, 4976686463289251617], [2815679124, 1135770465]]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("key_size", 0, "key_size must be at least 1, not 0"),
        ("value_size", 0, "value_size must be at least 1, not 0"),
        ("locations", 0, "locations must be at least 1, not 0"),
        ("radius", -1, "radius must be from 0 to key_size = 8, not -1"),
        ("radius", 9, "radius must be from 0 to key_size = 8, not 9"),
        ("counter_bits", 1, "counter_bits must be from 2 to 16, not 1"),
        ("counter_bits", 17, "counter_bits must be from 2 to 16, not 17"),
    ],
)
def test_arguments_are_checked(name: str, value: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseDistributed(**{"key_size": 8, "locations": 4, "radius": 2, name: value})


def test_shapes_are_checked_before_anything_is_written(memory: SparseDistributed) -> None:
    state, words = memory.initial_state(1), random_words(2)
    with pytest.raises(ValueError, match=r"keys must have shape \(batch, time, 256\), not \(1, 2, 255\)"):
        memory.write(state, words[..., 1:], words)
    with pytest.raises(ValueError, match="values must have shape"):
        memory.write(state, words, words[..., 1:])
    with pytest.raises(ValueError, match="state holds 1 rows, inputs 2"):
        memory.read(state, random_words(2, batch=2))
