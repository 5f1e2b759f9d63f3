"""Low rank: a layer computed as two smaller ones, where that saves time."""

from trimton.transforms.factorise.factorising import factorise
from trimton.transforms.factorise.settings import FactoriseSettings

__all__ = ["FactoriseSettings", "factorise"]
