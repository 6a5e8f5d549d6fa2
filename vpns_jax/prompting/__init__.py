"""Visual prompts, which change the images, and label mapping, which changes the logits."""

from vpns_jax.prompting import label_mapping
from vpns_jax.prompting.kinds import KINDS, create
from vpns_jax.prompting.prompts import Prompt

__all__ = ["KINDS", "Prompt", "create", "label_mapping"]
