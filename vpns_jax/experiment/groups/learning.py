"""The groups of what is learned: prompt, label mapping, and the two stages."""

import dataclasses

from vpns_jax.experiment import ranges
from vpns_jax.options import EPOCHS, at, option
from vpns_jax.prompting import KINDS, Prompt, create, label_mapping, prompts
from vpns_jax.training import stage
from vpns_jax.training.optimizers import Optimizer, adam, sgd


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """The visual prompt of the methods that have one; see `prompting.create`."""

    kind: str = option(
        "pad",
        " ".join(f'"{name}": {(kind.__doc__ or "").splitlines()[0]}' for name, kind in KINDS.items()),
        tuple(KINDS),
    )
    canvas_size: int = option(224, "The side of the network's input, in pixels.", ranges.SIDE)
    pad_size: int = option(16, 'The width of the frame of "pad" and "expand", in pixels.', ranges.PROMPT_SIDE)
    patch_size: int = option(115, 'The side of the square of "corner" and "random", in pixels.', ranges.PROMPT_SIDE)
    parametrization: str = option(
        "",
        'How parameters become pixels: "raw", "sigmoid" or "tanh"; "" takes what the released code uses for the kind.',
        ("", *prompts.PARAMETRIZATIONS),
        former="parametrisation",
    )
    clamp: str = option(
        "hard",
        'The gradient of pixels that are clipped to [0, 1]: "hard" (zero) or "straight_through" (as if not clipped).',
        tuple(prompts.CLAMPS),
    )
    stage: str = option(
        "both",
        'Where the prompt is learned: "both", "retrain" (pruning has none) or "prune" (it helps to find the mask and '
        "is then dropped).",
        ("prune", "retrain", "both"),
    )

    def make(self) -> Prompt:
        """Makes the prompt.

        Returns:
          The prompt; it has no parameters yet.

        Raises:
          UserError: the prompt does not fit its canvas.
        """
        return create(
            self.kind,
            canvas_size=self.canvas_size,
            pad_size=self.pad_size,
            patch_size=self.patch_size,
            parametrization=self.parametrization or None,
            clamp=self.clamp,
        )

    def check(self, path: str) -> None:
        """Checks that the prompt fits its canvas.

        Args:
          path: the name of this group, such as "config.prompt".

        Raises:
          UserError: it does not.
        """
        with at(path):
            self.make()


@dataclasses.dataclass(frozen=True)
class MappingConfig:
    """The label mapping: which source class stands for each target class."""

    kind: str = option(
        "frequency",
        '"frequency" (the source class that is predicted most often), "iterative" (the same, again every epoch), '
        '"random", "head" (a new linear layer, which is never pruned).',
        label_mapping.KINDS,
    )
    network: str = option(
        "sparse",
        'The network that predicts the classes for the mapping used in retraining: "sparse" or "dense".',
        ("sparse", "dense"),
    )


@dataclasses.dataclass(frozen=True)
class PruneConfig:
    """Stage 1, prune: scores and prompt are learned."""

    epochs: int = option(30, "Epochs of learning the scores.", EPOCHS)
    batch_norm: str = option(
        "update",
        'Batch normalization while scores are learned: "update" (uses batch statistics and updates the running '
        'ones), "prompted" (only in passes that the protocol prompts) or "frozen". Passes that do not update run as in '
        "evaluation, without dropout.",
        stage.BATCH_NORMS,
    )
    scores: Optimizer = option(adam(1e-4), "The optimizer of the scores.")
    prompt: Optimizer = option(adam(1e-4), "The optimizer of the prompt.")
    head: Optimizer = option(adam(1e-3), 'The optimizer of a new head. Only read if mapping.kind is "head".')


@dataclasses.dataclass(frozen=True)
class RetrainConfig:
    """Stage 2, retrain: weights and prompt are learned."""

    epochs: int = option(30, "Epochs of training under the mask.", EPOCHS)
    weights: Optimizer = option(sgd(0.01), "The optimizer of the weights.")
    prompt: Optimizer = option(sgd(0.01), "The optimizer of the prompt.")
