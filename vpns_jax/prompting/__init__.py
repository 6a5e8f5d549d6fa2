"""Visual prompts and label mapping: what happens to images and logits. Knows nothing of masks."""

from vpns_jax.prompting import label_mapping
from vpns_jax.prompting.kinds import KINDS, create
from vpns_jax.prompting.prompts import Prompt

__all__ = ["KINDS", "Prompt", "create", "label_mapping"]
