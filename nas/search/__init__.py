"""A search: the broker (study, records, repeats, budgets), the samplers, the Ray Tune adapter."""

from nas.search.launch import Finished, SearchPlan, plan_search, resume_search, run_search

__all__ = ["Finished", "SearchPlan", "plan_search", "resume_search", "run_search"]
