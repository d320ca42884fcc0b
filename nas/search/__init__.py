"""A search: the broker (study, records, repeats, budgets), the samplers, the Ray Tune adapter."""

import os

# Before anything here imports Ray: no per-trial loggers (0.03 s a trial), no tables, signal handlers and checkpoints of
# its own (each holds all trials so far, and nobody reads it), no usage statistics sent.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "inf")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
