"""A table of slots that is changed in place, step by step, and differentiated through nonetheless.

Each step empties and adds to a few slots, and reads a few. What the backward pass needs of a step is the rows
that were read, which the network around it keeps anyway, and which slots were meant; not one table a step.
So what a sequence stores is independent of the number of slots.

Rae et al. 2016, section 3.4, get there by another way: they store what a step changed, and roll the memory
back in the backward pass to see again what it read. Storing what it read is as small (heads x K rows, against
heads x (K + 1)), and leaves the table after the last step as it is, which here belongs to the caller.
"""

from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mnemos.memories.slot_search import SlotSearch


class _Tape:
    """Which slots every step touched, and on the way back the gradient of the table at those slots.

    The steps hand each other a token, a number without meaning, so that autograd goes back through them in
    the reverse of their order. The gradient of the token is as meaningless, but for there being none: so the
    last step that a backward pass goes through, which is the first to be asked, knows that it is.
    """

    def __init__(self, shape: torch.Size) -> None:
        self.shape = shape
        self.touched: list[Tensor] = []  # flat indices: for every step what it wrote, emptied and read
        self._numbered = 0

    def note(self, *indices: Tensor) -> int:
        """Takes down what a step touched, and gives the step a number."""
        self.touched.append(torch.cat([index.flatten() for index in indices]))
        return len(self.touched) - 1

    def begin(self, like: Tensor, dense: Tensor | None = None) -> None:
        """Begins a backward pass: at the table of the end, with its gradient, or before it, without."""
        if self._numbered != len(self.touched):
            self._numbered = len(self.touched)
            self.slots, places = torch.cat(self.touched).unique(return_inverse=True)
            self.places = places.split([len(index) for index in self.touched])
        self.dense = None if dense is None else dense.flatten(0, 1)
        self.started_afresh = torch.zeros(self.shape[0], dtype=torch.bool, device=like.device)
        if self.dense is None:
            self.gradient = like.new_zeros(len(self.slots), self.shape[2])
        else:
            self.gradient = self.dense.index_select(0, self.slots)

    def start_afresh(self, rows: Tensor) -> None:
        """No gradient goes past the start of these rows."""
        self.started_afresh |= rows
        self.gradient.masked_fill_(rows[self.slots // self.shape[1]].unsqueeze(1), 0)

    def whole(self) -> Tensor:
        """The gradient of the table of the beginning."""
        batch, slots, width = self.shape
        table = self.gradient.new_zeros(batch * slots, width) if self.dense is None else self.dense.clone()
        table.view(self.shape).masked_fill_(self.started_afresh.view(-1, 1, 1), 0)
        return table.index_copy_(0, self.slots, self.gradient).view(self.shape)


@final
class WorkingTable:
    """A copy of a memory's slots to work on for a stretch of time.

    Args:
        memory: the slots at the beginning, which stay as they are.
        search: what finds the nearest slots; it is told of every change.
    """

    def __init__(self, memory: Float[Tensor, "batch slots width"], search: SlotSearch) -> None:
        self.memory = memory.detach().clone(memory_format=torch.contiguous_format)
        self.search = search
        search.build(self.memory)
        self._first = torch.arange(memory.shape[0], device=memory.device).unsqueeze(1) * memory.shape[1]
        self._tape = _Tape(memory.shape)
        self._token = _Begin.apply(memory, self._tape)

    def exchange(
        self,
        erased: Int[Tensor, "batch some"],
        slots: Int[Tensor, "batch written"],
        changes: Float[Tensor, "batch written width"],
        queries: Float[Tensor, "batch heads width"],
        count: int,
        known: Bool[Tensor, " batch"] | None,
        also: Int[Tensor, "batch heads more"] | None = None,
    ) -> tuple[Float[Tensor, "batch heads found width"], Int[Tensor, "batch heads found"]]:
        """Empties slots, adds to slots, and reads the `count` nearest of each query: their rows and numbers.

        After these come the slots that are to be read `also`. A slot may be written several times. Rows
        that are not known only read.
        """
        if known is not None:
            erased, first = erased[known], self._first[known]
            changes = changes.masked_fill(~known.view(-1, 1, 1), 0)
        else:
            first = self._first
        rows, found, self._token = _Exchange.apply(
            self._token,
            changes,
            self,
            self._tape,
            (erased + first).flatten(),
            (slots + self._first).flatten(),
            queries.detach(),
            count,
            also,
        )
        return rows, found

    def start_afresh(self, rows: Bool[Tensor, " batch"]) -> None:
        """Empties all slots of some rows."""
        self.memory[rows] = 0
        self.search.build(self.memory)
        self._token = _StartAfresh.apply(self._token, self._tape, rows)

    def end(self) -> Float[Tensor, "batch slots width"]:
        """The slots as they are now, with their history. The table is not to be used after."""
        return _End.apply(self._token, self._tape, self)


class _Begin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, memory: Tensor, tape: _Tape) -> Tensor:
        ctx.tape = tape
        ctx.set_materialize_grads(False)
        return memory.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return None if gradients[0] is None else ctx.tape.whole(), None


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        token: Tensor,
        changes: Tensor,
        table: WorkingTable,
        tape: _Tape,
        erased: Tensor,
        written: Tensor,
        queries: Tensor,
        count: int,
        also: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        width = table.memory.shape[2]
        rows = table.memory.view(-1, width)
        rows.index_fill_(0, erased, 0)
        rows.index_add_(0, written, changes.reshape(-1, width))
        table.search.update(torch.cat([erased, written]))
        found = table.search.nearest(queries, count)
        if also is not None:
            found = torch.cat([found, also], dim=2)
        missing, found = (found < 0).unsqueeze(3), found.clamp_min(0)
        read = (found + table._first.unsqueeze(2)).flatten()
        ctx.tape, ctx.sizes = tape, (len(written), len(erased), len(read))
        ctx.number = tape.note(written, erased, read) if token.requires_grad or changes.requires_grad else -1
        ctx.mark_non_differentiable(found)
        ctx.set_materialize_grads(False)
        contents = rows.index_select(0, read).view(*found.shape, width).masked_fill_(missing, 0)
        return contents, found, torch.zeros_like(token)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        rows, _, token = gradients
        tape, given = ctx.tape, rows if rows is not None else token
        if given is None:
            return (None,) * 9
        if token is None:
            tape.begin(given)
        written, erased, read = tape.places[ctx.number].split(ctx.sizes)
        if rows is not None:
            tape.gradient.index_add_(0, read, rows.reshape(-1, rows.shape[-1]))
        changes = tape.gradient.index_select(0, written).view(tape.shape[0], -1, tape.shape[2])
        tape.gradient.index_fill_(0, erased, 0)
        return (given.new_zeros(()), changes, *(None,) * 7)


class _StartAfresh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, tape: _Tape, rows: Tensor) -> Tensor:
        ctx.tape, ctx.rows = tape, rows
        ctx.set_materialize_grads(False)
        return torch.zeros_like(token)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradients[0] is not None:
            ctx.tape.start_afresh(ctx.rows)
        return gradients[0], None, None


class _End(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, tape: _Tape, table: WorkingTable) -> Tensor:
        ctx.tape = tape
        ctx.set_materialize_grads(False)
        return table.memory

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        dense = gradients[0]
        if dense is None:
            return None, None, None
        ctx.tape.begin(dense, dense)
        return dense.new_zeros(()), None, None
