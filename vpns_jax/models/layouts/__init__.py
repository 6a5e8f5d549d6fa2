"""Layouts: the names and shapes of our variables in other libraries' files, for reading and for writing."""

import flax.linen as nn

from vpns_jax.models.convnext import ConvNeXt
from vpns_jax.models.deit import DeiT
from vpns_jax.models.layouts.convnext import convnext_timm
from vpns_jax.models.layouts.flax import flax
from vpns_jax.models.layouts.resnet import resnet_torchvision, resnet_transformers
from vpns_jax.models.layouts.rules import Layout, Rule, Shape
from vpns_jax.models.layouts.vgg import vgg_timm, vgg_torchvision
from vpns_jax.models.layouts.vit import (
    deit_transformers,
    deit_transformers_5,
    vit_augreg,
    vit_timm,
    vit_torchvision,
    vit_torchvision_old,
    vit_transformers,
    vit_transformers_5,
)
from vpns_jax.models.own_network import OwnNetwork
from vpns_jax.models.resnet import ResNet
from vpns_jax.models.vgg import VGG
from vpns_jax.models.vit import ViT

__all__ = [
    "LAYOUTS",
    "TIMM",
    "Layout",
    "Rule",
    "Shape",
    "convnext_timm",
    "deit_transformers",
    "deit_transformers_5",
    "flax",
    "resnet_torchvision",
    "resnet_transformers",
    "vgg_timm",
    "vgg_torchvision",
    "vit_augreg",
    "vit_timm",
    "vit_torchvision",
    "vit_torchvision_old",
    "vit_transformers",
    "vit_transformers_5",
]

# `export` writes the first layout of each network.
LAYOUTS: dict[type[nn.Module], tuple[Layout, ...]] = {
    ConvNeXt: (convnext_timm,),
    DeiT: (vit_timm, deit_transformers, deit_transformers_5),
    ResNet: (resnet_torchvision, resnet_transformers),
    VGG: (vgg_torchvision, vgg_timm),
    OwnNetwork: (flax,),
    ViT: (vit_timm, vit_augreg, vit_torchvision, vit_torchvision_old, vit_transformers, vit_transformers_5),
}
# timm's layout: the first in LAYOUTS for all but VGGs.
TIMM: dict[type[nn.Module], Layout] = {
    ConvNeXt: convnext_timm,
    DeiT: vit_timm,
    ResNet: resnet_torchvision,
    VGG: vgg_timm,
    ViT: vit_timm,
}
