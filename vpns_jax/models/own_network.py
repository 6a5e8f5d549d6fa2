"""A network of one's own as one like all others: its head has the name of theirs, and its faults are one line."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vpns_jax import references, trees
from vpns_jax.errors import UserError, several, short
from vpns_jax.models.head import HEAD

Variables = dict[str, Any]

# The collections that training knows: what is learned, and the running statistics of batch normalization.
COLLECTIONS = ("params", "batch_stats")


def class_name(model: nn.Module) -> str:
    """The name of a network's class, for errors: that of its author, if it is a network of one's own."""
    return type(model.module if isinstance(model, OwnNetwork) else model).__name__


def call_arguments(model: nn.Module) -> dict[str, Any]:
    """What a module's call takes beside images, so that it computes without randomness: `train`, if it has that."""
    return {"train": False} if "train" in inspect.signature(type(model).__call__).parameters else {}


class OwnNetwork(nn.Module):
    """A network of one's own as one like all others: its head is called `HEAD`, and its faults are one line.

    Attributes:
      module: the network.
      head: the path of its head.
      num_classes: the number of its logits.
      reference: the name of its factory, for errors.
    """

    module: nn.Module
    head: str
    num_classes: int
    reference: str

    def __getattr__(self, name: str) -> Any:
        """The fields `dtype` and `widths`, if the module has them; no other attribute is looked up here."""
        if name in ("dtype", "widths"):
            return getattr(self.module, name)
        return super().__getattr__(name)

    @nn.nowrap
    def renamed(self, path: str) -> str:
        """The path here of a parameter of the module."""
        return f"{HEAD}/{path.removeprefix(f'{self.head}/')}" if path.startswith(f"{self.head}/") else path

    # Narrower than Flax's own methods on purpose: the contract allows these arguments alone.
    @nn.nowrap
    def init(self, rngs: Any, images: Any) -> Variables:  # type: ignore[override]
        """Makes fresh variables.

        Args:
          rngs: a random key.
          images: images [b, h, w, 3].

        Returns:
          The variables, with the head under `HEAD`.

        Raises:
          UserError: the network fails, or its variables are not as `OwnModel` says.
        """
        variables = self._call("init", lambda: self.module.init(rngs, images, train=False), images)
        variables = plain(variables)
        self._check_variables(variables)
        return moved(variables, self.head, HEAD, self.reference)

    @nn.nowrap
    def apply(self, variables: Mapping[str, Any], images: Any, *, train: bool = False, **arguments: Any) -> Any:  # type: ignore[override]
        """Computes logits.

        Args:
          variables: the variables, with the head under `HEAD`.
          images: normalized images [b, h, w, 3].
          train: for batch statistics and dropout.
          **arguments: `mutable` and `rngs`, as those of Flax.

        Returns:
          The logits, and the changed collections if `mutable` is given.

        Raises:
          UserError: the network fails, or does not return logits.
        """
        inner = moved(variables, HEAD, self.head, self.reference)
        made = self._call("apply", lambda: self.module.apply(inner, images, train=train, **arguments), images)
        # Flax returns a pair unless this is False, also for an empty list.
        paired = arguments.get("mutable", False) is not False
        logits, changed = made if paired else (made, {})
        wanted = (images.shape[0], self.num_classes)
        if not hasattr(logits, "shape") or logits.shape != wanted or not jnp.issubdtype(logits.dtype, jnp.floating):
            raise self._error(f"it returns {form(logits)} for images {list(images.shape)}, not logits {list(wanted)}")
        return (logits, plain(changed)) if paired else logits

    @nn.nowrap
    def clone(self, **fields: Any) -> "OwnNetwork":
        """The same network with other fields.

        Args:
          **fields: `num_classes` and `widths`.

        Returns:
          The network.

        Raises:
          UserError: the module has no such field.
        """
        missing = [field for field in fields if not hasattr(self.module, field)]
        if missing:
            raise self._error(
                f"its module has no field {missing[0]}; to be made smaller it needs num_classes and widths"
            )
        module = self.module.clone(**fields)
        return OwnNetwork(module, self.head, fields.get("num_classes", self.num_classes), self.reference)

    @nn.nowrap
    def _call(self, name: str, function: Callable[[], Any], images: Any) -> Any:
        try:
            return function()
        # Whatever the user's module raises.
        except Exception as error:
            said = references.describe(error)
            raise self._error(f"{name} fails for images {list(images.shape)}: {said}") from error

    @nn.nowrap
    def _check_variables(self, variables: Variables) -> None:
        unknown = sorted(set(variables).difference(COLLECTIONS))
        if unknown:
            raise self._error(f"it has the collection {short(unknown[0])}; known are {' and '.join(COLLECTIONS)}")
        leaves = trees.flatten(variables)
        other = next((path for path, leaf in leaves.items() if leaf.dtype != jnp.float32), None)
        if other is not None:
            raise self._error(f"its {other} is {form(leaves[other])}; variables must be float32")
        kernel, bias = (leaves.get(f"params/{self.head}/{leaf}") for leaf in ("kernel", "bias"))
        shapes = [() if leaf is None else leaf.shape for leaf in (kernel, bias)]
        if len(shapes[0]) != 2 or (shapes[0][1:], shapes[1]) != ((self.num_classes,), (self.num_classes,)):
            forms = " and ".join(
                f"no {name}" if leaf is None else f"{name} {list(leaf.shape)}"
                for name, leaf in (("kernel", kernel), ("bias", bias))
            )
            there = several(variables["params"], limit=8, width=20)
            raise self._error(
                f"its head {short(self.head)} has {forms}; it must have kernel [c, {self.num_classes}] and bias "
                f"[{self.num_classes}]; params has {there}: name it by OwnModel(module, head=...)"
            )

    @nn.nowrap
    def _error(self, message: str) -> UserError:
        return UserError(f"model {short(self.reference)}: {message}")


def check_call(model: nn.Module, *, image_size: int) -> None:
    """Checks that a network of one's own can be initialized, trained and evaluated. Nothing is computed.

    Args:
      model: any network; those of this package are known to fit.
      image_size: the side of its images.

    Raises:
      UserError: it does not fit `OwnModel`.
    """
    if not isinstance(model, OwnNetwork):
        return
    images, key = jax.ShapeDtypeStruct((2, image_size, image_size, 3), jnp.float32), jax.random.key(0)
    variables = jax.eval_shape(model.init, key, images)
    jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, images)

    def train(variables: Variables, images: jax.Array, key: jax.Array) -> Any:
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})

    _, changed = jax.eval_shape(train, variables, images, key)
    before, after = (trees.flatten(tree.get("batch_stats", {})) for tree in (variables, changed))
    if before.keys() != after.keys():
        raise UserError(f"model {short(model.reference)}: train=True changes which batch_stats there are")


def moved(variables: Mapping[str, Any], old: str, new: str, reference: str) -> Variables:
    """Variables with the head at another place in `params`.

    Args:
      variables: the variables.
      old: the "/"-joined path of the head.
      new: its new path.
      reference: the name of the network's factory, for the error.

    Returns:
      The variables, as nested dicts.

    Raises:
      UserError: another part has the new path.
    """
    if old == new:
        return dict(variables)
    leaves = trees.flatten(variables["params"])
    if any(path == new or path.startswith(f"{new}/") for path in leaves):
        raise UserError(
            f"model {short(reference)}: its head is {short(old)}, but another part is called {new}; rename that"
        )
    params = {
        f"{new}/{path.removeprefix(f'{old}/')}" if path.startswith(f"{old}/") else path: leaf
        for path, leaf in leaves.items()
    }
    return {**variables, "params": trees.unflatten(params)}


def plain(tree: Any) -> Any:
    """A tree with dicts for mappings of all kinds, such as Flax's frozen ones."""
    return {key: plain(branch) for key, branch in tree.items()} if isinstance(tree, Mapping) else tree


def form(value: Any) -> str:
    """What a value is, for an error: dtype and shape of an array, else its type."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} {list(value.shape)}"
    return f"a {type(value).__name__}"
