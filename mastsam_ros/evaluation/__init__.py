"""Metrics as pure functions, protocols, and data sets with truth."""
