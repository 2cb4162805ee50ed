"""The Trainable Optimizer beside SGD, momentum and Adam: losses, their spread, the estimators' errors.

``problems`` (``convex``, ``networks``, ``prompts``) and ``methods`` meet in ``runs``. ``tuning`` chooses the settings
of each method and runs it on fresh seeds, ``runner`` does so for all problems, and ``comparison`` says how much is
done. ``ranking``, ``plots`` and ``conclusions`` make findings of it.
"""
