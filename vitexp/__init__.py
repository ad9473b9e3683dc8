"""vitexp: one command line for Vision Transformer experiments."""

__version__ = "0.1.0"
