"""The processes of a training run: errors, and settings of torchrun and SLURM."""

import os

import pytest
import torch
from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment

from pyro_stitchnet.runtime.fabric import STARTER, is_first, make_fabric
from pyro_stitchnet.runtime.precision import resolved

SLURM = {
    "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train.sh", "SLURM_NTASKS": "2", "SLURM_NNODES": "1",
    "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "node1",
}  # fmt: skip


def test_16_bit_floats_need_a_gpu() -> None:
    with pytest.raises(ValueError, match="take bf16-mixed"):
        make_fabric("cpu", precision="16-mixed")


@pytest.mark.parametrize(
    ("capabilities", "precision", "fabrics"),
    [
        ({"avx512_bf16": True}, "bf16-mixed", "bf16-mixed"),
        ({"bf16": True}, "bf16-mixed", "bf16-mixed"),
        ({"avx512_f": True, "amx_bf16": False}, "32", "32-true"),
    ],
)
def test_auto_is_bf16_where_the_processor_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], precision: str, fabrics: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolved("auto", torch.device("cpu")) == precision
    assert make_fabric("cpu", precision="auto").strategy.precision.precision == fabrics


def test_processes_need_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyro_stitchnet.runtime.fabric.choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="2 processes need a GPU each, but there are 1"):
        make_fabric("cuda", processes=2)


def test_torchrun_sets_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOCAL_WORLD_SIZE": 2, "WORLD_SIZE": 4, "RANK": 1, "LOCAL_RANK": 1,
                        "GROUP_RANK": 0, "MASTER_ADDR": "localhost", "MASTER_PORT": 1,
                        "TORCHELASTIC_RUN_ID": "a"}.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    fabric = make_fabric("cpu")
    assert fabric.strategy.cluster_environment.world_size() == 4  # type: ignore[attr-defined]
    assert fabric.strategy.num_processes == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(("here", "all_"), [("0", "0"), ("a", "2"), ("4", "2")])
def test_wrong_variables_of_torchrun_are_refused(
    here: str, all_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"LOCAL_WORLD_SIZE": here, "WORLD_SIZE": all_, "RANK": "0",
                        "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "a"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="torchrun: LOCAL_WORLD_SIZE is"):
        make_fabric("cpu")


@pytest.mark.parametrize("processes", [1, 2])
def test_slurm_without_srun_starts_no_processes(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    fabric = make_fabric("cpu", processes=processes)
    assert is_first(fabric)
    if processes > 1:
        environment = fabric.strategy.cluster_environment  # type: ignore[attr-defined]
        assert isinstance(environment, LightningEnvironment)
        assert not environment.creates_processes_externally


def test_srun_starts_as_many_processes_as_the_run_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SLURM, "SLURM_STEP_ID": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"SLURM: .*ntasks-per-node"):
        make_fabric("cpu", processes=2)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    fabric = make_fabric("cpu", processes=2)
    environment = fabric.strategy.cluster_environment  # type: ignore[attr-defined]
    assert isinstance(environment, SLURMEnvironment)
    assert not is_first(fabric)


def test_a_run_that_a_training_process_starts_is_a_run_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv(STARTER, str(os.getppid()))  # inherited, with no rank of this process
    assert is_first(make_fabric("cpu", processes=2))
    assert os.environ[STARTER] == str(os.getpid())


def test_what_another_program_left_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    left = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "NODE_RANK": "2",
            "MASTER_ADDR": "node7", "MASTER_PORT": "x", "LT_DEVICES": "3"}  # fmt: skip
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    fabric = make_fabric("cpu", processes=2)
    assert is_first(fabric)
    assert not left.keys() & os.environ.keys()
    assert fabric.strategy.num_processes == 2  # type: ignore[attr-defined]
    # The second process of this run: its starter is the parent of this process.
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv(STARTER, str(os.getppid()))
    assert not is_first(make_fabric("cpu", processes=2))
