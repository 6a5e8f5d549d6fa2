"""What becomes of a finished network: files that know what they hold, and answers from the file alone."""

from vpns_jax.deploy.classifier import Classifier, Predictions
from vpns_jax.deploy.description import Description
from vpns_jax.deploy.loading import load, save
from vpns_jax.deploy.reading import Answer, classify_files

__all__ = ["Answer", "Classifier", "Description", "Predictions", "classify_files", "load", "save"]
