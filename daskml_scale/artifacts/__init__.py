"""Models by path: what was trained, with all it takes to predict. Never a pickle."""

from .bundle import Bundle, load_model, save_model

__all__ = ["Bundle", "load_model", "save_model"]
