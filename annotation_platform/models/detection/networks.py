"""The networks, built from torchvision's parts. This module imports torch.

Two are detectors, both FCOS: Tian, Shen, Chen and He, "FCOS: A Simple and Strong Anchor-Free Object
Detector", 2020. Two are classifiers of whole images, residual networks: a small one with the trunk
of the small FCOS, and the one of 18 layers by He, Zhang, Ren and Sun, 2016.
"""

from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.fcos import (
    FCOS,
    FCOSClassificationHead,
    FCOSHead,
    FCOSRegressionHead,
)
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import BasicBlock, resnet18
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from annotation_platform.models.cards import RESNET18, RESNET50_FCOS

_WIDTHS = (32, 64, 128, 256)
_PYRAMID = 64
# Boxes below this score would only slow the evaluation down.
_LOWEST_SCORE = 0.03
# A logit below every threshold, for outputs that are not finite.
_NEVER = -1e4


def build_network(architecture: str, *, classes: int) -> nn.Module:
    """Return an untrained detector of ``classes`` classes.

    It takes a list of ``(3, H, W)`` tensors in ``[0, 1]``, possibly of different sizes. In training
    mode it takes targets too and returns its losses; otherwise it returns for each image ``boxes``,
    ``scores``, ``labels`` and ``dropped``, the number of outputs that were not finite.
    ``architecture`` is one of ``cards.ARCHITECTURES``.
    """
    return _resnet50_fcos(classes) if architecture == RESNET50_FCOS else _small_fcos(classes)


def build_classifier(architecture: str, *, classes: int) -> nn.Module:
    """Return an untrained classifier of whole images with ``classes`` classes.

    It takes ``(N, 3, S, S)`` images, normalised, and returns ``(N, classes)`` logits; its last
    layer is ``fc``. ``architecture`` is one of ``cards.CLASSIFIERS``.
    """
    network = resnet18(num_classes=classes) if architecture == RESNET18 else SmallResNet(classes)
    return network.to(memory_format=torch.channels_last)


class SmallResNet(nn.Module):
    """The trunk of ``SmallBackbone``, averaged over the image, and one layer of classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem, self.stages = _trunk()
        self.fc = nn.Linear(_WIDTHS[-1], classes)
        _kaiming(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return the ``(N, classes)`` logits of ``(N, 3, S, S)`` images."""
        features = self.stem(images.contiguous(memory_format=torch.channels_last))
        for stage in self.stages:
            features = stage(features)
        logits: Tensor = self.fc(features.mean(dim=(2, 3)))
        return logits


class SmallBackbone(nn.Module):
    """A residual network of one block a stage, widths 32 to 256, and its feature pyramid.

    One stride of 4 replaces ResNet's stride, norm and pooling at half size, which on a processor
    cost as much as all other layers together.
    """

    out_channels = _PYRAMID

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stages = _trunk()
        self.pyramid = FeaturePyramidNetwork(list(_WIDTHS[1:]), _PYRAMID)
        _kaiming(self)

    def forward(self, images: Tensor) -> "OrderedDict[str, Tensor]":
        """Return the feature maps at 1/8, 1/16 and 1/32 of the ``(N, 3, H, W)`` images' size."""
        features = self.stem(images.contiguous(memory_format=torch.channels_last))
        levels: OrderedDict[str, Tensor] = OrderedDict()
        for number, stage in enumerate(self.stages):
            features = stage(features)
            if number > 0:
                levels[str(number)] = features
        return self.pyramid(levels)  # type: ignore[no-any-return]


class _Head(FCOSHead):  # type: ignore[misc]
    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        # The losses need a higher precision than bfloat16's.
        return {name: output.float() for name, output in super().forward(x).items()}


class _SmallHead(_Head):
    def __init__(self, classes: int) -> None:
        super().__init__(_PYRAMID, 1, classes)
        # Norms of 8 groups take half the time of torchvision's 32.
        norm = partial(nn.GroupNorm, 8)
        self.classification_head = FCOSClassificationHead(_PYRAMID, 1, classes, 2, norm_layer=norm)
        self.regression_head = FCOSRegressionHead(_PYRAMID, 1, 2, norm)
        for layer in (*self.classification_head.conv, *self.regression_head.conv):
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        # torchvision initialises half of the distances below zero, where its ReLU has no gradient.
        nn.init.constant_(self.regression_head.bbox_reg.bias, 2.0)


class _WithoutResize(GeneralizedRCNNTransform):  # type: ignore[misc]
    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        # Images arrive at their final size, see annotation_platform.models.network_inputs.resize.
        return image, target


class _CountingFCOS(FCOS):  # type: ignore[misc]
    """An FCOS that counts outputs that are not finite instead of dropping them silently."""

    def postprocess_detections(
        self,
        head_outputs: dict[str, list[Tensor]],
        anchors: list[list[Tensor]],
        image_shapes: list[tuple[int, int]],
    ) -> list[dict[str, Any]]:
        """Return the detections of each image, with ``dropped``."""
        dropped = torch.zeros(len(image_shapes), dtype=torch.int64)
        cleaned: dict[str, list[Tensor]] = {
            "cls_logits": [],
            "bbox_regression": [],
            "bbox_ctrness": [],
        }
        levels = zip(*(head_outputs[name] for name in cleaned), strict=True)
        for logits, regression, centerness in levels:
            sound = (
                torch.isfinite(logits)
                & torch.isfinite(regression).all(dim=2, keepdim=True)
                & torch.isfinite(centerness)
            )
            dropped += (~sound).sum(dim=(1, 2)).cpu()
            cleaned["cls_logits"].append(torch.where(sound, logits, _NEVER))
            cleaned["bbox_regression"].append(torch.nan_to_num(regression, 0.0, 0.0, 0.0))
            cleaned["bbox_ctrness"].append(torch.nan_to_num(centerness, 0.0, 0.0, 0.0))
        found = super().postprocess_detections(cleaned, anchors, image_shapes)
        return [{**one, "dropped": int(count)} for one, count in zip(found, dropped, strict=True)]


def _trunk() -> tuple[nn.Sequential, nn.ModuleList]:
    stem = nn.Sequential(
        nn.Conv2d(3, _WIDTHS[0], 7, stride=4, padding=3, bias=False),
        nn.BatchNorm2d(_WIDTHS[0]),
        nn.ReLU(inplace=True),
    )
    before = (_WIDTHS[0], *_WIDTHS)
    stages = nn.ModuleList(
        _stage(before[n], width, stride=1 if n == 0 else 2) for n, width in enumerate(_WIDTHS)
    )
    return stem, stages


def _kaiming(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stage(before: int, width: int, *, stride: int) -> BasicBlock:
    shortcut = None
    if stride != 1 or before != width:
        shortcut = nn.Sequential(
            nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
        )
    return BasicBlock(before, width, stride, shortcut)


def _small_fcos(classes: int) -> nn.Module:
    anchors = AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3)
    head = _SmallHead(classes)
    return _fcos(SmallBackbone(), classes, anchor_generator=anchors, head=head)


def _resnet50_fcos(classes: int) -> nn.Module:
    # The architecture of torchvision.models.detection.fcos_resnet50_fpn, so that its weights fit.
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    return _fcos(backbone, classes, head=_Head(backbone.out_channels, 1, classes))


def _fcos(backbone: nn.Module, classes: int, **parts: Any) -> nn.Module:
    network = _CountingFCOS(
        backbone,
        classes,
        score_thresh=_LOWEST_SCORE,
        nms_thresh=0.5,
        detections_per_img=100,
        topk_candidates=300,
        **parts,
    )
    before = network.transform
    network.transform = _WithoutResize(1, 1, before.image_mean, before.image_std)
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return]
