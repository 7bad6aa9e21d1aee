"""Simulated observations: a plan of runs, analytic responses, drawn events."""
