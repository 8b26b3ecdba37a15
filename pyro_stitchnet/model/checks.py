"""What every function of slices refuses, before any network runs."""

from torch import Tensor

from pyro_stitchnet.model.slice_vae import SliceVAE
from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.model.svae import check_size

__all__ = ["check_slices"]


def check_slices(net: StitchNet | SliceVAE, x: Tensor, *, nan: bool = False) -> None:
    """Refuse anything but a batch of slices for ``net``.

    Args:
        net: the model.
        x: slices (N, H, W).
        nan: whether NaN may be among the grey values. Training skips and counts such steps.

    Raises:
        TypeError: ``x`` is not a tensor.
        ValueError: ``x`` is not (N, H, W), a size is not a multiple of 32 (times the model's
            ``downsampling``), it is not of the model's type or device, or has values outside
            [0, 1].
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"slices must be a tensor, got {type(x).__name__}; see torch.as_tensor")
    if x.ndim == 4 and x.shape[1] == 3:
        raise ValueError(
            f"slices of shape {tuple(x.shape)} have 3 channels; give grey values (N, H, W)"
        )
    check_size(tuple(x.shape), net.config.downsampling)
    weight = next(net.parameters())
    if x.device != weight.device:
        raise ValueError(f"slices are on {x.device}, the model on {weight.device}; move them there")
    if x.dtype != weight.dtype:
        raise ValueError(f"slices must be {weight.dtype}, got {x.dtype}: scale and convert them")
    if x.is_meta:  # has no values
        return
    if not nan and x.isnan().any():
        raise ValueError("slices contain NaN; replace it by the grey value of air")
    if ((x < 0) | (x > 1)).any():
        raise ValueError("slices must have grey values in [0, 1]: window and scale them first")
