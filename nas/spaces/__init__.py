"""Search spaces: choices, architectures as values, their cost. No torch."""
