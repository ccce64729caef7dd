"""d/dalpha E[f]: estimators of the gradient."""

from archgrad.estimators.ppo import PPO
from archgrad.estimators.score_function import ScoreFunction

__all__ = ["PPO", "ScoreFunction"]
