"""The steps of `benchmarks.step`, written in fast PyTorch code."""

import contextlib
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.step import CASES, DENSITY, frame_width, make_batch
from benchmarks.torch_networks import NETWORKS, Tensors
from vpns_jax import models, sparsity


class TorchCase:
    """A step with its state, which each call updates in place; `torch.compile`d if a backend for that is named."""

    def __init__(
        self,
        name: str,
        variables: dict[str, Any],
        *,
        model: str,
        image_size: int,
        batch: int,
        dtype: str,
        backend: str | None = None,
    ) -> None:
        if torch.cuda.is_available():
            # As XLA does: the fastest convolution is searched for, and float32 is multiplied as tf32.
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        self._kind = kind = CASES[name]
        self._network, (mean, std) = NETWORKS[model], models.normalization(model)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        half = dtype == "bfloat16"
        self._precision = torch.autocast(self._device.type, torch.bfloat16) if half else contextlib.nullcontext()
        self._passes = (True, False) if kind.protocol == "reference" else (kind.prompted,)

        self._tensors = self._to_device(models.export(model, variables))
        kernels = models.prunable(variables["params"])
        self._pruned = sparsity.pruned_count(kernels, DENSITY)
        given = self._pick(model, variables, sparsity.scaled_init(kernels))
        self._scores = (
            {key: s.requires_grad_(kind.learns == "scores") for key, s in given.items()} if kind.masked else {}
        )
        learned = list(self._scores.values())
        if kind.learns == "weights":
            self._mask = {key: keep.float() for key, keep in self._keep().items()}
            learned = [x.requires_grad_() for key, x in self._tensors.items() if "running" not in key]
        self._prompt, frame = torch.zeros(1, 3, image_size, image_size), torch.ones(1, 1, image_size, image_size)
        inner = slice(frame_width(image_size), image_size - frame_width(image_size))
        frame[..., inner, inner] = 0
        self._frame, self._prompt = frame.to(self._device), self._prompt.to(self._device).requires_grad_()
        self._optimizers = [self._optimizer(learned)] + ([self._optimizer([self._prompt])] if kind.prompted else [])

        self._loss = torch.compile(self._loss_of, backend=backend) if backend else self._loss_of
        images, labels = map(np.array, make_batch(batch, image_size))
        # The memory layout is "channels last", which is fast in PyTorch.
        self._images = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2)
        self._labels = torch.from_numpy(labels).long().to(self._device)
        self._mean, self._std = (torch.tensor(x, device=self._device)[None, :, None, None] for x in (mean, std))

    def __call__(self) -> list[torch.Tensor]:
        """Runs the step, and returns the loss of each pass."""
        return [self._run_pass(prompted) for prompted in self._passes]

    def bytes(self) -> int | None:
        """The most bytes allocated in one step; None on a CPU, where PyTorch does not count them."""
        if self._device.type == "cpu":
            return None
        torch.cuda.reset_peak_memory_stats()
        self()
        return torch.cuda.max_memory_allocated()

    def gradient(self, *, prompted: bool = False) -> torch.Tensor:
        """Runs one forward and backward pass, and returns the loss; the gradients are in the tensors' `grad`."""
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = self._loss(prompted)
        loss.backward()
        return loss.detach()

    def _loss_of(self, prompted: bool) -> torch.Tensor:
        x = self._images.float() / 255
        if prompted:
            x = torch.clamp(x + self._prompt * self._frame, 0, 1)
        x = ((x - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        with self._precision:
            logits = self._network(self._masked(), x)
        return F.cross_entropy(logits.float(), self._labels)

    def _run_pass(self, prompted: bool) -> torch.Tensor:
        loss = self.gradient(prompted=prompted)
        scores, *prompt = self._optimizers
        for optimizer in (scores, *(prompt if prompted else ())):
            optimizer.step()
        return loss

    def _masked(self) -> Tensors:
        if self._kind.learns == "weights":
            return self._tensors | {key: self._tensors[key] * self._mask[key] for key in self._scores}
        keep = self._keep()
        # These have the mask's value and the gradient of the scores' magnitude.
        masks = {key: keep[key].float() + (s.abs() - s.abs().detach()) for key, s in self._scores.items()}
        return self._tensors | {key: self._tensors[key] * masks[key] for key in masks}

    @torch.no_grad()
    def _keep(self) -> Tensors:
        if not self._scores:
            return {}
        tau = self.threshold()
        return {key: s.abs() > tau for key, s in self._scores.items()}

    @torch.no_grad()
    def threshold(self) -> torch.Tensor:
        """The k-th smallest magnitude of all scores."""
        return torch.kthvalue(torch.cat([s.abs().flatten() for s in self._scores.values()]), self._pruned).values

    def _optimizer(self, tensors: list[torch.Tensor]) -> torch.optim.Optimizer:
        if self._kind.optimizer == "adam":
            return torch.optim.Adam(tensors, lr=1e-4, weight_decay=1e-4, fused=True)
        return torch.optim.SGD(tensors, lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True)

    def _to_device(self, arrays: dict[str, np.ndarray]) -> Tensors:
        """Copies float arrays to the device, kernels as "channels last"; counters are dropped."""
        tensors = {key: torch.from_numpy(x).to(self._device) for key, x in arrays.items() if x.dtype == np.float32}
        return {key: x.to(memory_format=torch.channels_last) if x.ndim == 4 else x for key, x in tensors.items()}

    def _pick(self, model: str, variables: dict[str, Any], scores: Any) -> Tensors:
        """The scores under PyTorch's names."""
        nowhere = jax.tree.map(lambda x: np.full(x.shape, np.nan, x.dtype), variables["params"])
        exported = models.export(model, {**variables, "params": sparsity.overlay(nowhere, scores)})
        tensors = self._to_device(exported)
        return {key: x for key, x in tensors.items() if "running" not in key and not bool(x.isnan().any())}
