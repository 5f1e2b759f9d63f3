"""Putting versions into service and taking them out, so that a kill never breaks a repository.

What a canary, a promotion and a rollback are made of:

    with model_lock(repository.path, name):                # one change at a time
        model = pin_served_versions(repository.model(name))   # a new folder changes nothing
        model, version = install_version(model, folder)       # there, and not served
        journal = Journal(repository.path)
        change = journal.begin(...)
        set_served_versions(model, (version,))                 # the commit: one rename
        journal.note(change, "committed")

- ``versions``: install_version, pin_served_versions, set_served_versions
- ``journal``: Journal, who served when and on which verdict
- ``lock``: model_lock
- ``servers``: RunningServer, which loads, waits until versions are ready, and compares answers
- ``confirm``: servers follow a change, or it is undone
- ``guarded``: proofs that are there before the configuration that needs them
- ``candidate``, ``writable``: what would ship and where to, checked before anything is written
- ``promote``, ``rollback``: the whole operations

The order is what makes it safe. A version is copied aside, flushed to the disk and renamed while
the policy names other versions; then a new config.pbtxt is renamed over the old one. Before that
rename a server finds the old state, after it the new one.
"""
