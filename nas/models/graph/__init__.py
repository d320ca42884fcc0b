"""Networks that somebody brought: captured once as plain data, rebuilt from torch alone, changed, and given the base's weights."""
