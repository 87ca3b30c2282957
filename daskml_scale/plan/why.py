"""Why units run: kept with a plan, told by dry runs, reports and ``status --why``. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Why:
    """Why units run: the most frequent reason once, the others by unit (a million new units need no million entries).

    Attributes
    ----------
    usual : str
        Of every unit that ``other`` does not name.
    """

    usual: str = ""
    other: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, because: Mapping[str, Sequence[str]]) -> Why:
        """Return the reasons from the units of each."""
        if not because:
            return cls()
        usual = max(sorted(because), key=lambda why: len(because[why]))
        return cls(usual, {key: why for why, keys in because.items() if why != usual for key in keys})

    def get(self, key: str) -> str:
        """Return the reason of a unit that runs."""
        return self.other.get(key, self.usual)
