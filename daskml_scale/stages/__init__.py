"""The kinds of stages. Each is a step model (``spec``), a planner and a kernel; the rest is shared."""
