"""What we ask of flash-linear-attention's kernels is our loop.

Three times, for that library is seldom there, and a GPU hardly ever: with stand-ins that do what its kernels
are documented to do; with the kernels on the CPU, in Triton's interpreter (slow); with the kernels on a GPU.
"""

import builtins
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from mnemos.memories import DeltaRule, GatedDelta, GatedDelta2, KimiDelta, LinearAttention, fast_weights
from mnemos.ops import delta_kernels
from mnemos.ops.delta_kernels import Kernels, can_fuse, delta_rule_fused
from mnemos.ops.delta_rule import delta_rule_loop, unit

# The kernel, then the channels of what is committed, erased and kept: "one" is a number a head, None none.
KINDS = {
    "linear attention": ("linear_attention", "one", None, None),
    "linear attention that forgets": ("linear_attention", "one", None, "one"),
    "linear attention by channel": ("gated_delta_2", "each", None, "each"),
    "delta rule": ("delta_rule", "one", "the same", None),
    "gated delta rule": ("gated_delta", "one", "the same", "one"),
    "Kimi delta attention": ("kimi_delta", "one", "the same", "each"),
    "gated delta rule 2": ("gated_delta_2", "each", "each", "each"),
    "erased by channel, nothing forgotten": ("gated_delta_2", "one", "each", None),
}
REAL = [  # one for each kernel and its optional gate
    "linear attention",
    "linear attention that forgets",
    "delta rule",
    "gated delta rule",
    "Kimi delta attention",
    "gated delta rule 2",
]
MISSING = "flash-linear-attention is not installed"


def problem(
    kind: str, time: int, *, keys: int = 24, width: int = 20, heads: int = 2, device: str = "cpu"
) -> dict[str, Tensor | None]:
    """Two rows, the second padded at its end, with a hole in both; gradients wanted."""
    made = torch.Generator().manual_seed(time)
    real = torch.ones(2, time, 1, 1)
    real[:, 3:5] = 0
    real[1, time - time // 4 :] = 0

    def normal(channels: int) -> Tensor:
        return torch.randn(2, time, heads, channels, generator=made)

    def gate(channels: str | None, each: int) -> Tensor | None:
        return None if channels is None else normal({"one": 1, "each": each}[channels])

    _, committed, erased, kept = KINDS[kind]
    parts = {
        "queries": normal(keys),
        "keys": unit(normal(keys)),
        "values": normal(width),
        "weights": torch.randn(2, heads, width, keys, generator=made),
        "committed": real * gate(committed, width).sigmoid(),
    }
    if erased == "each":
        parts["erased"] = real * gate(erased, keys).sigmoid()
    if kept is not None:
        parts["log_decay"] = -real * gate(kept, keys).exp()
        parts["log_decay"][:, 2::7] = -1e4  # nothing is kept
    parts = {name: part.to(device).requires_grad_() for name, part in parts.items()}
    return {"erased": parts["committed"] if erased == "the same" else None, **parts}


def documents(time: int) -> Tensor:
    reset = torch.zeros(2, time, dtype=torch.bool)
    reset[0, [time // 3, time // 2, time - 1]] = True
    reset[1, 0] = True
    return reset


def looped(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    weights: Tensor,
    *,
    committed: Tensor,
    erased: Tensor | None,
    **named: Tensor | None,
) -> tuple[Tensor, Tensor]:
    erased = None if erased is None else erased * keys
    return delta_rule_loop(queries, keys, committed * values, erased, weights, read_first=True, **named)


def differences(form: Callable, kind: str, time: int, parted: bool, device: str = "cpu") -> dict[str, float]:
    """How far outputs, weights and gradients are from the loop's, relative to their greatest value."""
    found, reset = [], documents(time).to(device) if parted else None
    for computes in (form, looped):
        parts = problem(kind, time, device=device)
        read, weights = computes(**parts, reset=reset)
        loss = read.float().sin().sum() + weights.sin().sum()
        wanted = {name: part for name, part in parts.items() if part is not None}
        slopes = torch.autograd.grad(loss, list(wanted.values()))
        found.append({"read": read, "after": weights} | dict(zip(wanted, slopes, strict=True)))
    theirs, ours = found
    return {
        name: ((theirs[name] - own).abs().max() / own.abs().max().clamp_min(1e-3)).item()
        for name, own in ours.items()
    }


def kernel(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None = None,
    beta: Tensor | None = None,
    b: Tensor | None = None,
    w: Tensor | float = 1.0,
    *,
    scale: float,
    initial_state: Tensor,
    output_final_state: bool,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What all kernels are documented to do: read after writing, a state of (keys, values) a document."""
    assert scale == 1
    assert output_final_state
    if g is not None and g.dim() == 3:
        g = g.unsqueeze(-1)
    if beta is not None:
        b = w = beta.unsqueeze(-1)
    written, erased = w * v, None if b is None else b * k
    edges = [0, q.shape[1]] if cu_seqlens is None else cu_seqlens.tolist()
    assert cu_seqlens is None or len(q) == 1
    found = []
    for number, (start, end) in enumerate(pairwise(edges)):
        steps = (None if x is None else x[:, start:end] for x in (q, k, written, erased))
        state = initial_state if cu_seqlens is None else initial_state[number : number + 1]
        found.append(delta_rule_loop(*steps, state.mT, log_decay=None if g is None else g[:, start:end]))
    read, after = zip(*found, strict=True)
    return torch.cat(read, dim=1), torch.cat(after).mT


TAKES = {  # axes of the gates that each kernel of theirs has
    "linear_attention": {"g": 3},
    "delta_rule": {"beta": 3},
    "gated_delta": {"g": 3, "beta": 3},
    "kimi_delta": {"g": 4, "beta": 3},
    "gated_delta_2": {"g": 4, "b": 4, "w": 4},
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand-ins take the place of the kernels; the names of those that were asked."""
    names: list[str] = []

    def stand_in(name: str, **given: Tensor) -> tuple[Tensor, Tensor]:
        names.append(name)
        axes = {gate: x.dim() for gate, x in given.items() if gate in ("g", "beta", "b", "w")}
        assert axes == TAKES[name] or (name == "linear_attention" and not axes)
        if name == "gated_delta_2":
            assert given["w"].shape == given["v"].shape
            assert given["b"].shape == given["g"].shape == given["k"].shape
        return kernel(**given)

    stand_ins = Kernels(*(partial(stand_in, name) for name in Kernels._fields))
    monkeypatch.setattr(delta_kernels, "installed", lambda: stand_ins)
    return names


@pytest.mark.parametrize("parted", [False, True], ids=["whole", "documents"])
@pytest.mark.parametrize("time", [1, 7, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_as_documented_the_kernels_are_the_loop(kind: str, time: int, parted: bool, asked: list[str]) -> None:
    form = partial(delta_rule_fused, dtype=torch.float32)
    assert all(difference < 2e-5 for difference in differences(form, kind, time, parted).values())
    assert asked == [KINDS[kind][0]]


MEMORIES = {
    "linear_attention": LinearAttention,
    "delta_rule": DeltaRule,
    "gated_delta": GatedDelta,
    "kimi_delta": KimiDelta,
    "gated_delta_2": GatedDelta2,
}


@pytest.mark.parametrize("name", MEMORIES)
def test_a_memory_asks_the_kernel_of_its_name(
    name: str, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    memory = MEMORIES[name](6, heads=2, key_size=16, value_size=5)
    inputs, mask = torch.randn(2, 12, 6), torch.rand(2, 12) > 0.2
    _, state = memory(torch.randn(2, 3, 6))
    expected = memory(inputs, state, mask=mask, reset=documents(12))
    assert not asked  # not on the CPU
    monkeypatch.setattr(fast_weights, "can_fuse", lambda *given: True)
    monkeypatch.setattr(fast_weights, "delta_rule_fused", partial(delta_rule_fused, dtype=torch.float32))
    found = memory(inputs, state, mask=mask, reset=documents(12))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert asked == [name]
    memory.naive = True
    memory(inputs, state)
    assert asked == [name]


def test_only_bfloat16_on_a_gpu_asks_them(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def made(
        device: str = "cuda", dtype: torch.dtype = torch.bfloat16, time: int = 64, keys: int = 64
    ) -> bool:
        parts = [torch.empty(1, time, 64, device=device, dtype=dtype) for _ in range(3)]
        return can_fuse(*parts, torch.empty(1, 1, 64, keys, device=device))

    with FakeTensorMode():  # knows a device that is not there
        assert made()
        assert not made(device="cpu")
        assert not made(dtype=torch.float32)
        assert not made(dtype=torch.float16)
        assert not made(time=63)
        assert not made(keys=8)
        assert not made(keys=257)
        with monkeypatch.context() as patch:
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
            assert not made()
        monkeypatch.setattr(delta_kernels, "installed", lambda: None)
        assert not made()


def test_the_cpu_does_not_import_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta_kernels, "installed", lambda: pytest.fail("imports the kernels"))
    memory = DeltaRule(4, key_size=16).bfloat16()
    memory(torch.randn(1, 65, 4, dtype=torch.bfloat16))


@pytest.fixture(scope="module")
def interpreted() -> dict[str, dict[str, float]]:
    """Differences of the kernels themselves, run by this file as a program."""
    if find_spec("fla") is None:
        pytest.skip(MISSING)
    # -O leaves out an assertion of theirs that refuses float32 for the plain delta rule.
    program = [sys.executable, "-O", __file__]
    run = subprocess.run(
        program, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("parted", [False, True], ids=["whole", "documents"])
@pytest.mark.parametrize("kind", REAL)
def test_interpreted_the_kernels_are_the_loop(kind: str, parted: bool, interpreted: dict) -> None:
    """In float32. That they compute what they should, not how they round, nor that they compile."""
    found = interpreted[f"{kind}, {parted}"]
    assert {"read", "after", "queries", "weights"} < set(found)
    assert all(difference < 2e-5 for difference in found.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.skipif(find_spec("fla") is None, reason=MISSING)
@pytest.mark.parametrize("parted", [False, True], ids=["whole", "documents"])
@pytest.mark.parametrize("kind", REAL)
def test_on_a_gpu_the_kernels_are_the_loop(kind: str, parted: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = differences(delta_rule_fused, kind, 200, parted, "cuda")
    assert all(difference < 5e-2 for difference in found.values())  # of bfloat16, which rounds by 4e-3


class Step(int):
    """A number that converts as a tensor does: in the interpreter what a loop counts is a plain one."""

    def to(self, dtype: object) -> "Step":
        return self


def main() -> None:
    """Prints the differences of the kernels, in float32 in Triton's interpreter, which has no bfloat16."""
    from triton.runtime.autotuner import Autotuner

    def steps(*bounds: int) -> Iterator[Step]:
        return map(Step, builtins.range(*bounds))

    warnings.simplefilter("ignore")  # that there is no GPU
    Autotuner.prune_configs = lambda self, *given: self.configs[:1]  # nothing is timed
    delta_kernels.installed()
    for name, module in list(sys.modules.items()):
        if name.startswith("fla.ops.common"):
            module.range = steps
    form = partial(delta_rule_fused, dtype=torch.float32)
    found = {
        f"{kind}, {parted}": differences(form, kind, 70, parted) for kind in REAL for parted in (False, True)
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
