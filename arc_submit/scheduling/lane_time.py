"""How the sources of a lane divide its time: by the shares that they are given, and by the estimates of their work where they have none.

Does not know what a source does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from arc_submit.scheduling.scheduler import LEAST, LEAST_BEFORE_GAIN, choose_deadline


@dataclass(frozen=True)
class LaneMember:
    """One source of a lane.

    Attributes:
        name: of the source.
        seconds: estimate of its plan on one device.
        owner: the source that it is or prepares; those of one owner have its share together.
        share: of the lane's time; None: by the estimates.
        by_gain: it spends its time by expected gain (arc_submit.scheduling.gain_scheduler), and can use all that it gets.
    """

    name: str
    seconds: float
    owner: str = ""
    share: float | None = None
    by_gain: bool = False


@dataclass
class LaneTime:
    """The time of one lane.

    A source with a share has that part of the time from `began` to `deadline`, less what earlier sources have taken beyond theirs; those
    without divide the rest by their estimates. What a source leaves goes to those behind it, and the last one may work to the end.

    Attributes:
        began, deadline: of the lane, on one clock.
    """

    began: float
    deadline: float
    _ends: dict[str, float] = field(default_factory=dict)  # of the owners that have begun and have a share

    def choose(self, now: float, current: LaneMember, behind: Sequence[LaneMember]) -> tuple[float, str]:
        """When a source must leave the devices to those behind it, and the reason."""
        kept = self._kept([one for one in behind if one.owner != current.owner])
        least = LEAST_BEFORE_GAIN if any(one.by_gain for one in behind) else LEAST
        if current.share is None:
            end = max(now, self.deadline - sum(kept.values())) if kept else self.deadline
            own, reason = choose_deadline(now, end, current.seconds, {one.name: one.seconds for one in behind if one.share is None}, least)
            return own, f"{reason}; {_seconds(kept)}" if kept else reason
        others = [one for one in behind if one.owner != current.owner]
        end = self._ends.setdefault(current.owner, min(self.deadline, now + current.share * (self.deadline - self.began)))
        if not others:
            end = self.deadline
        within = {one.name: one.seconds for one in behind if one.owner == current.owner}
        own, reason = choose_deadline(now, end, current.seconds, within, least)
        of_share = f"its share is {100 * current.share:.0f} % of the time"
        return own, f"{of_share}; {reason}" if others and within else of_share if others else reason

    def _kept(self, behind: Sequence[LaneMember]) -> dict[str, float]:
        """Seconds that are kept for the owners behind that have a share."""
        return {one.owner: one.share * (self.deadline - self.began) for one in behind if one.share is not None}


def _seconds(kept: dict[str, float]) -> str:
    return "kept for " + ", ".join(f"{owner} {seconds:.0f} s" for owner, seconds in kept.items())
