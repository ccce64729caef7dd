"""d/dalpha E[f]: estimators of the gradient."""

from archgrad.estimators.lax import Lax
from archgrad.estimators.ppo import PPO
from archgrad.estimators.rebar import Rebar
from archgrad.estimators.relax import Relax
from archgrad.estimators.score_function import ScoreFunction

__all__ = ["PPO", "Lax", "Rebar", "Relax", "ScoreFunction"]
