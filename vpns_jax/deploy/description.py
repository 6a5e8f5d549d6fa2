"""Describes a finished network: everything but its arrays, such as how images are prepared, and the names of classes.

The network's file holds the description as JSON. Keys that timm has, too, have timm's names.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from vpns_jax import files, models, prompting
from vpns_jax.data import Decoding
from vpns_jax.data.decoding import AS_STORED
from vpns_jax.errors import UserError, short
from vpns_jax.models.registry import Color
from vpns_jax.prompting import Prompt
from vpns_jax.training.network import Network

T = TypeVar("T")
# The longest side of an image or a canvas, as in a config: such an image takes 0.8 GB in float32.
MOST_SIDE = 8192
# How images are resized (`data.materialize.resize`), in timm's words. "squash" does not keep the aspect ratio.
_RESIZING = {"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"}
_KEYS = ("model", "options", "prompt", "plain_on_canvas", "image_size", "decoding", "label_names", "pretrained_cfg")


@dataclasses.dataclass(frozen=True)
class Description:
    """Everything about a network but its arrays.

    Attributes:
      model: the model's name, as for `models.create`.
      options: options of the model, such as {"width": 0.5}; values that JSON can hold.
      prompt: the prompt that images get by default; of kind "none" for a network that was trained without one.
      image_size: the side to which images are resized, in pixels.
      mean, std: the mean and the standard deviation of each channel, by which images in [0, 1] are normalized.
      classes: names of the target classes, in the order of the mapping.
      plain_on_canvas: whether plain images are also put on the canvas, as in protocol paper, or keep their size.
      decoding: how image files become pixels.
      origin: how the network was made, for readers of the file: method, density, seed, data set, accuracies, versions;
        values that JSON can hold.
    """

    model: str
    prompt: Prompt
    image_size: int
    mean: Color
    std: Color
    classes: tuple[str, ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    plain_on_canvas: bool = True
    decoding: Decoding = AS_STORED
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        models.check_option_names(self.model, self.options)

    @property
    def prompted(self) -> bool:
        """Whether there is a prompt."""
        return self.prompt.is_learned

    @property
    def input_size(self) -> int:
        """The side of the model's input by default, in pixels: the canvas, or the image without one."""
        return self.prompt.canvas_size if self.prompted or self.plain_on_canvas else self.image_size

    def network(self, source_classes: int) -> Network:
        """The static half of the network.

        Args:
          source_classes: the number of classes of the head.

        Returns:
          The network without its arrays.

        Raises:
          UserError: there is no such model, or it does not take the options.
        """
        blank = prompting.create("none", canvas_size=self.prompt.canvas_size)
        return Network(
            model=models.create(self.model, num_classes=source_classes, **self.options),
            prompt=self.prompt,
            plain=blank if self.plain_on_canvas else None,
            mean=self.mean,
            std=self.std,
        )

    def to_json(self) -> dict[str, Any]:
        """Converts the description to a JSON object, for `from_json`."""
        side, prompt = self.input_size, dataclasses.asdict(self.prompt)
        return files.plain(
            {
                "architecture": models.timm_name(self.model),
                "num_classes": len(self.classes),
                "label_names": self.classes,
                "pretrained_cfg": {"input_size": [3, side, side], **_RESIZING, "mean": self.mean, "std": self.std},
                "model": self.model,
                "options": self.options,
                "prompt": {"kind": self.prompt.kind, **prompt},
                "plain_on_canvas": self.plain_on_canvas,
                "image_size": self.image_size,
                "decoding": self.decoding.to_json(),
                "origin": self.origin,
            }
        )

    @classmethod
    def from_json(cls, tree: Mapping[str, Any], model: str = "") -> "Description":
        """Makes a description from the JSON object of `to_json`.

        Args:
          tree: the parsed JSON. It is not trusted: all known keys are checked, and unknown ones are ignored. Above all
            no code that it names is run.
          model: the function that makes a network of one's own; "" for all other networks.

        Returns:
          The description.

        Raises:
          UserError: a key is missing, or its value is not allowed.
        """
        missing = [key for key in _KEYS if key not in tree]
        if missing:
            raise UserError(f"it does not say {', '.join(missing)}")
        timm = _typed(tree, "pretrained_cfg", dict)
        for key, value in _RESIZING.items():
            if timm.get(key) != value:
                raise UserError(f"{key} is {short(timm.get(key))}; images are resized in one way, which is {value!r}")
        mean, std = models.check_normalization(timm.get("mean"), timm.get("std"))
        classes = _typed(tree, "label_names", list)
        if not classes or not all(isinstance(name, str) for name in classes):
            raise UserError(f"label_names is {short(classes)}; it must hold the name of each class")
        prompt, size = _prompt(_typed(tree, "prompt", dict)), _side(tree, "image_size")
        if size > prompt.canvas_size or prompt.image_size not in (None, size):
            raise UserError(f"image_size is {size}, which does not fit {prompt}")
        return cls(
            model=_model(_typed(tree, "model", str), model),
            prompt=prompt,
            image_size=size,
            mean=mean,
            std=std,
            classes=tuple(classes),
            options=_typed(tree, "options", dict),
            plain_on_canvas=_typed(tree, "plain_on_canvas", bool),
            decoding=Decoding.from_json(tree["decoding"]),
            origin=_typed({"origin": {}, **tree}, "origin", dict),
        )


def _model(named: str, given: str) -> str:
    """The model's name, which is the user's own word if making the model runs code."""
    if models.is_own(named) and not given:
        raise UserError(
            f"it is of a network of someone's own, {short(named)}, and no file may choose code to run: give the "
            "function by --model=my_module:make_model, in Python load(path, model=...)"
        )
    if given and not models.is_own(given):
        raise UserError(f"model is {short(given)}; it must be module:function or file.py:function")
    if given and not models.is_own(named):
        raise UserError(f"it is of {short(named)}, which needs no function to make it; leave model out")
    return given or named


def _prompt(tree: Mapping[str, Any]) -> Prompt:
    side, size = _side(tree, "canvas_size"), _typed(tree, "size", int)
    return prompting.create(
        _typed(tree, "kind", str),
        canvas_size=side,
        pad_size=size,
        patch_size=size,
        parametrization=_typed(tree, "parametrization", str),
        clamp=_typed(tree, "clamp", str),
    )


def _side(tree: Mapping[str, Any], key: str) -> int:
    side = _typed(tree, key, int)
    if not 1 <= side <= MOST_SIDE:
        raise UserError(f"{key} is {short(side)}; it must lie in 1 ... {MOST_SIDE}")
    return side


def _typed(tree: Mapping[str, Any], key: str, kind: type[T]) -> T:
    value = tree.get(key)
    # In Python a bool is also an int; here it is not.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{key} is {short(value)}; it must be of type {kind.__name__}")
    return value
