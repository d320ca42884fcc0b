"""A search: the broker (study, records, repeats, budgets), the samplers, the Ray Tune adapter."""
