"""Pyro's estimators of the bound, in float32 whatever the precision of the networks."""

from collections.abc import Callable
from typing import Any

import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

__all__ = ["Float32TraceEnum_ELBO"]


class Float32TraceEnum_ELBO(TraceEnum_ELBO):
    """TraceEnum_ELBO whose sums over enumerated sites leave autocast.

    Pyro contracts log-probabilities with einsum, which autocast runs in bf16 or fp16: an error of
    .1 % of the bound. Model and guide still run under the caller's autocast. This holds for
    :meth:`differentiable_loss`, which training uses.
    """

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the negative bound, a scalar."""
        device = "cuda" if torch.is_autocast_enabled("cuda") else "cpu"
        enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

        def autocast(program: Callable[..., Any]) -> Callable[..., Any]:
            def run(*a: Any, **k: Any) -> Any:
                with torch.autocast(device, dtype, enabled=enabled):
                    return program(*a, **k)

            return run

        with torch.autocast(device, enabled=False):
            loss: Tensor = super().differentiable_loss(
                autocast(model), autocast(guide), *args, **kwargs
            )
        return loss
