"""Least-squares repair of what a cut broke: layers refitted on calibration samples, no gradients."""

from trimton.transforms.prune.refit.refitting import Refit, Site, refit, refit_sites

__all__ = ["Refit", "Site", "refit", "refit_sites"]
