"""A Vision Transformer on ImageNet: `:b` (ViT-B/16, the default), `:s`, `:ti`. The recipe is ours, not the paper's.

    python -m vpns_jax.data prepare imagenet   # once; says where the archives must be
    python main.py --config=configs/vit_imagenet.py

It differs from the paper's recipe in these points:

- Weights and prompt are retrained by AdamW instead of SGD, with warm-up, as is usual for transformers. The weights get
  another learning rate and weight decay for it; the prompt has no weight decay.
- Scores and prompt have no weight decay while scores are learned, so only the loss changes them.
- All cosine schedules are updated every step instead of every epoch.
- The prompt's learning rate is 1e-3 in both stages, and its gradient also reaches pixels that are clipped.
- The network computes in bfloat16.
- It trains for fewer epochs, because one epoch of ImageNet has as many steps as dozens of epochs of the paper's other
  data sets.
- As in configs/resnet50_imagenet.py, the dense network gives the label mapping, and 1% of the training images are kept
  for validation.
"""

from ml_collections import ConfigDict

from configs import resnet50_imagenet

NETWORKS = {"b": "vit_b16", "s": "vit_s16", "ti": "vit_ti16"}


def get_config(size: str = "b") -> ConfigDict:
    """Makes the config for VPNs at 90% sparsity.

    Args:
      size: a key of `NETWORKS`.

    Returns:
      A new config, which the caller may change.

    Raises:
      ValueError: there is no such size.
    """
    if size not in NETWORKS:
        raise ValueError(f"configs/vit_imagenet.py has no size {size!r}; known: {', '.join(NETWORKS)}")
    config = resnet50_imagenet.get_config()
    config.name = f"{NETWORKS[size]}_imagenet"
    config.model.name = NETWORKS[size]
    config.model.options.dtype = "bfloat16"
    config.prompt.clamp = "straight_through"

    config.prune.epochs = 10
    for rule in (config.prune.scores, config.prune.prompt):
        rule.decay = "none"
        rule.schedule = "cosine_steps"
    config.prune.prompt.learning_rate = 1e-3

    config.retrain.epochs = 10
    for rule in (config.retrain.weights, config.retrain.prompt):
        rule.optimizer = "adam"
        rule.decay = "decoupled"
        rule.schedule = "cosine_steps"
        rule.warmup_epochs = 1.0
    config.retrain.weights.learning_rate = 3e-5
    config.retrain.weights.weight_decay = 0.05
    config.retrain.prompt.learning_rate = 1e-3
    config.retrain.prompt.weight_decay = 0.0
    return config
