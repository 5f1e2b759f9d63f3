"""Sparsity: weights set to zero, in a pattern that hardware knows or one by one."""

from trimton.transforms.sparsify.settings import SparsifySettings
from trimton.transforms.sparsify.sparsifying import sparsify

__all__ = ["SparsifySettings", "sparsify"]
