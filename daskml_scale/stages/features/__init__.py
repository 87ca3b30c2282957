"""Features: one recipe of steps, fitted and applied in the same way for training and for prediction.

``program`` says what a recipe reads and makes, ``kernels`` and ``joins`` compute the numbers,
``statistics`` what fitting keeps per chunk, ``transformer`` runs a recipe on a range of rows,
``planner`` decides which rows that range needs, ``stage`` is the workflow stage, ``recipe`` the class for users.
"""

from .recipe import Recipe

__all__ = ["Recipe"]
