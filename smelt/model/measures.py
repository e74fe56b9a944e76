"""What training follows beside its loss, averaged over the tokens of a step."""

import torch
from torch import Tensor, nn


class TokenMeans(nn.Module):
    """Means over tokens, by name, since the last step; micro-batches add to them."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        # Never on the meta device, where a decoder is built before it is loaded: nothing fills a buffer later.
        self.register_buffer("sums", torch.zeros(2, len(names), device="cpu"), persistent=False)  # values, tokens

    @torch.no_grad()
    def add(self, name: str, values: Tensor, counted: Tensor) -> None:
        """`values` where the boolean `counted` of the same shape holds."""
        self.sums[:, self.names.index(name)] += torch.stack((values.where(counted, 0).sum(), counted.sum()))

    @torch.no_grad()
    def settle(self) -> dict[str, Tensor]:
        """Sum of values and number of tokens by name, `[2]` on the device; then starts afresh."""
        sums = self.sums.clone().unbind(1)
        self.sums.zero_()
        return dict(zip(self.names, sums, strict=True))


def totals(model: nn.Module) -> dict[str, Tensor]:
    """To call after each optimizer step: sum of values and number of tokens, `[2]`, of all that `model` followed."""
    kept = [module for module in model.modules() if isinstance(module, TokenMeans)]
    return {name: total for module in kept for name, total in module.settle().items()}


def mean(total: Tensor) -> Tensor:
    """Of one of `totals`."""
    return total[0] / total[1].clamp(min=1)
