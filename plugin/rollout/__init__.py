"""A canary: a new version proves itself on a production server before it takes over.

``plan.py`` says in which steps, ``traffic.py`` sends recorded requests to both versions,
``decision.py`` judges after every round, ``canary.py`` goes through the steps, and ``trial.py``
puts both versions into service for it and takes them out again.
"""
