"""p_alpha: distributions over architectures."""

from archgrad.policies.autoregressive import Autoregressive
from archgrad.policies.factorised import Factorised

__all__ = ["Autoregressive", "Factorised"]
