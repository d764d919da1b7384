"""Comparison of pre-training objectives: the plan of its runs, what is kept of them, and the report."""
