"""Quantised layers and blocks tuned by gradients until they give what the float ones give."""
