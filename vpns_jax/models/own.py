"""Networks of one's own: `my_module:make_model`, a function that returns a Linen module or an `OwnModel`.

    def make_model(num_classes, depth=4):
        return models.OwnModel(Net(num_classes, depth), head="Dense_2", load=read_my_checkpoint)

What does not fit is one line: here, what can be seen without images; all else as soon as the network is initialized or
applied (`own_network`), which `check_call` does before any work.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from vpns_jax import references
from vpns_jax.errors import UserError, several, short
from vpns_jax.models.head import HEAD
from vpns_jax.models.own_network import OwnNetwork, Variables, form, moved, plain

Color = tuple[float, float, float]
# What calls that also take a network's options have as arguments of their own: an option of such a name would never
# reach the network, and would change how its file is read.
RESERVED = (
    *("name", "path", "source", "layout", "num_classes", "image_size"),
    *("dont_load", "ignore", "weights_key", "seed"),
)


@dataclasses.dataclass(frozen=True)
class OwnModel:
    """What a factory returns: a network, and what it alone knows about it. All but the module may be left out.

    Attributes:
      module: a Linen module. `module.apply(variables, images, train=...)` maps normalized images, float32 [b, h, w, 3],
        to logits [b, num_classes]. Variables are float32, in the collections `params` and, if it has running
        statistics, `batch_stats`. With `train=True` it may update those, and draw from the rng "dropout". What may be
        pruned are the parameters called `kernel`, [..., in, out]. If it has a field `dtype`, kernels are cast to it
        first. If it has the fields `widths` and `num_classes`, it can be shrunk; see `models.widths`.
      head: the "/"-joined path of the last layer in `params`, with `kernel` [c, num_classes] and `bias` [num_classes].
        It is replaced where a new head is learned. In masks, reports and files it is called "head".
      load: reads the pretrained variables, as `module.init` gives them, with any number of classes; None if there are
        none.
      mean: the mean of each channel, which is subtracted from images in [0, 1].
      std: the standard deviation of each channel, which images are then divided by.
    """

    module: nn.Module
    head: str = HEAD
    load: Callable[[], Mapping[str, Any]] | None = None
    mean: Color = (0.0, 0.0, 0.0)
    std: Color = (1.0, 1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Factory:
    """The function that makes a network, by its name.

    Attributes:
      name: `module:function` or `file.py:function`.
      make: the function; its arguments are `num_classes` and the options.
    """

    name: str
    make: Callable[..., Any]

    @classmethod
    def named(cls, name: str) -> "Factory":
        """Imports a factory; see `references.resolve`."""
        return cls(name, references.resolve(name, "model"))

    def __call__(self, num_classes: int, options: Mapping[str, Any]) -> OwnModel:
        """Makes a network.

        Args:
          num_classes: the number of logits.
          options: the other arguments of the function.

        Returns:
          What the function returned; a module alone becomes an `OwnModel`.

        Raises:
          UserError: the function does not take the arguments, fails, or returns something else.
        """
        check_option_names(self.name, (*self.options, *options))
        try:
            inspect.signature(self.make).bind(num_classes=num_classes, **options)
        except (TypeError, ValueError) as error:
            given = ", ".join(("num_classes", *options))
            raise UserError(
                f"model {short(self.name)} does not take ({given}): {error}; num_classes and the options are given by "
                "name, and options need defaults"
            ) from error
        try:
            made = self.make(num_classes=num_classes, **options)
        except UserError:
            raise
        # Whatever the user's function raises.
        except Exception as error:
            raise UserError(f"model {short(self.name)} failed: {references.describe(error)}") from error
        own = made if isinstance(made, OwnModel) else OwnModel(made)
        _check(self.name, own)
        return own

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the function's arguments beside `num_classes`; none if they are unknown, as a builtin's are."""
        try:
            parameters = inspect.signature(self.make).parameters
        except (TypeError, ValueError):
            return ()
        return tuple(name for name in parameters if name != "num_classes")

    def create(self, name: str, num_classes: int, options: Mapping[str, Any]) -> OwnNetwork:
        """Makes a network as one like all others.

        Args:
          name: the network's name, for errors.
          num_classes: the number of logits.
          options: the other arguments of the function.

        Returns:
          The network.

        Raises:
          UserError: as a call.
        """
        own = self(num_classes, options)
        return OwnNetwork(own.module, own.head, num_classes, name)

    def load(self, options: Mapping[str, Any]) -> Variables | None:
        """Reads the pretrained variables.

        Args:
          options: the options of the network.

        Returns:
          Arrays, with the head under `HEAD`; None if there is no loader.

        Raises:
          UserError: the loader fails, or returns something else than variables, or two parts that would be the head.
        """
        own = self(1, options)
        if own.load is None:
            return None
        try:
            variables = jax.tree.map(np.asarray, plain(own.load()))
        # Whatever the user's loader raises.
        except Exception as error:
            raise UserError(f"model {short(self.name)}: load() failed: {references.describe(error)}") from error
        if not isinstance(variables, dict) or "params" not in variables:
            got = several(variables) if isinstance(variables, dict) else type(variables).__name__
            raise UserError(f"model {short(self.name)}: load() returned {got}; it must be a mapping with params")
        return moved(variables, own.head, HEAD, self.name)


def check_option_names(name: str, options: Iterable[str]) -> None:
    """Checks that no option is called as an argument of the calls that take options.

    Args:
      name: the network's name, for the error.
      options: the names of the options.

    Raises:
      UserError: one is.
    """
    reserved = next((option for option in options if option in RESERVED), None)
    if reserved is not None:
        raise UserError(
            f"model {short(name)}: no option may be called {reserved}, which other calls take; give it another name "
            f"than {', '.join(RESERVED)}"
        )


def _check(name: str, own: OwnModel) -> None:
    """Checks what can be known without images."""
    module = own.module
    if not isinstance(module, nn.Module):
        raise UserError(
            f"model {short(name)} returned {form(module)}; it must return a Flax Linen module or models.OwnModel"
        )
    parameters = inspect.signature(type(module).__call__).parameters
    if "train" not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        raise UserError(
            f"model {short(name)}: {type(module).__name__} is called with ({', '.join(list(parameters)[1:])}); it must "
            "take (images, train)"
        )
    for field in dataclasses.fields(module):
        try:
            hash(getattr(module, field.name, None))
        except TypeError as error:
            what = f"a field {field.name} of type {type(getattr(module, field.name)).__name__}"
            raise UserError(
                f"model {short(name)}: {type(module).__name__} has {what}, without a hash; take a tuple or a function"
            ) from error
