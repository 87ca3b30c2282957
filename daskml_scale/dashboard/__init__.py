"""What watches runs: progress fold, scheduler plugin, /workflow page, publisher. Never decides anything."""

PRELOAD = "daskml_scale.dashboard.preload"
"""Module of schedulers that we start: it brings the page."""
