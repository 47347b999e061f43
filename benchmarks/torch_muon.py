"""Muon in PyTorch: momentum with an orthogonalised update of each filter bank (Jordan et al. 2024)."""

from collections.abc import Callable
from typing import Any

import torch

# Coefficients of the quintic x -> a x + b x^3 + c x^5, which maps singular values in (0, 1] to about 1 in a few
# iterations.
QUINTIC = (3.4445, -4.7750, 2.0315)
TURNS = 3


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """Approximately U V^T for a matrix U S V^T, by Newton-Schulz iterations in bfloat16, as in the author's code."""
    a, b, c = QUINTIC
    x = matrix.bfloat16()
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(TURNS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonal updates, and filter banks that are rescaled to the norm sqrt(filters).

    Args:
      params: parameters with at least two axes; the first axis is the filters.
      learning_rate: factor of the orthogonal update.
      momentum: factor of the running sum of the gradients.
      compiled: a function that is applied to `orthogonalized`, such as torch.compile.
    """

    def __init__(
        self,
        params: list[torch.Tensor],
        learning_rate: float,
        momentum: float,
        compiled: Callable[[Any], Any] = lambda function: function,
    ) -> None:
        super().__init__(params, {"lr": learning_rate, "momentum": momentum})
        self._orthogonalized = compiled(orthogonalized)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update all parameters by one step."""
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                buffer = state["momentum"]
                buffer.mul_(group["momentum"]).add_(p.grad)
                gradient = p.grad.add(buffer, alpha=group["momentum"])
                p.mul_(len(p) ** 0.5 / p.norm())
                update = self._orthogonalized(gradient.flatten(1)).view_as(p)
                p.add_(update, alpha=-group["lr"])
