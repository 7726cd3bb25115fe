"""What becomes of a training that collapses or diverges: it is told, stopped, or taken back.

`train.on_collapse`: `log` tells and goes on, `stop` ends the training, `rollback` takes networks,
average and optimizers back to the last healthy look and changes ratio and rates. The count of
steps, batches and images goes on, so that a training never costs more than its `train.steps`, sees
other noise than before, and its curves show what happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pipeline.training.collapse import CollapseAlarm, signs
from pipeline.training.finite import Diverged

if TYPE_CHECKING:
    from pipeline.training.state import State

TAKEN_BACK = ("generator", "discriminator", "ema", "optimizer_g", "optimizer_d")


@dataclass(frozen=True)
class Event:
    """Something that a person should hear of.

    `kind`: balance, alarm, clear (the alarm is over), stop, not_finite or rollback.
    """

    step: int
    kind: str
    text: str


def alarm_tags(events: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What a run's tags say of these events (see `Event`): none where nothing was alarming."""
    alarming = [event for event in events if event["kind"] in ("alarm", "not_finite")]
    if not alarming:
        return {}
    last = alarming[-1]
    tags = {"alarm": f"step {last['step']}: {last['text']}"}
    rollbacks = sum(event["kind"] == "rollback" for event in events)
    return tags | ({"rollbacks": str(rollbacks)} if rollbacks else {})


class Guard:
    """Hears the monitor and acts. All that it remembers is part of the training's state.

    Args:
        on_collapse: log, stop or rollback.
        max_rollbacks: after so many a collapse is only told, and NaN or inf ends the training.
    """

    checks = True  # losses and gradients; not where a training is run only to be counted

    def __init__(self, on_collapse: str = "log", max_rollbacks: int = 3) -> None:
        self.on_collapse, self.max_rollbacks = on_collapse, max_rollbacks
        self.alarm = CollapseAlarm()
        self.reason: str | None = None  # for the alarm, where it sounds
        self.ended = False  # no step is left
        self.sound = False  # no sign of collapse
        self.sounding = False  # and was told
        self.rollbacks = 0
        self.lost = 0  # generator updates thrown away by rollbacks
        # What a rollback returns to: the step, and the state of `TAKEN_BACK` and the memory.
        self.healthy: dict[str, Any] | None = None

    @property
    def takes_back(self) -> bool:
        return self.on_collapse == "rollback"

    def begin(self, state: State) -> None:
        """Before the first step: the untrained networks are healthy enough to return to."""
        if self.takes_back and self.healthy is None:
            self.healthy = _copy(state)

    def hears(self, figures: Mapping[str, float], step: int, steps: int) -> bool:
        """Judge the look at the samples after `step` of `steps`: does the alarm sound?"""
        self.reason = self.alarm.hears(figures, (step - self.lost) / steps)
        self.sound = not signs(figures)
        self.ended = step >= steps
        return self.reason is not None

    def acts(self, state: State) -> list[Event]:
        """Act on what was heard last, once everybody has seen it. Returns what there is to tell.

        May take `state` back; `stops` says whether the training should end.
        """
        step, told = state.step, self.sounding
        self.sounding = self.reason is not None
        if self.reason is None:
            if self.takes_back and self.sound:
                self.healthy = _copy(state)
            return [Event(step, "clear", "the signs of collapse are gone")] if told else []
        events = [] if told else [Event(step, "alarm", f"collapse: {self.reason}")]
        if self.stops:
            events.append(Event(step, "stop", "train.on_collapse is stop: the training ends here"))
        elif self.takes_back and self.rollbacks < self.max_rollbacks and self._worth_it:
            events.append(self._take_back(state, diverged=False))
        return events

    @property
    def _worth_it(self) -> bool:
        """At the end only a look that was healthy: networks that never learnt are no result."""
        return not self.ended or (self.healthy is not None and self.healthy["step"] > 0)

    @property
    def stops(self) -> bool:
        return self.on_collapse == "stop" and self.sounding

    def not_finite(self, state: State, culprit: str) -> Event:
        """Go back after NaN or inf, first made by `culprit`.

        Raises Diverged where `on_collapse` is another, or no rollback is left.
        """
        if not self.takes_back or self.rollbacks >= self.max_rollbacks:
            spent = f" after {self.rollbacks} rollbacks" if self.rollbacks else ""
            way_out = "" if self.takes_back else ", or set train.on_collapse: rollback"
            raise Diverged(
                f"the training diverged at step {state.step}{spent}: NaN or inf, first made by "
                f"{culprit}; lower train.lr_g and train.lr_d, set train.precision: fp32{way_out}"
            )
        return self._take_back(state, diverged=True)

    def _take_back(self, state: State, *, diverged: bool) -> Event:
        assert self.healthy is not None
        changed = state.balance.temper(diverged=diverged)
        step = self.healthy["step"]
        for name in TAKEN_BACK:
            getattr(state, name).load_state_dict(cloned(self.healthy[name]))
        # In place of all of it: what was first heard after the look is forgotten.
        device = next(state.generator.parameters()).device
        memory = cloned(self.healthy["memory"])
        state.memory = {name: value.to(device) for name, value in memory.items()}
        self.lost = self.healthy["lost"] + state.step - step
        self.rollbacks += 1
        self.alarm.reset()
        self.sounding = False
        count = f"rollback {self.rollbacks} of at most {self.max_rollbacks}"
        return Event(state.step, "rollback", f"{count}: back to step {step}, with {changed}")

    def state_dict(self) -> dict[str, Any]:
        names = ("sounding", "rollbacks", "lost", "healthy")
        return {name: getattr(self, name) for name in names} | {"alarm": asdict(self.alarm)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, CollapseAlarm(**value) if name == "alarm" else value)


def _copy(state: State) -> dict[str, Any]:
    """Of `state` what a rollback returns to, on the CPU."""
    modules = {name: cloned(getattr(state, name).state_dict(), cpu=True) for name in TAKEN_BACK}
    memory = cloned(state.memory, cpu=True)
    return {**modules, "memory": memory, "step": state.step, "lost": state.guard.lost}


def cloned(value: Any, *, cpu: bool = False) -> Any:
    """A copy of nested dictionaries and lists, of each tensor too."""
    if isinstance(value, Tensor):
        copy = value.detach().clone()
        return copy.cpu() if cpu else copy
    if isinstance(value, Mapping):
        return {key: cloned(item, cpu=cpu) for key, item in value.items()}
    if isinstance(value, list):
        return [cloned(item, cpu=cpu) for item in value]
    return value
