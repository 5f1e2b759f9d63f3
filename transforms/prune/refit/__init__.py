"""Least-squares repair of a cut: layers refitted on calibration samples, without gradients."""

from trimton.transforms.prune.refit.refitting import refit, refit_sites
from trimton.transforms.prune.refit.site import Refit, Site

__all__ = ["Refit", "Site", "refit", "refit_sites"]
