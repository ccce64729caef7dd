"""p_alpha: distributions over architectures."""

from archgrad.policies.autoregressive import Autoregressive
from archgrad.policies.factorised import Factorised
from archgrad.policies.prior import near

__all__ = ["Autoregressive", "Factorised", "near"]
