"""The memory and communication of one device on a large mesh, computed from shapes and the rule that splits arrays.

    python -m benchmarks.scale --model vit_l16 --devices 256

Nothing is run or measured; docs/scale.md has the formulas.
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
# Bits that a stage keeps for each parameter, and the additional bits for each prunable parameter. Prune: the frozen
# weight; the score and Adam's two moments. Retrain: the weight and SGD's momentum, or Adam's two moments; the mask.
KEPT = {"prune": (FLOAT, 3 * FLOAT), "retrain, SGD": (2 * FLOAT, BIT), "retrain, Adam": (3 * FLOAT, BIT)}
# Bits of a weight's unpacked mask.
MASK = 8


@dataclasses.dataclass(frozen=True)
class Leaf:
    """An array of parameters: its shape, and whether it may be pruned."""

    shape: tuple[int, ...]
    prunable: bool

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Count:
    """Bytes of one device, without activations, images and the prompt.

    Attributes:
      kept: the bytes kept between iterations.
      temporary: the most temporary bytes.
      sent: the bytes sent in a pass.
    """

    kept: int
    temporary: int
    sent: int


def count(leaves: list[Leaf], stage: str, *, data: int, fsdp: int) -> Count:
    """Counts the bytes of a stage.

    Temporary bytes are those of an unpacked mask, split like its weights; of all weights, replicated on every device
    until the end of the backward pass; and of all gradients, which in the worst case exist at the same time.
    Collectives are assumed to be rings, which send the fewest bytes.

    Args:
      leaves: the parameters.
      stage: a name in `KEPT`.
      data: the length of the mesh's axis "data".
      fsdp: the length of the mesh's axis "fsdp".

    Returns:
      The bytes of one device.
    """
    kept = temporary = sent = 0
    for leaf in leaves:
        split = fsdp if sharding.partition(leaf.shape, fsdp) != sharding.REPLICATED else 1
        each, prunable = KEPT[stage]
        kept += leaf.size * (each + prunable * leaf.prunable) // split
        learned = stage != "prune" or leaf.prunable
        temporary += FLOAT * leaf.size * (1 + learned) + MASK * leaf.size * leaf.prunable // split
        # Masked weights are gathered over fsdp. Gradients are reduced and scattered over fsdp; then each device's part
        # is reduced over the other devices.
        sent += FLOAT * leaf.size * (1 + learned) * (split - 1) // split
        others = data * fsdp // split
        sent += 2 * FLOAT * leaf.size * learned * (others - 1) // (others * split)
    return Count(kept // 8, temporary // 8, sent // 8)


def parameters(name: str, image_size: int) -> list[Leaf]:
    """The shapes of a network's parameters, found by tracing it."""
    model = models.create(name)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, image_size, image_size, 3)))["params"]
    pruned = trees.flatten(models.prunable(shapes))
    return [Leaf(x.shape, path in pruned) for path, x in trees.flatten(shapes).items()]


def main() -> None:
    """Prints a row for each stage and layout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_l16", choices=models.accepted_names())
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
                total = count(leaves, stage, data=data, fsdp=fsdp)
                cells = [f"{value / 1e6:,.0f}" for value in dataclasses.astuple(total)]
                sys.stdout.write(f"| {stage} | {data} x {fsdp} | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
