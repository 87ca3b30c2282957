"""Durable runs: the DAG of stages, the registry of runs, and how both are shown on a terminal."""
