"""DeiT's distilled networks (Touvron et al. 2021, arXiv 2012.12877): Vision Transformers with a second token and head.

The second head learned a teacher's predictions. The logits of both heads are averaged, as timm does at inference; here
they are in training, too. DeiT's networks without a distillation token are plain ViTs.
"""

from typing import ClassVar

from vpns_jax.models.vit import ViT


class DeiT(ViT):
    """A ViT that classifies by a class token and a distillation token; its attributes are those of `ViT`."""

    tokens: ClassVar[tuple[str, ...]] = ("cls", "dist")
