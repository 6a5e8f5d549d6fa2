"""What a device holds and sends on a mesh of many, counted on paper: from shapes and the rule that splits them.

    python -m benchmarks.scale --model vit_l16 --devices 256

Nothing is run and nothing measured; docs/scale.md has the formulas.
"""

import argparse
import dataclasses
import math
import sys

import jax
import jax.numpy as jnp

from vpns_jax import models, trees
from vpns_jax.parallel import sharding

FLOAT, BIT = 32, 1
# Bits that a stage keeps of each parameter, and of each that may be pruned on top. Prune: the frozen weights; scores
# and Adam's two moments of them. Retrain: the weights and SGD's momentum, or Adam's moments; the mask.
KEPT = {"prune": (FLOAT, 3 * FLOAT), "retrain, SGD": (2 * FLOAT, BIT), "retrain, Adam": (3 * FLOAT, BIT)}
# Bits of a weight's mask in use.
MASK = 8


@dataclasses.dataclass(frozen=True)
class Leaf:
    """An array of parameters: its shape, and whether it may be pruned."""

    shape: tuple[int, ...]
    prunable: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Count:
    """Bytes of one device: kept between iterations, temporary at most, and sent in a pass.

    Activations, images and the prompt are left out.
    """

    kept: int
    temporary: int
    sent: int


def count(leaves: list[Leaf], stage: str, *, data: int, fsdp: int) -> Count:
    """Adds up a stage on a mesh of `data` x `fsdp`; collectives as rings, which send the least.

    Temporary are a mask of bools, split like its weights; all weights, whole on every device from
    the forward to the end of the backward pass; and all gradients at the same time in the worst case.
    """
    kept = temporary = sent = 0
    for leaf in leaves:
        split = fsdp if sharding.partition(leaf.shape, fsdp) != sharding.REPLICATED else 1
        each, prunable = KEPT[stage]
        kept += leaf.size * (each + prunable * leaf.prunable) // split
        learned = stage != "prune" or leaf.prunable
        temporary += FLOAT * leaf.size * (1 + learned) + MASK * leaf.size * leaf.prunable // split
        # Masked weights are gathered; gradients summed and scattered over fsdp, and what is left summed over the rest.
        sent += FLOAT * leaf.size * (1 + learned) * (split - 1) // split
        others = data * fsdp // split
        sent += 2 * FLOAT * leaf.size * learned * (others - 1) // (others * split)
    return Count(kept // 8, temporary // 8, sent // 8)


def parameters(name: str, image_size: int) -> list[Leaf]:
    """The parameters of a network, without making them."""
    model = models.create(name)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, image_size, image_size, 3)))["params"]
    pruned = trees.flatten(models.prunable(shapes))
    return [Leaf(x.shape, path in pruned) for path, x in trees.flatten(shapes).items()]


def main() -> None:
    """Prints a row for each stage and layout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_l16", choices=models.names())
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--devices", type=int, default=256)
    options = parser.parse_args()
    leaves = parameters(options.model, options.image_size)
    sys.stdout.write(
        "| stage | data x fsdp | kept, MB | temporary, MB | sent in a pass, MB |\n| --- | --- | --- | --- | --- |\n"
    )
    for stage in KEPT:
        for fsdp in (1, 4, 16, 64, 256):
            if options.devices % fsdp == 0:
                data = options.devices // fsdp
                found = count(leaves, stage, data=data, fsdp=fsdp)
                cells = [f"{value / 1e6:,.0f}" for value in dataclasses.astuple(found)]
                sys.stdout.write(f"| {stage} | {data} x {fsdp} | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
