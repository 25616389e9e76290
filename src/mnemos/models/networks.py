"""Networks by the name of their memory, for tasks; and the folder that keeps a trained one."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

import mnemos.memories
from mnemos.memories.base import Memory
from mnemos.memories.stepped import SteppedMemory
from mnemos.models.folder import ModelError, load_folder, save_folder
from mnemos.models.memory_augmented import MemoryAugmented

WEIGHTS = "model.safetensors"

# For every name the memory's class, and what it is built with where nothing else is asked for.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("Recurrent", {"cell": "lstm"}),
    "gru": ("Recurrent", {"cell": "gru"}),
    "rnn": ("Recurrent", {"cell": "rnn"}),
    "ntm": ("NTM", {"slots": 128, "width": 20}),
    "dnc": ("DNC", {"slots": 64, "width": 16, "read_heads": 4}),
    "dnc-mds": (
        "DNC",
        {
            "slots": 64,
            "width": 16,
            "read_heads": 4,
            "masked_content": True,
            "erase_freed": True,
            "sharpen_links": True,
        },
    ),
    "mann": ("MANN", {}),
    "sam": ("SAM", {}),
    "sdnc": ("SDNC", {}),
    "fast-weights": ("BaFastWeights", {"hidden_size": 50}),
    "linear-attention": ("LinearAttention", {"heads": 4, "key_size": 16, "value_size": 16}),
    "delta-rule": ("DeltaRule", {"heads": 4, "key_size": 16, "value_size": 16}),
    "s4d": ("S4D", {}),
    "selective-state-space": ("SelectiveStateSpace", {}),
    "gated-delta": ("GatedDelta", {"heads": 4, "key_size": 16, "value_size": 16}),
    "kimi-delta": ("KimiDelta", {"heads": 4, "key_size": 16, "value_size": 16}),
    "gated-delta-2": ("GatedDelta2", {"heads": 4, "key_size": 16, "value_size": 16}),
    "segment-attention": ("SegmentAttention", {"window": 64, "heads": 4}),
}


@final
class Readout(nn.Module):
    """A memory between a linear map of the inputs and one of what the memory answers."""

    def __init__(self, input_size: int, memory: Memory, output_size: int) -> None:
        super().__init__()
        self.input = nn.Linear(input_size, memory.input_size)
        self.memory = memory
        self.output = nn.Linear(memory.output_size, output_size)

    def forward(
        self,
        inputs: Float[Tensor, "batch time input"],
        state: Any = None,
        *,
        mask: Bool[Tensor, "batch time"] | None = None,
        reset: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], Any]:
        """As `Memory.forward`, except that outputs at masked steps are the last layer's bias."""
        if mask is not None:
            inputs = inputs.masked_fill(~mask.unsqueeze(-1), 0)
        outputs, state = self.memory(self.input(inputs), state, mask=mask, reset=reset)
        return self.output(outputs), state


@dataclass(frozen=True)
class Recipe:
    """What would build a network again, without its weights.

    Args:
        memory: a name of `KINDS`.
        hidden_size: of the controller, an LSTM, where the memory has heads; else the width of the layers
            around the memory.
        arguments: of the memory's constructor, over those of `KINDS`.
    """

    memory: str
    input_size: int
    output_size: int
    hidden_size: int = 100
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """The network with new weights: `outputs, state = network(inputs, state, mask=mask)`.

        Raises:
            ValueError: no such memory, or arguments that it does not take.
        """
        if self.memory not in KINDS:
            raise ValueError(f"memory must be one of {', '.join(KINDS)}, not {self.memory!r}")
        name, given = KINDS[self.memory]
        kind: Callable[..., Memory] = getattr(mnemos.memories, name)
        arguments = {**given, **self.arguments}
        try:
            if name == "Recurrent":
                arguments = {"hidden_size": self.hidden_size, **arguments}
            memory = kind(self.hidden_size, **arguments)
        except TypeError as error:
            raise ValueError(f"{self.memory} cannot be built: {error}") from None
        if name == "Recurrent" or not isinstance(memory, SteppedMemory):
            return Readout(self.input_size, memory, self.output_size)
        controller = mnemos.memories.Recurrent(self.input_size + memory.output_size, self.hidden_size)
        return MemoryAugmented(controller, memory, self.output_size)


def save_network(folder: str | Path, recipe: Recipe, network: nn.Module, **facts: Any) -> None:
    """Writes a network to a folder; see `models.folder.save_folder`.

    Args:
        facts: what else is to be known of it, as JSON has it.
    """
    weights = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    save_folder(folder, {"network": asdict(recipe), **facts}, {WEIGHTS: save(weights)})


def load_network(folder: str | Path) -> tuple[nn.Module, Recipe, dict[str, Any]]:
    """The network in evaluation mode, its recipe, and the facts beside it.

    Raises:
        ModelError: no network in the folder, or a damaged one.
    """
    config, contents, _ = load_folder(folder, WEIGHTS)
    try:
        recipe = Recipe(**config.pop("network"))
        network = recipe.build()
        network.load_state_dict(load(contents[WEIGHTS]))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder} cannot be opened: {error}") from error
    return network.eval(), recipe, config
