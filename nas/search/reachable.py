"""Whether hard limits can be met at all: found out from the cheapest networks of a space, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.common.errors import InputError, arg
from nas.common.text import plural
from nas.latency.protocol import LatencyProtocol
from nas.latency.result import Latency
from nas.runs.objectives import objective
from nas.runs.settings import SearchSettings
from nas.runs.targets import targets_here
from nas.search.allowed import COMPUTED_WORDS, Allowed
from nas.search.latency import candidate_latency
from nas.search.samplers.known import KnownCosts
from nas.spaces.base import Architecture, Space, Values
from nas.spaces.cheapest import least_cost
from nas.spaces.families import architecture_cost

if TYPE_CHECKING:
    from nas.search.ray.placement import Placement

FEW = 4
"""Networks that are measured before a limit of latency is called impossible."""
SHOWN = 3
"""Networks that are named of those which are left out."""
Measure = Callable[[str | None, Architecture], Latency]
"""Measures a network on a further target by name, or by the run's own protocol (None), where trials run."""


def check_computed(settings: SearchSettings, num_classes: int) -> None:
    """Raise `InputError` when no network of the space is within the limits of MACs and parameters, as far as can be found."""
    allowed = allowed_of(settings, num_classes)
    for name, limit in allowed.limits.items():
        least = least_cost(settings.space, num_classes, name)
        if least > limit:
            raise InputError(
                f"{arg(f'max_{name}')} {limit:,} cannot be met: the smallest network of the space {settings.space.name} "
                f"has {least:,} {COMPUTED_WORDS[name]} with {num_classes} classes"
            )
    if not allowed.possible:
        both = " and ".join(f"{arg(f'max_{name}')} {limit:,}" for name, limit in allowed.limits.items())
        cost = architecture_cost(settings.space.architecture(allowed.cheapest), num_classes)
        raise InputError(
            f"{both} cannot be met together: of the space {settings.space.name} the network that comes closest has "
            f"{cost.macs:,} MACs and {cost.params:,} parameters"
        )


def allowed_of(settings: SearchSettings, num_classes: int) -> Allowed:
    """The networks that are within the limits of MACs and parameters."""
    return KnownCosts(settings.space, num_classes, settings.objectives, settings.evaluation.limits).allowed


def left_out_text(settings: SearchSettings, num_classes: int) -> str | None:
    """Which of the networks to try first are over a limit that can be computed, and so are not tried; None without any."""
    space, allowed = settings.space, allowed_of(settings, num_classes)
    named = {space.parse(text).digest: (text, space.parse(text)) for text in settings.enqueue}
    references = {"largest": space.largest, "backbone": space.backbone, "smallest": space.smallest}
    named |= {network.digest: (name, network) for name, network in references.items()}
    over = [(name, network) for name, network in named.values() if space.locate(network) not in allowed]
    if not over:
        return None
    shown = [f"{name} ({_costs_text(network, num_classes, allowed)})" for name, network in over[:SHOWN]]
    more = [f"{len(over) - SHOWN} more"] if len(over) > SHOWN else []
    limits = " and ".join(arg(f"max_{name}") for name in allowed.limits)
    return f"Over {limits}, and so not among what is tried first: {', '.join(shown + more)}"


def _costs_text(network: Architecture, num_classes: int, allowed: Allowed) -> str:
    cost = architecture_cost(network, num_classes)
    return ", ".join(f"{objective(name).show(getattr(cost, name))} {COMPUTED_WORDS[name]}" for name in allowed.limits)


def latency_limits(settings: SearchSettings) -> dict[str | None, float]:
    """The hard limits of latency in ms, by further target, None for the run's own."""
    return {each.name or None: each.max_ms for each in settings.evaluation.latencies if each.max_ms is not None}


def limits_here(settings: SearchSettings) -> dict[str | None, float]:
    """The limits of latency on devices that a trial's worker has."""
    here = {None, *(target.name for target in targets_here(settings))}
    return {target: limit_ms for target, limit_ms in latency_limits(settings).items() if target in here}


def measured_by(
    settings: SearchSettings, num_classes: int, placement: Placement, actors: Mapping[str, Any] | None = None
) -> Measure:
    """Measures where trials run, or by the `actors` of further targets."""
    asked = {target.name or None: target for target in settings.evaluation.latencies}

    def measure(target: str | None, network: Architecture) -> Latency:
        if target is not None and actors and target in actors:
            from nas.search.ray.measuring import measured_elsewhere

            return measured_elsewhere(actors, asked[target], network, num_classes)
        latency: Latency = placement.ask(_measured_here, network, num_classes, asked[target].protocol)
        return latency

    return measure


def _measured_here(network: Architecture, num_classes: int, protocol: LatencyProtocol) -> Latency:
    return candidate_latency(network, num_classes, protocol)


def check_latencies(
    settings: SearchSettings, num_classes: int, limits: Mapping[str | None, float], measure: Measure
) -> None:
    """Raise `InputError` when the fastest of a few of the cheapest networks is clearly over one of the `limits`.

    Clearly: the whole interval that its latency lies in. The first network that may be within settles that a limit is not
    impossible; what is measured here goes into the latency cache, so that no trial measures it again.
    """
    for target, limit_ms in limits.items():
        measured: list[tuple[Architecture, Latency]] = []
        for network in cheapest_networks(settings, num_classes):
            latency = measure(target, network)
            if low_ms(latency) <= limit_ms:
                break
            measured.append((network, latency))
        else:
            raise InputError(_impossible(settings.space, target, limit_ms, measured))


def low_ms(latency: Latency) -> float:
    """What a latency is at least, in ms."""
    return latency.range_ms[0]


def cheapest_networks(settings: SearchSettings, num_classes: int) -> Sequence[Architecture]:
    """A few of the cheapest networks within the limits that can be computed, the one of fewest MACs first."""
    space, allowed = settings.space, allowed_of(settings, num_classes)
    least = space.locate(space.smallest)
    if least not in allowed:
        least = allowed.cheapest
    near: list[Values] = [least]
    near += [
        {**least, name: choice}
        for name, choices in space.parameters.items()
        for choice in choices
        if choice != least[name]
    ]
    networks = {network.digest: network for network in map(space.architecture, filter(allowed.__contains__, near))}
    first, *others = networks.values()
    others.sort(key=lambda network: architecture_cost(network, num_classes).macs)
    return [first, *others[: FEW - 1]]


def _impossible(
    space: Space, target: str | None, limit_ms: float, measured: Sequence[tuple[Architecture, Latency]]
) -> str:
    own = f"{arg('max_latency_ms')} {limit_ms:g}ms"
    limit = own if target is None else f"{arg('target')} {target}: max {limit_ms:g} ms"
    smallest, fastest = measured[0][1], min((latency for _, latency in measured), key=lambda latency: latency.ms)
    low, high = smallest.range_ms
    others = ""
    if len(measured) > 1:
        others = f", and the fastest of {plural(len(measured), 'network')} of the least cost {fastest.ms:.3g} ms"
    return (
        f"{limit} cannot be met here: the smallest network of the space {space.name} takes {smallest.ms:.3g} ms "
        f"({low:.3g} to {high:.3g}){others}, on {smallest.device_name}; allow at least {1.1 * fastest.ms:.2g} ms"
    )
