"""The family of networks that somebody brought: a base, as it is, and what of it may change. No torch."""
