"""The processes of a training run."""

import atexit
import os

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from pyro_stitchnet.runtime.devices import choose_device
from pyro_stitchnet.runtime.distributed import leave
from pyro_stitchnet.runtime.precision import Precision, resolved

__all__ = ["is_first", "make_fabric"]

TORCHRUN = {"TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE", "WORLD_SIZE", "LOCAL_RANK", "RANK"}

STARTER = "STITCHNET_STARTER"
"""The variable by which a training process knows the one that started it."""


def make_fabric(
    device: str = "auto", *, processes: int = 1, nodes: int = 1, precision: Precision = "32"
) -> Fabric:
    """Return the processes of a training run, not yet launched.

    Under torchrun the numbers of processes and machines are those of torchrun. Variables of a
    program that did not start this run are ignored, such as SLURM's in a job without srun.

    Args:
        device: as for :func:`~pyro_stitchnet.runtime.devices.choose_device`.
        processes: on this machine, one per GPU.
        nodes: number of machines.
        precision: of the networks; "16-mixed" needs a GPU, "auto" is
            as in :func:`~pyro_stitchnet.runtime.precision.resolved`.

    Raises:
        ValueError: there is no such device on this machine, or there are fewer than ``processes``;
            or the variables of srun or torchrun have values that those programs do not set.
    """
    if os.environ.keys() >= TORCHRUN:
        processes, nodes = _of_torchrun()
    kind, index = (chosen := choose_device(device)).type, chosen.index
    bits = resolved(precision, chosen)
    if kind == "cuda" and processes > torch.cuda.device_count():
        raise ValueError(
            f"{processes} processes need a GPU each, but there are {torch.cuda.device_count()}"
        )
    if index is not None and processes > 1:
        raise ValueError(f"{processes} processes cannot share {device}; take --device {kind}")
    several = processes * nodes > 1
    if several:
        atexit.register(leave)
    for name in ("ACCELERATOR", "STRATEGY", "DEVICES", "NUM_NODES", "PRECISION", "CLI_USED"):
        os.environ.pop(f"LT_{name}", None)  # of Fabric's own command; they would win
    return Fabric(
        accelerator=kind,
        devices=processes if index is None or kind == "cpu" else [index],
        num_nodes=nodes,
        strategy="ddp" if several else "auto",
        precision="32-true" if bits == "32" else bits,
        plugins=_environment(processes, nodes),
    )


def is_first(fabric: Fabric) -> bool:
    """Return whether this is the first process of a run, before or after its launch."""
    environment = getattr(fabric.strategy, "cluster_environment", None)
    return environment is None or environment.local_rank() == environment.node_rank() == 0


def _of_torchrun() -> tuple[int, int]:
    """Return torchrun's number of processes on each machine, and of machines.

    Raises:
        ValueError: the variables have values that torchrun does not set.
    """
    here, all_ = (os.environ[name] for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    if not (here.isdecimal() and all_.isdecimal() and 1 <= int(here) <= int(all_)):
        raise ValueError(
            f"torchrun: LOCAL_WORLD_SIZE is {here!r} and WORLD_SIZE {all_!r}; unset both where "
            "torchrun did not start this"
        )
    return int(here), int(all_) // int(here)


def _environment(processes: int, nodes: int) -> ClusterEnvironment:
    """Return who starts the processes: torchrun, srun, or the first process itself."""
    if processes * nodes == 1:
        return LightningEnvironment()
    if os.environ.keys() >= TORCHRUN:
        return TorchElasticEnvironment()
    if "SLURM_STEP_ID" in os.environ and os.environ.get("SLURM_NTASKS") == str(processes * nodes):
        try:
            return SLURMEnvironment()
        except RuntimeError as error:
            raise ValueError(f"SLURM: {' '.join(str(error).split())}") from error
    started = os.environ.get(STARTER) == str(os.getppid()) and "LOCAL_RANK" in os.environ
    if not started:
        left = ["LOCAL_RANK", "RANK", "GROUP_RANK", "WORLD_SIZE"]
        if nodes == 1:
            left += ["NODE_RANK", "MASTER_ADDR", "MASTER_PORT"]
        for name in left:  # of another program: Fabric would wait for processes that never come
            os.environ.pop(name, None)
        os.environ[STARTER] = str(os.getpid())
    return LightningEnvironment()
