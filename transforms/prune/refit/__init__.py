"""Least-squares repair of a cut: layers refitted on calibration samples, without gradients."""

from trimton.transforms.prune.refit.refitting import Refit, Site, refit, refit_sites

__all__ = ["Refit", "Site", "refit", "refit_sites"]
