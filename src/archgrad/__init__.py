"""archgrad finds neural-network architectures by estimating a gradient."""

__version__ = "0.1.0"
