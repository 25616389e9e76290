"""What only Titans' wirings claim: MAC, MAG and MAL. The laws are in the suite."""

import pytest
import torch
from torch.nn import functional

from mnemos.memories import (
    DeltaRule,
    GatedDelta,
    KeyValue,
    MemoryAsContext,
    MemoryAsGate,
    MemoryAsLayer,
    RotaryAttention,
    Titans,
)
from mnemos.memories.wiring import MemoryGate
from mnemos.ops.rotary import rotate
from mnemos.retention import least_recently_used

WIDTH = 8


def titans() -> Titans:
    memory = Titans(WIDTH, key_size=4, value_size=5, expansion=2, chunk_size=3)
    with torch.no_grad():
        for weight in memory.network.weights:
            weight.add_(0.3 * torch.randn_like(weight))
    return memory


def context(memory=None, **options) -> MemoryAsContext:
    torch.manual_seed(0)
    return MemoryAsContext(memory or titans(), **{"segment": 4, "heads": 2, "persistent": 3, **options})


def beside(memory=None, persistent: int = 3) -> MemoryAsGate:
    torch.manual_seed(0)
    return MemoryAsGate(memory or titans(), RotaryAttention(WIDTH, 2, window=4), persistent)


def below(memory=None, persistent: int = 3) -> MemoryAsLayer:
    torch.manual_seed(0)
    return MemoryAsLayer(memory or titans(), RotaryAttention(WIDTH, 2, window=4), persistent)


def silent() -> GatedDelta:
    """A memory that answers nothing."""
    memory = GatedDelta(WIDTH, key_size=3, value_size=2)
    torch.nn.init.zeros_(memory.output.weight)
    return memory


def normed(x: torch.Tensor) -> torch.Tensor:
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt()


def in_heads(x: torch.Tensor, base: float | None) -> torch.Tensor:
    """(heads, time, keys), turned by their place in the sequence if there is a base."""
    x = x.unflatten(-1, (2, -1)).unsqueeze(0)
    x = x if base is None else rotate(x, torch.arange(x.shape[1]).unsqueeze(0), base)
    return x.squeeze(0).transpose(0, 1)


def by_the_equations(mac: MemoryAsContext, inputs: torch.Tensor) -> torch.Tensor:
    """Equations 21 to 25 for one row, segment by segment; a step sees no answer to a later one."""
    memory, state, outputs = mac.memory, mac.memory.initial_state(1), []
    for segment in inputs.split(mac.segment):
        count = len(segment)
        queries = memory.project(segment.unsqueeze(0)).queries  # S W_Q
        answers = memory.emit(memory.read(state, queries).values)[0]  # h
        # The last segment may be short: what is missing of it has its places all the same.
        lines = torch.cat([torch.arange(count), torch.arange(count) + mac.segment]) + mac.persistent
        lines = torch.cat([torch.arange(mac.persistent), lines])
        whole = torch.zeros(mac.persistent + 2 * mac.segment, WIDTH)
        whole = whole.index_copy(0, lines, torch.cat([mac.tokens.tokens, answers, segment]))  # [P || h || S]
        now = slice(mac.persistent + mac.segment, mac.persistent + mac.segment + count)
        steps = torch.arange(mac.segment) <= torch.arange(count).unsqueeze(1)
        visible = torch.cat([torch.ones(count, mac.persistent, dtype=torch.bool), steps, steps], dim=1)
        scores = in_heads(mac.query(whole), mac.base)[:, now] @ in_heads(mac.key(whole), mac.base).mT
        weights = (scores / (WIDTH // 2) ** 0.5).masked_fill(~visible, -torch.inf).softmax(-1)
        read = (weights @ in_heads(mac.value(whole), None)).transpose(0, 1).flatten(1)
        seen = mac.output(read)  # y
        told, state = memory(seen.unsqueeze(0), state)  # M_t, and M*_t(y)
        outputs.append(normed(seen) * normed(told[0]).sigmoid())
    return torch.cat(outputs)


@pytest.mark.parametrize("memory", [titans, lambda: GatedDelta(WIDTH, key_size=3, value_size=2)])
@pytest.mark.parametrize("persistent", [0, 3])
def test_memory_as_context_is_the_papers_equations_in_their_order(memory, persistent: int) -> None:
    torch.manual_seed(1)
    mac = context(memory(), persistent=persistent)
    inputs = torch.randn(2, 14, WIDTH)
    expected = torch.stack([by_the_equations(mac, row) for row in inputs])
    torch.testing.assert_close(mac(inputs)[0], expected, atol=1e-5, rtol=1e-5)


def test_what_a_memory_answers_to_a_later_step_is_not_seen() -> None:
    """All of h before all of S under a plain causal mask would show a step the end of its segment."""
    mac, inputs = context(), torch.randn(1, 11, WIDTH, requires_grad=True)
    outputs, _ = mac(inputs)
    for now in range(11):
        (slope,) = torch.autograd.grad(outputs[0, now].sum(), inputs, retain_graph=True)
        assert not slope[0, now + 1 :].any()
        assert slope[0, now].any()


def test_a_segment_is_in_the_memorys_answers_from_the_next_one_on() -> None:
    mac = context()
    _, first = mac(torch.randn(1, 3, WIDTH))
    _, second = mac(torch.randn(1, 1, WIDTH), first)
    queries = torch.randn(1, 1, 4)
    begun = mac.memory.read(mac.memory.initial_state(1), queries).values
    assert torch.equal(mac.memory.read(first.before, queries).values, begun)
    assert not torch.equal(mac.memory.read(first.memory, queries).values, begun)
    assert torch.equal(
        mac.memory.read(second.before, queries).values, mac.memory.read(second.memory, queries).values
    )


def test_with_a_silent_memory_context_is_attention_in_blocks_beside_as_many_empty_steps() -> None:
    mac, inputs = context(silent(), persistent=0), torch.randn(1, 10, WIDTH)
    blocks = []
    for block in inputs[0].split(4):
        query, key = (in_heads(layer(block), mac.base) for layer in (mac.query, mac.key))
        weights = (query @ key.mT / 2).masked_fill(
            torch.ones(len(block), len(block)).triu(1).bool(), -torch.inf
        )
        empty = (
            torch.arange(1, len(block) + 1).log().view(1, -1, 1).expand(2, -1, 1)
        )  # each with a score of 0
        weights = torch.cat([empty, weights], dim=2).softmax(-1)[:, :, 1:]
        read = weights @ in_heads(mac.value(block), None)
        blocks.append(normed(mac.output(read.transpose(0, 1).flatten(1))) / 2)
    torch.testing.assert_close(mac(inputs)[0][0], torch.cat(blocks), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [context, beside])
def test_beyond_its_window_only_a_memory_knows(kind) -> None:
    for memory, known in ((silent(), False), (titans(), True)):
        wiring, inputs = kind(memory), torch.randn(1, 12, WIDTH, requires_grad=True)
        (slope,) = torch.autograd.grad(wiring(inputs)[0][0, -1].sum(), inputs)
        assert bool(slope[0, :8].any()) == known


def test_attention_beside_a_memory_is_the_textbooks_with_a_prefix() -> None:
    attention, prefix = RotaryAttention(WIDTH, 2, window=4), torch.randn(3, WIDTH)
    inputs = torch.randn(1, 9, WIDTH)
    query, key, value = (
        x.unflatten(-1, (2, 4)).transpose(0, 1)
        for x in attention.to_queries_keys_values(torch.cat([prefix, inputs[0]])).chunk(3, dim=-1)
    )
    turned_query, turned_key = (
        rotate(x[:, 3:].transpose(0, 1).unsqueeze(0), torch.arange(9).unsqueeze(0), 10_000.0)[0].transpose(
            0, 1
        )
        for x in (query, key)
    )
    scores = torch.cat([query[:, 3:] @ key[:, :3].mT, turned_query @ turned_key.mT], dim=2) / 2
    age = torch.arange(9).unsqueeze(1) - torch.arange(9)
    hidden = functional.pad((age < 0) | (age >= 4), (3, 0))
    read = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value
    expected = attention.to_outputs(read.transpose(0, 1).flatten(1))
    for naive in (False, True):
        attention.naive = naive
        torch.testing.assert_close(attention(inputs, prefix=prefix)[0][0], expected, atol=1e-5, rtol=1e-5)


def test_memory_as_gate_is_the_papers_equations() -> None:
    mag, inputs = beside(), torch.randn(2, 9, WIDTH)
    tokens = mag.tokens.tokens
    told, _ = mag.memory(torch.cat([tokens.expand(2, -1, -1), inputs], dim=1))
    seen, _ = mag.attention(inputs, prefix=tokens)
    expected = normed(seen) * normed(told[:, 3:]).sigmoid()
    torch.testing.assert_close(mag(inputs)[0], expected, atol=1e-5, rtol=1e-5)


def test_memory_as_layer_is_the_papers_equations() -> None:
    mal, inputs = below(), torch.randn(2, 9, WIDTH)
    longer = torch.cat([mal.tokens.tokens.expand(2, -1, -1), inputs], dim=1)
    expected, _ = mal.attention(longer + mal.memory(longer)[0])
    torch.testing.assert_close(mal(inputs)[0], expected[:, 3:], atol=1e-5, rtol=1e-5)


def test_beside_or_under_attention_a_silent_memory_leaves_attention() -> None:
    inputs = torch.randn(2, 9, WIDTH)
    mag, mal = beside(silent(), persistent=0), below(silent(), persistent=0)
    torch.testing.assert_close(mag(inputs)[0], normed(mag.attention(inputs)[0]) / 2)
    torch.testing.assert_close(mal(inputs)[0], mal.attention(inputs)[0])


@pytest.mark.parametrize("kind", [beside, below])
def test_persistent_tokens_come_before_a_documents_first_real_step_and_only_there(kind) -> None:
    wiring, inputs = kind(), torch.randn(2, 9, WIDTH)
    alone = [wiring(inputs[:1, 2:])[0], wiring(inputs[1:, 5:])[0]]
    _, state = wiring(torch.randn(2, 4, WIDTH))
    mask, reset = torch.ones(2, 9).bool(), torch.zeros(2, 9).bool()
    mask[0, :2] = False
    reset[0, 1] = reset[1, 5] = True  # in the first row at a step that is masked
    packed, _ = wiring(inputs, state, mask=mask, reset=reset)
    torch.testing.assert_close(packed[:1, 2:], alone[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(packed[1:, 5:], alone[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [context, beside, below])
def test_persistent_tokens_learn_from_a_state_that_was_made_without_gradients(kind) -> None:
    wiring = kind()
    with torch.no_grad():
        state = wiring.initial_state(1)
    wiring(torch.randn(1, 5, WIDTH), state)[0].square().sum().backward()
    assert wiring.tokens.tokens.grad.any(dim=1).all()


@pytest.mark.parametrize(
    "memory",
    [lambda: DeltaRule(WIDTH), lambda: KeyValue(WIDTH, 4, WIDTH, slots=5, policy=least_recently_used())],
)
def test_any_addressable_memory_can_be_context(memory) -> None:
    mac, inputs = context(memory()), torch.randn(2, 11, WIDTH)
    whole, _ = mac(inputs)
    early, state = mac(inputs[:, :6])
    late, _ = mac(inputs[:, 6:], state)
    torch.testing.assert_close(torch.cat([early, late], 1), whole, atol=1e-5, rtol=1e-5)


def test_a_gate_of_nothing_is_half_open() -> None:
    gate, seen = MemoryGate(WIDTH), torch.randn(1, 2, WIDTH)
    torch.testing.assert_close(gate(seen, torch.zeros_like(seen)), normed(seen) / 2)
    torch.testing.assert_close(gate(seen, seen), gate(3 * seen, 5 * seen), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MemoryAsContext(DeltaRule(4, 5), 3), "not 5 numbers for 4"),
        (lambda: MemoryAsContext(DeltaRule(6), 3, heads=2), "2 x heads wide, not 6 for 2"),
        (lambda: MemoryAsContext(DeltaRule(4), 0), "segment must be at least 1"),
        (lambda: MemoryAsContext(DeltaRule(4), 3, persistent=-1), "persistent must be at least 0"),
        (lambda: MemoryAsGate(DeltaRule(4), RotaryAttention(8, 2, 3)), "attention must be 4 wide"),
        (lambda: MemoryAsLayer(DeltaRule(4), DeltaRule(6)), "attention must take 4 numbers"),
    ],
)
def test_parts_that_do_not_fit_are_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
