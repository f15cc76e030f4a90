"""Losses and metrics (pure), the training loop, checkpoints, evaluation, run directories."""

from capsjax.training.config import Config
from capsjax.training.evaluation import Evaluation, Prediction, evaluate, predict
from capsjax.training.loop import Result, fit

__all__ = ["Config", "Evaluation", "Prediction", "Result", "evaluate", "fit", "predict"]
