"""Writes a finished network as a StableHLO program, serialized by `jax.export`. JAX runs it without this library.

`jax.export.deserialize(bytes).call` maps uint8 [b, side, side, 3], for any b, to {"logits", "probabilities"}, each
float32 [b, t]. The side is the network's `image_size`; prompt, clamp, normalization and label mapping are inside.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.sharding import AbstractDevice, AbstractMesh

from vpns_jax import files
from vpns_jax.deploy import verifying
from vpns_jax.deploy.classifier import Classifier
from vpns_jax.deploy.exports.formats import Format, Option
from vpns_jax.training.network import forward

# The program is checked on the CPU, so the CPU is always one of its platforms.
CPU = "cpu"


def write(classifier: Classifier, path: Path, *, platforms: tuple[str, ...]) -> Classifier:
    """Writes the program.

    Args:
      classifier: the network; its arrays become constants of the program.
      path: the file.
      platforms: the platforms that the program can run on, in addition to the CPU.

    Returns:
      The network.

    Raises:
      UserError: the disk refuses.
    """
    side = classifier.description.image_size
    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.uint8)
    with _traced_for_accelerators():
        exported = export.export(_program(classifier), platforms=sorted({CPU, *platforms}))(images)
    files.write_whole(path, bytes(exported.serialize()))
    return classifier


def answers(path: Path, classifier: Classifier, squares: np.ndarray) -> np.ndarray:
    """Runs the program that a file holds.

    Args:
      path: the file.
      classifier: the network that it was made from, which is not used.
      squares: uint8 [b, image_size, image_size, 3].

    Returns:
      Its logits, float32 [b, t].

    Raises:
      UserError: JAX was told to leave out the CPU.
    """
    del classifier
    program = export.deserialize(bytearray(path.read_bytes()))
    with verifying.on_cpu():
        return np.asarray(jax.jit(program.call)(squares)["logits"])


def _program(classifier: Classifier) -> jax.stages.Wrapped:
    # The mask is applied here, so that it takes no space in the file.
    network, subnetwork = classifier.network, jax.device_put(jax.device_get(classifier.subnetwork).masked())
    prompt = subnetwork.prompt if classifier.description.prompted else None

    def classify(images: jax.Array) -> dict[str, jax.Array]:
        logits, _ = forward(
            network,
            weights=subnetwork.weights,
            mask={},
            batch_stats=subnetwork.batch_stats,
            prompt=prompt,
            images=images,
            mapping=subnetwork.mapping,
            train=False,
        )
        logits = logits.astype(jnp.float32)
        return {"logits": logits, "probabilities": jax.nn.softmax(logits, axis=-1)}

    return jax.jit(classify)


def _traced_for_accelerators() -> jax.sharding.use_abstract_mesh:
    # On a CPU, convolutions are split to fit its caches, for which the size of the batch must be known.
    device = AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu")
    return jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device))


STABLEHLO = Format(
    name="stablehlo",
    meaning="a program that JAX runs on CPUs, GPUs and TPUs, without this library",
    suffix=".stablehlo",
    write=write,
    answers=answers,
    options=(Option("platforms", "what it can run on; the CPU always", (CPU, "cuda", "tpu", "rocm"), several=True),),
)
