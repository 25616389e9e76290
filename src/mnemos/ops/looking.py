"""Whether to look at values before deciding what to compute."""

import torch
from torch import Tensor


def may_look(x: Tensor) -> bool:
    """Whether values may decide what is computed: a compiled graph cannot look, a GPU would wait.

    What is decided so must not show but in speed.
    """
    return not torch.compiler.is_compiling() and x.device.type == "cpu"
