"""Where a free slot is: what is in use, and the slots in the order in which they are to be taken.

Graves et al. 2016, "Hybrid computing using a neural network with dynamic external memory", methods, "dynamic
memory allocation".
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-6  # no slot counts as freer than this: products of usages then have a gradient


def retention(
    free_gates: Float[Tensor, "batch read_heads"], read_weights: Float[Tensor, "batch read_heads slots"]
) -> Float[Tensor, "batch slots"]:
    """ψ = Π_r (1 - f_r w_r): what share of a slot is kept by heads that free what they have just read.

    No head frees the last millionth: each factor can then be taken out of the product by a division.
    """
    return (1 - (1 - EPSILON) * free_gates.unsqueeze(-1) * read_weights).prod(1)


def usage_after(
    usage: Float[Tensor, "batch slots"],
    write_weights: Float[Tensor, "batch write_heads slots"],
    retained: Float[Tensor, "batch slots"],
) -> Float[Tensor, "batch slots"]:
    """u_t = (u + w - u w) ψ: a slot is in use if it was or was written, and was not freed.

    Several heads have written a slot by w = 1 - Π_h (1 - w_h). The gradient goes through w as the equation
    says; DeepMind's own code stops it there.

    Args:
        usage: u_(t-1) from 0 (free) to 1.
        write_weights: of the last step.
        retained: ψ of this step.
    """
    unwritten = 1 - write_weights.squeeze(1) if write_weights.shape[1] == 1 else (1 - write_weights).prod(1)
    return (1 - (1 - usage) * unwritten) * retained


def allocation(usage: Float[Tensor, "batch slots"]) -> Float[Tensor, "batch slots"]:
    """a[φ_j] = (1 - u[φ_j]) Π_(i<j) u[φ_i], φ the slots by ascending usage: the freest slot first.

    Sums to 1 - Π u: nearly one while any slot is free, nothing once all are in use. Of slots in equal use
    the first goes first. The order itself has no gradient.
    """
    used, order = (EPSILON + (1 - EPSILON) * usage).sort(dim=-1, stable=True)
    before = torch.cat([torch.ones_like(used[:, :1]), used[:, :-1]], dim=-1).cumprod(-1)
    return torch.zeros_like(usage).scatter(-1, order, (1 - used) * before)


class Sorted(NamedTuple):
    """What the backward of an allocation needs, in the order in which slots are to be taken."""

    order: Tensor  # φ
    used: Tensor  # u[φ_j]
    before: Tensor  # Π_(i<j) u[φ_i]
    allocated: Tensor  # a[φ_j]


def allocation_forward(usage: Tensor) -> tuple[Tensor, Sorted]:
    """`allocation` without autograd."""
    used, order = torch.lerp(usage, usage.new_ones(()), EPSILON).sort(dim=-1, stable=True)
    until = used.cumprod(-1)
    before = until / used
    allocated = before - until
    return torch.empty_like(usage).scatter_(-1, order, allocated), Sorted(order, used, before, allocated)


def allocation_backward(found: Sorted, gradient: Tensor) -> Tensor:
    """From the gradient of the allocation to that of the usage.

    The products after slot j are summed from the far end, where they are small: each sum is then divided by
    u[φ_j], which may be small itself.
    """
    order, used, before, allocated = found
    given = gradient.gather(-1, order)
    products = given * allocated
    later = products[:, 1:].flip(-1).cumsum(-1).flip(-1)
    after = torch.cat([later, torch.zeros_like(products[:, :1])], dim=-1)
    to_used = after.div_(used).addcmul_(given, before, value=-1)
    return torch.empty_like(gradient).scatter_(-1, order, to_used.mul_(1 - EPSILON))


def allocations(
    usage: Float[Tensor, "batch slots"], gates: Float[Tensor, "batch write_heads"]
) -> Float[Tensor, "batch write_heads slots"]:
    """One allocation for each write head, so that no two are sent to the same free slot.

    A head sees the usage that there will be once the heads before it have written what they allocate:
    u ← u + (1 - u) g a. That order is a loop over heads by nature; most memories have one.

    Args:
        gates: g, how much of its allocation a head will write: its write gate times its allocation gate.
    """
    found = []
    for gate in gates.unsqueeze(-1).unbind(1):
        found.append(allocation(usage))
        usage = usage + (1 - usage) * gate * found[-1] if len(found) < gates.shape[1] else usage
    return torch.stack(found, dim=1)
