"""A network that PyTorch exports, verified by the network itself, and its conversions.

pip install torch
pip install onnxscript 'onnx-harness[cpu]'
pytest
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn


class Encoder(nn.Module):
    """A small convolutional encoder with an attention layer: images to scores of 5 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.GELU(),
        )
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.classes = nn.Linear(32, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the scores, [batch, 5], of images [batch, 3, 32, 32]."""
        tokens = self.features(image).flatten(2).transpose(1, 2)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.classes((tokens + mixed).mean(dim=1)).softmax(dim=-1)


@pytest.fixture(scope="session")
def network() -> Encoder:
    """Build the network. `eval()` matters: Dropout and BatchNorm compute otherwise in training."""
    torch.manual_seed(0)
    return Encoder().eval()


@pytest.fixture(scope="session")
def exported(network: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the network for any batch size."""
    path = tmp_path_factory.mktemp("export") / "encoder.onnx"
    image = torch.randn(2, 3, 32, 32)
    batch = torch.export.Dim("batch", min=1)
    torch.onnx.export(
        network,
        (image,),
        str(path),
        input_names=["image"],
        output_names=["scores"],
        dynamic_shapes={"image": {0: batch}},
        dynamo=True,
        external_data=False,
    )
    return path


def test_the_export_computes_what_pytorch_does(
    onnx_verify, exported: Path, network: Encoder
):
    """Hold the exported model against the network: arrays in, arrays out."""

    def forward(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(image)).numpy()

    onnx_verify(exported, reference=forward)


@pytest.mark.parametrize("variant", ["simplify", "simplify+fp16.io32"])
def test_a_conversion_of_the_export_is_right(onnx_verify, exported: Path, variant: str):
    """Hold what a conversion makes of the export against the export."""
    onnx_verify(exported, variant=variant)
