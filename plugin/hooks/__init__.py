"""Verdicts for pipelines: a web server that Flagger, Argo Rollouts and others ask, ready files.

``verdicts.py`` finds what runs have said of a version, ``rulings.py`` what follows, ``calls.py``
what is asked and answered over HTTP, ``app.py`` where. ``guard.py`` lets in who has the token and
keeps to the limits, ``serving.py`` listens. The folders beside them hold files to copy into a
pipeline.
"""
