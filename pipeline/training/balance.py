"""How many updates D and G get in a round."""

from __future__ import annotations

from typing import Any, Protocol


class Balance(Protocol):
    def ratio(self) -> tuple[int, int]:
        """D updates and G updates of the next round."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Fixed:
    """The same ratio from the first round to the last."""

    def __init__(self, *, d_steps: int, g_steps: int) -> None:
        self.d_steps, self.g_steps = d_steps, g_steps

    def ratio(self) -> tuple[int, int]:
        return self.d_steps, self.g_steps

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


BALANCES = {"fixed": Fixed}
