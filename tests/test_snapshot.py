"""Snapshots: bit for bit the state, or an error that says what is wrong with the file."""

import functools
import itertools
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import mnemos
from mnemos import snapshot
from mnemos.memories.base import Memory
from mnemos.retention.policy import decayed_strength, first_in_first_out
from mnemos.snapshot import SnapshotError


class Pair(NamedTuple):
    left: Any
    right: Any


class CounterState(NamedTuple):
    count: Tensor
    extra: Any


class Counter(Memory):
    """Adds its inputs up; anything may be hung into its state, and anything given as its setting."""

    def __init__(self, input_size: int, setting: Any = None):
        super().__init__()
        self.input_size = self.output_size = input_size
        self.setting = setting

    def initial_state(self, batch_size: int) -> CounterState:
        nothing = self._origin.new_zeros(batch_size, 0)
        return CounterState(self._origin.new_zeros(batch_size, self.input_size), Pair(nothing, nothing))

    def forward(self, inputs, state=None, *, mask=None, reset=None):
        state, _, _ = self.begin(inputs, state, mask, reset)
        sums = state.count.unsqueeze(1) + inputs.cumsum(1)
        return sums, state._replace(count=sums[:, -1])


class OtherCounter(Counter):
    pass


DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.bool,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.complex64,
]


def assert_identical(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, Tensor):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert raw(left) == raw(right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        assert_identical(list(left.values()), list(right.values()))
    elif left is not None:
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_identical(one, other)


def raw(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@st.composite
def any_tensor(draw) -> Tensor:
    """Any dtype and shape, with random bits: NaN payloads, infinities, subnormals, minus zero."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = int(torch.tensor(shape).prod()) * torch.empty((), dtype=dtype).element_size()
    bits = draw(st.binary(min_size=count, max_size=count))
    flat = torch.tensor(list(bits), dtype=torch.uint8)
    tensor = (flat % 2).bool() if dtype == torch.bool else flat.view(dtype)
    tensor = tensor.reshape(shape)
    return tensor.transpose(0, -1) if shape and draw(st.booleans()) else tensor


nested = st.recursive(
    any_tensor() | st.none(),
    lambda children: (
        st.lists(children, max_size=3)
        | st.lists(children, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4), children, max_size=3)
        | st.builds(Pair, children, children)
    ),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=any_tensor(), extra=nested)
def test_every_state_comes_back_bit_for_bit(tmp_path: Path, count: Tensor, extra: Any) -> None:
    state = CounterState(count, extra)
    mnemos.save(tmp_path / "state", Counter(2), state)
    assert_identical(mnemos.load(tmp_path / "state", Counter(2)), state)


def test_not_a_number_keeps_its_payload_and_zero_its_sign(tmp_path: Path) -> None:
    bits = torch.tensor([0x7FC00001, -0x3FFFFF, -0x80000000, 0x7F800001], dtype=torch.int32)
    state = CounterState(bits.view(torch.float32), None)
    mnemos.save(tmp_path / "state", Counter(4), state)
    assert torch.equal(mnemos.load(tmp_path / "state", Counter(4)).count.view(torch.int32), bits)


def test_shared_strided_conjugate_and_differentiable_tensors_are_saved_by_value(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    wave = torch.randn(3, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    state = CounterState(
        base.requires_grad_(),
        [base.T, base[:, 1], base[0].expand(4, 3), wave.conj(), wave.conj().imag, base.detach()],
    )
    mnemos.save(tmp_path / "state", Counter(3), state)
    loaded = mnemos.load(tmp_path / "state", Counter(3))
    for was, now in zip([state.count, *state.extra], [loaded.count, *loaded.extra], strict=True):
        assert torch.equal(was, now)
        assert not now.requires_grad
    loaded.count.zero_()
    assert torch.equal(loaded.extra[-1], base)


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        mnemos.save(tmp_path / name, Counter(2, {"x": 1, "y": (2, 3)}), small_state())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_name_that_looks_like_the_checksum_is_only_a_name(tmp_path: Path) -> None:
    state = CounterState(
        torch.ones(1), {'"checksum":"' + "0" * 64: torch.ones(1), '\\"checksum\\":\\"': None}
    )
    memory = Counter(1, '"checksum":"' + "0" * 64)
    mnemos.save(tmp_path / "state", memory, state)
    assert_identical(mnemos.load(tmp_path / "state", memory), state)


def small_state() -> CounterState:
    return CounterState(torch.tensor([[1.0, -2.0]]), Pair(torch.tensor([True]), torch.zeros(0)))


@pytest.fixture
def snapshot_file(tmp_path: Path) -> Path:
    mnemos.save(tmp_path / "state", Counter(2), small_state())
    return tmp_path / "state"


def test_truncated_at_every_byte_is_an_error(snapshot_file: Path) -> None:
    data = snapshot_file.read_bytes()
    for length in range(len(data)):
        snapshot_file.write_bytes(data[:length])
        with pytest.raises(SnapshotError, match=r"not a snapshot|truncated|header is damaged"):
            mnemos.load(snapshot_file, Counter(2))


def test_every_flipped_bit_is_an_error(snapshot_file: Path) -> None:
    data = snapshot_file.read_bytes()
    for position, bit in itertools.product(range(len(data)), range(8)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << bit
        snapshot_file.write_bytes(flipped)
        with pytest.raises(SnapshotError, match=r"not a snapshot|damaged"):
            mnemos.load(snapshot_file, Counter(2))


def test_what_is_appended_is_an_error(snapshot_file: Path) -> None:
    snapshot_file.write_bytes(snapshot_file.read_bytes() + b"\0")
    with pytest.raises(SnapshotError, match="damaged"):
        mnemos.load(snapshot_file, Counter(2))


def test_missing_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with pytest.raises(SnapshotError, match="cannot be read: No such file"):
        mnemos.load(path, Counter(2))
    for content in (b"", b"hello, world", bytes(1000), b"\x89PNG\r\n\x1a\n" * 30):
        path.write_bytes(content)
        with pytest.raises(SnapshotError, match="not a snapshot"):
            mnemos.load(path, Counter(2))
    save_file({"weight": torch.ones(3)}, path)
    with pytest.raises(SnapshotError, match="not a snapshot of a memory"):
        mnemos.load(path, Counter(2))


def test_a_snapshot_of_another_class_is_an_error_that_names_both(snapshot_file: Path) -> None:
    with pytest.raises(SnapshotError, match=r"is of a \S+\.Counter, not of a \S+\.OtherCounter"):
        mnemos.load(snapshot_file, OtherCounter(2))


@dataclass(frozen=True)
class Rate:
    value: float
    steps: tuple[int, ...]


@pytest.mark.parametrize(
    ("was", "now", "clause"),
    [
        (0.5, 0.25, "setting was 0.5, is 0.25"),
        (None, "cosine", "setting was None, is 'cosine'"),
        ((1, 2), (1, 3), "setting was [1, 2], is [1, 3]"),
        (first_in_first_out(), decayed_strength(60.0), "was 'first_in_first_out', is 'decayed_strength(60)'"),
        (Rate(0.1, (1, 2)), Rate(0.1, (1, 3)), "setting.steps was [1, 2], is [1, 3]"),
        (Counter(2), Counter(3), "setting.configuration.input_size was 2, is 3"),
        (nn.Linear(2, 3), nn.Linear(2, 4), "out_features=4"),
        (nn.functional.relu, nn.functional.silu, "functional.relu', is 'torch.nn.functional.silu'"),
        (torch.float16, torch.bfloat16, "setting was 'torch.float16', is 'torch.bfloat16'"),
        ({"a": 1}, {"b": 1}, "setting.a was 1, is None; setting.b was None, is 1"),
        (torch.ones(2), torch.zeros(2), "setting.tensor was"),
        (functools.partial(max, 1), functools.partial(max, 2), "setting.partial was"),
    ],
)  # fmt: skip
def test_another_configuration_is_an_error_that_says_what_differs(
    tmp_path: Path, was: Any, now: Any, clause: str
) -> None:
    mnemos.save(tmp_path / "state", Counter(2, was), small_state())
    assert_identical(mnemos.load(tmp_path / "state", Counter(2, was)), small_state())
    with pytest.raises(SnapshotError, match=re.escape(clause)):
        mnemos.load(tmp_path / "state", Counter(2, now))


def test_a_newer_format_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "FORMAT", 7)
        mnemos.save(tmp_path / "state", Counter(2), small_state())
    with pytest.raises(SnapshotError, match="has format 7, newer than 1"):
        mnemos.load(tmp_path / "state", Counter(2))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (3, r"state/extra is a int: a state of this memory is tensors in"),
        ({1: torch.ones(1)}, r"state/extra is a dict"),
        ([None, "text"], r"state/extra/1 is a str"),
        (torch.ones(2, dtype=torch.complex128), "torch.complex128, which safetensors cannot hold"),
        (torch.eye(2).to_sparse(), r"state/extra is torch.sparse_coo"),
        (CounterState, "state/extra is a type"),
        (torch.ones(2).max(dim=0), r"state/extra is a max: .* with string keys, and CounterState, Pair"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is_written(
    snapshot_file: Path, extra: Any, message: str
) -> None:
    before = snapshot_file.read_bytes()
    with pytest.raises(TypeError, match=message):
        mnemos.save(snapshot_file, Counter(2), CounterState(torch.ones(1), extra))
    with pytest.raises(TypeError, match="state is a Tensor, those of this Counter are CounterState"):
        mnemos.save(snapshot_file, Counter(2), torch.ones(2))
    with pytest.raises(TypeError, match=r"Counter.setting = .* cannot be recorded"):
        mnemos.save(snapshot_file, Counter(2, lambda x: x), small_state())
    assert snapshot_file.read_bytes() == before
    assert os.listdir(snapshot_file.parent) == [snapshot_file.name]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_snapshot_and_no_debris(
    snapshot_file: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(snapshot.os, call, full)
        with pytest.raises(OSError, match="No space left"):
            mnemos.save(snapshot_file, Counter(2), CounterState(torch.zeros(9), None))
    assert_identical(mnemos.load(snapshot_file, Counter(2)), small_state())
    assert os.listdir(snapshot_file.parent) == [snapshot_file.name]


def test_loads_onto_the_device_of_the_memory(snapshot_file: Path) -> None:
    loaded = mnemos.load(snapshot_file, Counter(2).to("meta"))
    assert loaded.count.device.type == "meta"


CONTINUE = """
import sys, torch, mnemos
from test_snapshot import Counter
memory = Counter(2)
inputs = torch.load(sys.argv[2])
outputs, state = memory(inputs, mnemos.load(sys.argv[1], memory))
mnemos.save(sys.argv[1], memory, state)
"""


def in_new_process(program: str, *arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_saved_opened_in_a_new_process_and_continued_is_bit_identical(tmp_path: Path) -> None:
    inputs = torch.randn(1, 12, 2, generator=torch.Generator().manual_seed(0))
    memory = Counter(2)
    _, halfway = memory(inputs[:, :5])
    mnemos.save(tmp_path / "state", memory, halfway)
    torch.save(inputs[:, 5:], tmp_path / "inputs")
    with in_new_process(CONTINUE, str(tmp_path / "state"), str(tmp_path / "inputs")) as process:
        assert process.wait() == 0
    _, expected = memory(inputs[:, 5:], halfway)
    assert_identical(mnemos.load(tmp_path / "state", memory), expected)


# One import of torch for all kills: the parent forks a saver that it kills, again and again.
SAVE_UNTIL_KILLED = """
import os, random, signal, sys, time
import torch, mnemos
from test_snapshot import Counter, CounterState
random.seed(0)
for kill in range(25):
    saver = os.fork()
    if saver == 0:
        number = 1000 * kill
        while True:
            number += 1
            full = torch.full((50_000,), float(number))
            mnemos.save(sys.argv[1], Counter(2), CounterState(full, [full[:7]]))
    time.sleep(random.uniform(0.002, 0.06))
    os.kill(saver, signal.SIGKILL)
    os.waitpid(saver, 0)
    state = mnemos.load(sys.argv[1], Counter(2))
    number = state.count[0]
    print(int(number), bool((state.count == number).all() and (state.extra[0] == number).all()))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_while_saving_leaves_a_whole_snapshot(snapshot_file: Path) -> None:
    mnemos.save(snapshot_file, Counter(2), CounterState(torch.zeros(3), [torch.zeros(1)]))
    with in_new_process(SAVE_UNTIL_KILLED, str(snapshot_file)) as process:
        lines = [line.split() for line in process.communicate()[0].splitlines()]
    assert process.returncode == 0
    assert [whole for _, whole in lines] == ["True"] * 25
    assert len({number for number, _ in lines}) > 5  # it really was saving when it was killed
