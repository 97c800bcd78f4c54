"""The sources of a run with a name of their own: the configuration of each, which sources share one, and which share devices.

A source without a definition has the run's own configuration, and its name is its kind. Does not know how a source works.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from arc_submit.run.config import RunConfig
from arc_submit.run.source import MODEL_LANE
from arc_submit.run.source_table import SOURCE_TABLE


@dataclass(frozen=True)
class SourceGroup:
    """Sources that have one configuration: all that have no definition, or one that has.

    Attributes:
        names: of the sources.
        config: their configuration. Its sources are their kinds, its definitions are none.
        defined: they have a definition.
    """

    names: tuple[str, ...]
    config: RunConfig
    defined: bool = False

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each source by its name."""
        return dict(zip(self.names, self.config.sources, strict=True))

    @property
    def label(self) -> str:
        """What messages about a source with a definition begin with."""
        return f"--source {self.names[0]}: " if self.defined else ""


def source_groups(config: RunConfig) -> list[SourceGroup]:
    """The groups of a run's sources, those without a definition first."""
    plain = tuple(name for name in config.sources if name not in config.definitions)
    defined = [SourceGroup((name,), source_config(config, name), defined=True) for name in config.sources if name in config.definitions]
    if not plain:
        return defined
    own = replace(config, sources=plain, definitions={}, weights={}) if defined else config
    return [SourceGroup(plain, own), *defined]


def source_config(config: RunConfig, name: str) -> RunConfig:
    """The configuration of one source with a definition."""
    definition = config.definitions[name]
    return replace(config, sources=(definition.kind,), definitions={}, weights={}, choices=(), **definition.values)


def model_devices(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """The devices of each source that uses the model, by its name."""
    return {
        name: group.config.devices for group in source_groups(config) for name, kind in group.kinds.items() if SOURCE_TABLE[kind].uses_model
    }


def lane_devices(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """The devices of each lane that runs a model, in the order in which its sources name them."""
    devices, lanes = model_devices(config), source_lanes(config)
    return {lane: tuple(dict.fromkeys(one for name in lanes if lanes[name] == lane for one in devices[name])) for lane in lanes.values()}


def source_lanes(config: RunConfig) -> dict[str, str]:
    """The lane of each source that uses the model, by its name.

    Sources that have a device in common are in one lane and work one after the other, each on its own devices; sources of other devices
    work beside them. The first lane is MODEL_LANE, any other one has the name of its devices too.
    """
    lanes: list[tuple[list[str], set[str]]] = []
    for name, own in model_devices(config).items():
        shared = [lane for lane in lanes if lane[1] & set(own)]
        names = [*(one for lane in shared for one in lane[0]), name]
        lanes = [lane for lane in lanes if lane not in shared]
        lanes.append((names, set(own).union(*(lane[1] for lane in shared))))
    lanes.sort(key=lambda lane: min(map(config.sources.index, lane[0])))
    titles = [MODEL_LANE, *(f"{MODEL_LANE} on {','.join(sorted(used))}" for _, used in lanes[1:])]
    return {name: title for title, (names, _) in zip(titles, lanes, strict=False) for name in names}
