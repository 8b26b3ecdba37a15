from pathlib import Path

import pytest
import torch

from pyro_stitchnet.model.stitchnet import StitchNet
from pyro_stitchnet.posterior import segment
from pyro_stitchnet.presets import preset
from pyro_stitchnet.training import checkpoint


@pytest.fixture
def net() -> StitchNet:
    return StitchNet(preset("tiny").model).eval()


def test_save_and_load_give_identical_output(net: StitchNet, tmp_path: Path) -> None:
    x = torch.rand(2, 32, 32)
    checkpoint.save(net, tmp_path / "model.pt", seed=3)
    loaded, info = checkpoint.load(tmp_path / "model.pt")
    before, after = segment(net, x, samples=0), segment(loaded, x, samples=0)
    assert torch.equal(before.probabilities, after.probabilities)
    assert torch.equal(before.styles, after.styles)
    assert loaded.config == net.config
    assert info == {"seed": 3}
    assert not loaded.training


def test_each_weight_is_saved_once(net: StitchNet, tmp_path: Path) -> None:
    checkpoint.save(net, tmp_path / "model.pt")
    weights = torch.load(tmp_path / "model.pt", weights_only=True)["weights"]
    storages = [w.untyped_storage().data_ptr() for w in weights.values() if w.numel()]
    assert len(storages) == len(set(storages))
    assert sum(w.numel() for n, w in weights.items() if n in dict(net.named_parameters())) == sum(
        p.numel() for p in net.parameters()
    )


def test_the_start_weights_file_may_be_gone(tmp_path: Path) -> None:
    from dataclasses import replace

    from torchvision.models import mobilenet_v2

    start = tmp_path / "start.pt"
    torch.save(mobilenet_v2().features.state_dict(), start)
    config = replace(preset("tiny").model, width=1.0, weights=str(start))
    checkpoint.save(StitchNet(config), tmp_path / "model.pt")
    start.unlink()
    loaded, _ = checkpoint.load(tmp_path / "model.pt")
    assert loaded.config == config


def test_bad_files(net: StitchNet, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with pytest.raises(FileNotFoundError, match=r"model\.pt"):
        checkpoint.load(path)
    checkpoint.save(net, path)
    whole = path.read_bytes()
    for length in (10, 1000, 5000, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model\.pt: damaged"):
            checkpoint.load(path)
    for text in ("not a checkpoint", "hello\n", ""):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"model\.pt: damaged"):
            checkpoint.load(path)
    torch.save({"weights": {}}, path)
    with pytest.raises(ValueError, match=r"model\.pt: not a stitchnet checkpoint"):
        checkpoint.load(path)
