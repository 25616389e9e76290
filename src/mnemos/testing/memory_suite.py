"""The laws of memories as a test class."""

import pytest

from mnemos.memories.base import AddressableMemory, Memory
from mnemos.testing import addressing_laws, number_laws, sequence_laws, state_laws


class MemorySuite:
    """The eleven laws that every memory keeps, for pytest to collect.

    Your memory is held to them in three lines:

        class TestMine(mnemos.testing.MemorySuite):
            @pytest.fixture
            def memory(self):
                return Mine(input_size=4, slots=3)

    Make it small and its capacity smaller than 13 steps, so that it wraps around and the suite is fast;
    leave its weights random. Its class must be at the top of a module, since the snapshot law builds it
    again in another process from its configuration and weights. Every fault is an AssertionError that
    names the memory, the law and what differed.

    What the laws expect beside `Memory`'s protocol:

    - masked inputs may hold anything, NaN included: fill them before use
      (`inputs.masked_fill(~mask.unsqueeze(-1), 0)`), or NaN x 0 reaches the weights' gradients;
    - a memory with a fast path has an attribute `naive`, False from the start, and takes the plain
      loop when it is True (`Memory`); one whose work does not grow with every step has a fast path.
      Values then need to agree to 1e-4, and to 1e-5 without;
    - a memory of separate slots states its `capacity`;
    - an `AddressableMemory` with projections has `project` and `emit`, and `touch` if its reads count.

    `compiles` and `slow` are pytest markers, which you declare in your configuration. Compiling cannot
    see through jaxtyping's import hook: if you use it, run `JAXTYPING_DISABLE=1 pytest -m compiles`.
    """

    @pytest.fixture
    def memory(self) -> Memory:
        raise NotImplementedError("give your test class a fixture `memory` that returns a small memory")

    def test_split(self, memory: Memory) -> None:
        """1. In pieces, one step at a time, none at a time: the same."""
        sequence_laws.split(memory)

    def test_mask(self, memory: Memory) -> None:
        """2. A masked step is the identity on the state."""
        sequence_laws.mask(memory)

    def test_reset(self, memory: Memory) -> None:
        """3. Packed sequences do not leak."""
        sequence_laws.reset(memory)

    def test_rows(self, memory: Memory) -> None:
        """4. Rows do not mix, and can be picked, repeated and reordered."""
        sequence_laws.rows(memory)

    def test_snapshot(self, memory: Memory) -> None:
        """5. Saved, opened in a new process, continued: bit-identical."""
        state_laws.snapshot(memory)

    def test_finite(self, memory: Memory) -> None:
        """6. Empty, masked, zero, huge, half precision: finite."""
        number_laws.finite(memory)

    def test_bounded(self, memory: Memory) -> None:
        """7. The state does not grow, or up to its capacity only."""
        state_laws.bounded(memory)

    def test_learns(self, memory: Memory) -> None:
        """8. Every parameter gets a gradient, and it is right."""
        number_laws.learns(memory)

    def test_pure(self, memory: Memory) -> None:
        """9. The caller's state stays as it was; evaluation is deterministic."""
        state_laws.pure(memory)

    def test_twin(self, memory: Memory) -> None:
        """10. The fast path is equal to the plain loop."""
        sequence_laws.twin(memory)

    @pytest.mark.compiles
    def test_compiles(self, memory: Memory) -> None:
        """11. One graph, the same numbers."""
        number_laws.compiles(memory, "aot_eager")

    @pytest.mark.compiles
    @pytest.mark.slow
    def test_compiles_to_code(self, memory: Memory) -> None:
        """11, with the code that the default backend makes."""
        number_laws.compiles(memory, "inductor")

    def test_addressing(self, memory: Memory) -> None:
        """`forward` is reading, then writing; memories that cannot be addressed pass."""
        if isinstance(memory, AddressableMemory):
            addressing_laws.addressing(memory)
