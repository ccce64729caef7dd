"""p_alpha: distributions over architectures."""

from archgrad.policies.autoregressive import Autoregressive
from archgrad.policies.factorised import Factorised
from archgrad.policies.prior import near
from archgrad.policies.replicated import replicated
from archgrad.policies.transformer import Transformer

__all__ = ["Autoregressive", "Factorised", "Transformer", "near", "replicated"]
