"""Triton's own hook: a repository agent (C) that loads only proven models, and the check it runs.

``agent.c`` answers the server, ``checker.c`` runs ``check.py`` with a time limit, ``settings.c``
reads what the model's configuration and the server's environment say, ``record.c`` writes what
was decided. ``build.py`` makes the library.
"""
