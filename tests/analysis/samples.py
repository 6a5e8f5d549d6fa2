"""A small experiment with simple numbers."""

from typing import Any


def cell(method: str, density: float, seed: int, plain: float, prompted: float | None) -> dict[str, Any]:
    """A finished cell; its validation accuracy is 1 point above test, its last epoch 2 points below."""

    def pair(shift: float) -> dict[str, Any]:
        return {"plain": plain + shift, "prompted": None if prompted is None else prompted + shift}

    return {
        "cell": f"{method}-s{round(100 - 100 * density)}-seed{seed}",
        "method": method,
        "density": density,
        "seed": seed,
        "achieved_density": density,
        "density_without_head": density / 2,
        "collapsed": [],
        "layers": [
            {"path": "conv/kernel", "size": 3000, "kept": round(3000 * density)},
            {"path": "head/kernel", "size": 1000, "kept": round(1000 * density)},
        ],
        "val": {"last": pair(-0.01), "best": {**pair(0.01), "epoch": 5}},
        "test": {"last": pair(-0.02), "best": pair(0.0)},
        "optimizer_steps": {"prune": 1000, "retrain": 200 + seed},
        "forward_passes": {"prune": 2000, "retrain": 500},
        "seconds": {"prune": 3.25, "retrain": 3.0},
    }


def summary() -> dict[str, Any]:
    """Two methods, two sparsities, two seeds; the run was stopped before hydra's second seed at 95%."""
    return {
        "name": "quickstart",
        "command": "python main.py --config=configs/quickstart.py",
        "dataset": "digits",
        "model": "resnet18",
        "protocol": "paper",
        "versions": {"jax": "0.10.2"},
        "device": "cpu",
        "dense_parameters": 4321,
        "prunable": 4000,
        "source": {"test_accuracy": 0.875},
        "cells": [
            cell("vpns", 0.05, 7, 0.5, 0.7),
            cell("vpns", 0.05, 9, 0.6, 0.8),
            cell("hydra", 0.05, 7, 0.65, None),
            cell("vpns", 0.2, 7, 0.9, 0.95),
            cell("hydra", 0.2, 7, 0.925, None),
            cell("dense", 1.0, 7, 0.975, None),
        ],
    }


def log() -> list[dict[str, Any]]:
    """The rows of one cell: two epochs of each stage."""
    return [
        {
            "cell": "vpns-s80-seed7",
            "stage": stage,
            "epoch": epoch,
            "loss": 1 / (epoch + 1),
            "val_plain": 0.4 + epoch / 10,
            "val_prompted": 0.5 + epoch / 10,
        }
        for stage in ("prune", "retrain")
        for epoch in (1, 2)
    ]
