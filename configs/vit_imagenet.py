"""A Vision Transformer on ImageNet: `:b` (ViT-B/16, the default), `:s`, `:ti`. The recipe is ours, not the paper's.

    python -m vpns_jax.data prepare imagenet   # once; says where the archives must lie
    python main.py --config=configs/vit_imagenet.py

What differs from the paper's, and why: AdamW instead of SGD for the weights, with warm-up and a cosine moved every
step, as transformers are fine-tuned; no decay on scores, so that only the loss moves them; computation in bfloat16;
fewer epochs, since ImageNet has as many steps in one as the paper's other sets have in dozens.
"""

from ml_collections import ConfigDict

from configs import resnet50_imagenet

NETWORKS = {"b": "vit_b16", "s": "vit_s16", "ti": "vit_ti16"}


def get_config(size: str = "b") -> ConfigDict:
    """VPNs at 90% sparsity."""
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
