"""A readout that is solved and not trained, and so forgets nothing."""

from collections.abc import Callable
from typing import Any, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.functional import one_hot

Features = Callable[[Tensor], Tensor]  # inputs to features, (rows, width)


@final
class AnalyticReadout(nn.Module):
    """Ridge regression from features that stay as they are to targets, over all that was ever observed.

        readout = AnalyticReadout(RandomFeatures(784, 2000), width=2000, outputs=10)
        for inputs, targets in batches:  # in any order, of any contexts, once
            readout.observe(inputs, targets)
        readout(inputs).argmax(1)

    W = (XᵀX + λI)⁻¹ XᵀY. Both products are sums over examples, so after any order and any split of the data W
    is the joint solution: Zhuang et al. 2022, "ACIL: Analytic Class-Incremental Learning with Absolute
    Memorization and Privacy Protection"; over random features, McDonnell et al. 2023, "RanPAC". No example is
    kept.

    ACIL updates (XᵀX + λI)⁻¹ itself, by Woodbury's identity. That subtracts from I/λ what was seen, nearly
    all of it where λ is small, and the rounding of every update stays; it also fixes λ beforehand. Here the
    sums are kept, in float64, where an addition loses only its own last bit. They are solved by a Cholesky
    factor when an answer is asked for: width³/3 multiplications once after all that was observed, beside
    width² for each example.

    The network that makes the features is measured as it is: call `eval()` on it, and let it learn no more.

    Args:
        features: inputs to (rows, width).
        width: of the features.
        outputs: targets' width, or the number of classes; `grow` makes it more.
        ridge: λ above 0, in units of the squared features; may be changed at any time.
    """

    gram: Tensor
    cross: Tensor

    def __init__(self, features: Features, width: int, outputs: int, ridge: float = 1.0) -> None:
        super().__init__()
        if width < 1 or outputs < 1:
            raise ValueError(f"width and outputs must be at least 1, not {width} and {outputs}")
        self.features, self.width, self.outputs = features, width, outputs
        self.ridge = ridge
        self.register_buffer("gram", torch.zeros(width, width, dtype=torch.float64))  # XᵀX
        self.register_buffer("cross", torch.zeros(width, outputs, dtype=torch.float64))  # XᵀY
        self._solved: tuple[Tensor, ...] | None = None  # the weights, after what they were solved from

    @property
    def ridge(self) -> float:
        return self._ridge

    @ridge.setter
    def ridge(self, ridge: float) -> None:
        if not 0 < ridge < float("inf"):
            raise ValueError(f"ridge must be above 0 and finite, not {ridge}")
        self._ridge, self._solved = ridge, None

    @torch.no_grad()
    def observe(self, inputs: Tensor, targets: Shaped[Tensor, "rows ..."]) -> None:
        """Takes a batch in.

        Args:
            targets: classes (rows,), integers; or floats (rows, outputs).

        Raises:
            ValueError: targets or features that do not fit; nothing has changed.
        """
        wanted = self._wanted(targets)
        found = self._features(inputs)
        if len(found) != len(wanted):
            raise ValueError(f"targets must be of {len(found)} inputs, not {len(wanted)}")
        self.gram.addmm_(found.mT, found)
        self.cross.addmm_(found.mT, wanted.to(found.device))
        self._solved = None

    def forward(self, inputs: Tensor) -> Float[Tensor, "rows outputs"]:
        """What ridge regression answers, in the precision of the features; 0 for a class never seen.

        Raises:
            ValueError: λ is too small beside the features for float64.
        """
        with torch.no_grad():
            given = self.features(inputs)
            return (self._check(given).double() @ self.weights).to(given.dtype)

    @property
    def weights(self) -> Float[Tensor, "width outputs"]:
        """W, solved if something was observed since.

        Raises:
            ValueError: λ is too small beside the features for float64.
        """
        if self._solved is None or self._solved[0] is not self.gram:  # moved, or loaded
            regular = self.gram.clone()
            regular.diagonal().add_(self.ridge)
            factor, failed = torch.linalg.cholesky_ex(regular)
            if failed:
                raise ValueError(
                    f"ridge must be larger: beside sums of squares up to {regular.diagonal().max():.1e}, "
                    f"{self.ridge} is lost in float64"
                )
            self._solved = self.gram, torch.cholesky_solve(self.cross, factor)
        return self._solved[1]

    def grow(self, outputs: int) -> None:
        """Makes room for more classes; it is as if they had been there from the beginning.

        Raises:
            ValueError: fewer than there are.
        """
        if outputs < self.outputs:
            raise ValueError(f"outputs must be at least the {self.outputs} there are, not {outputs}")
        self.cross = torch.cat([self.cross, self.cross.new_zeros(self.width, outputs - self.outputs)], dim=1)
        self.outputs, self._solved = outputs, None

    def _wanted(self, targets: Tensor) -> Tensor:
        if targets.is_floating_point() and targets.dim() == 2 and targets.shape[1] == self.outputs:
            return targets.double()
        whole = not targets.is_floating_point() and targets.dtype != torch.bool and targets.dim() == 1
        if not whole or (len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < self.outputs):
            raise ValueError(
                f"targets must be classes from 0 to {self.outputs - 1}, or floats (rows, {self.outputs}), "
                f"not {targets.dtype} of shape {tuple(targets.shape)}"
                + (f" up to {targets.max()}" if whole else "")
            )
        return one_hot(targets.long(), self.outputs).double()

    def _features(self, inputs: Tensor) -> Tensor:
        found = self._check(self.features(inputs)).double()
        if not found.isfinite().all():
            raise ValueError("features must be finite: what is not would stay in the sums for ever")
        return found

    def _check(self, found: Tensor) -> Tensor:
        if found.dim() != 2 or found.shape[1] != self.width:
            raise ValueError(f"features must be (rows, {self.width}), not {tuple(found.shape)}")
        return found

    def _load_from_state_dict(self, *arguments: Any, **more: Any) -> None:
        super()._load_from_state_dict(*arguments, **more)
        self._solved = None


@final
class RandomFeatures(nn.Module):
    """max(0, Wx) √(2 / width), with weights W drawn once from a normal distribution of variance 1 / inputs.

    Products of two such vectors come, with growing width, to the arc-cosine kernel of the inputs (Cho & Saul
    2009, "Kernel Methods for Deep Learning", degree 1) over the number of inputs, so that what a ridge means
    does not depend on the width.

    Args:
        inputs: numbers in an input; it is taken flat.
        width: features.
        seed: of W, which is saved too.
    """

    weight: Tensor

    def __init__(self, inputs: int, width: int, seed: int = 0) -> None:
        super().__init__()
        if inputs < 1 or width < 1:
            raise ValueError(f"inputs and width must be at least 1, not {inputs} and {width}")
        self.inputs, self.width, self.seed = inputs, width, seed
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("weight", torch.randn(width, inputs, generator=generator) * inputs**-0.5)

    def forward(self, inputs: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows width"]:
        return nn.functional.linear(inputs.flatten(1), self.weight).relu() * (2 / self.width) ** 0.5
