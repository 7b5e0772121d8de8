"""Who is next, on which net, and what the others can expect: pure decisions, over simulated queues."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from flip_contracts.base import ProjectId, RunId
from flip_contracts.projects import Framework
from flip_contracts.scheduler import Resources
from flip_scheduler.durations import FEWEST, Basis, Effort, History, Kind, Took
from flip_scheduler.fairness import HEAVIEST, HIGHEST, Share, Waiting, charge, in_fair_order, level
from flip_scheduler.matching import Net, pair, waits_for
from flip_scheduler.outlook import Estimate, Held, outlooks
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AGING = timedelta(days=1)
BOTH = frozenset({"KCH", "UCLH"})
PREDICTION = Effort(Kind("nvflare", "inference", device="cuda"))


def project(number: int) -> ProjectId:
    return ProjectId(UUID(int=number))


def run(number: int, of: int = 1, **facts: object) -> Waiting:
    """A run that came `number` seconds after the start."""
    plain = {
        "run_id": RunId(UUID(int=number)),
        "project_id": project(of),
        "framework": "nvflare",
        "trusts": BOTH,
        "queued_at": NOW + timedelta(seconds=number),
        "minimum": len(BOTH),
        "effort": PREDICTION,
    }
    return Waiting(**{**plain, **facts})  # pyright: ignore[reportArgumentType]


@dataclass
class OneNet:
    """A scheduler with one net that fits every run: gives it one after the other, as the dispatcher does."""

    shares: dict[ProjectId, Share]
    now: datetime = NOW
    waiting: list[Waiting] = field(default_factory=list[Waiting])
    given: list[Waiting] = field(default_factory=list[Waiting])
    virtual_time: int = 0
    came: int = 0

    def queue(self, of: int, **facts: object) -> Waiting:
        self.came += 1
        one = run(self.came, of, queued_at=self.now, virtual_time=self.virtual_time, **facts)
        self.waiting.append(one)
        return one

    def give(self) -> Waiting:
        first = in_fair_order(self.waiting, self.shares, self.now, AGING)[0]
        share = self.shares.setdefault(first.project_id, Share())
        charged = charge(first, share)
        self.shares[first.project_id] = replace(share, finish=charged.finish)
        self.virtual_time = charged.start
        self.waiting.remove(first)
        self.given.append(first)
        return first


WEIGHTS = st.integers(1, HEAVIEST)


# --- shares -------------------------------------------------------------------------------------------------------


@given(st.lists(WEIGHTS, min_size=2, max_size=4), st.integers(1, 120))
@pytest.mark.requirement("RUN-4")
def test_projects_that_always_have_runs_waiting_are_served_by_their_weights(weights: list[int], turns: int) -> None:
    scheduler = OneNet({project(number): Share(weight) for number, weight in enumerate(weights)})
    for number in range(len(weights)):
        scheduler.queue(number)
        scheduler.queue(number)
    for _ in range(turns):
        scheduler.queue(scheduler.give().project_id.int)
    served = Counter(each.project_id.int for each in scheduler.given)
    for one, weight in enumerate(weights):
        for other, heavier in enumerate(weights):
            assert abs(served[one] / weight - served[other] / heavier) <= 1 / weight + 1 / heavier


@pytest.mark.requirement("RUN-4")
def test_a_project_of_weight_2_gets_two_nets_where_one_of_weight_1_gets_one() -> None:
    scheduler = OneNet({project(1): Share(1), project(2): Share(2)})
    for _ in range(30):
        scheduler.queue(1)
        scheduler.queue(2)
    assert Counter(scheduler.give().project_id.int for _ in range(30)) == {1: 10, 2: 20}


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=80), st.lists(WEIGHTS, min_size=4, max_size=4))
@pytest.mark.requirement("RUN-4")
def test_a_run_is_overtaken_only_so_often_as_the_weights_allow_however_many_come_later(
    moves: list[tuple[int, bool]], weights: list[int]
) -> None:
    scheduler = OneNet({project(number): Share(weights[number - 1]) for number in range(1, 5)})
    overtaken: Counter[RunId] = Counter()
    own_before: dict[RunId, int] = {}
    for of, gives in moves:
        new = scheduler.queue(of)
        own_before[new.run_id] = sum(each.project_id == new.project_id for each in scheduler.waiting) - 1
        if gives:
            given_now = scheduler.give()
            overtaken.update(left.run_id for left in scheduler.waiting if left.run_id < given_now.run_id)
    for each in [*scheduler.given, *scheduler.waiting]:
        weight = scheduler.shares[each.project_id].weight
        turns = 1 + own_before[each.run_id]
        others = [share.weight for of, share in scheduler.shares.items() if of != each.project_id]
        assert overtaken[each.run_id] <= sum(turns * other / weight + 1 for other in others)


@pytest.mark.requirement("RUN-4")
def test_a_project_that_was_idle_has_saved_nothing_up() -> None:
    scheduler = OneNet({})
    for _ in range(20):
        scheduler.queue(1)
        scheduler.give()
    for _ in range(4):
        scheduler.queue(1)
        scheduler.queue(2)
    assert [scheduler.give().project_id.int for _ in range(6)] == [2, 1, 2, 1, 2, 1]


# --- priority and age ---------------------------------------------------------------------------------------------


@pytest.mark.requirement("RUN-4")
def test_priority_goes_first_whatever_the_shares() -> None:
    scheduler = OneNet({project(1): Share(1, finish=10**6), project(2): Share(HEAVIEST)})
    ordinary, first, last = scheduler.queue(2), scheduler.queue(1, priority=9), scheduler.queue(2, priority=0)
    assert [scheduler.give() for _ in range(3)] == [first, ordinary, last]


@given(st.integers(0, HIGHEST), st.integers(0, HIGHEST), st.timedeltas(timedelta(), timedelta(days=20)))
@pytest.mark.requirement("RUN-4")
def test_waiting_raises_a_run_by_one_for_each_aging_and_never_above_the_highest(
    priority: int, other: int, waited: timedelta
) -> None:
    old = run(1, priority=priority, queued_at=NOW - waited)
    assert level(old, NOW, AGING) == min(HIGHEST, priority + waited.days)
    new = run(2, of=2, priority=other, queued_at=NOW)
    first = in_fair_order([new, old], {}, NOW, AGING)[0]
    assert (first == old) == (level(old, NOW, AGING) >= other)


@pytest.mark.requirement("RUN-4")
def test_a_run_of_the_lowest_priority_is_reached_though_urgent_ones_never_cease() -> None:
    scheduler = OneNet({})
    lowest = scheduler.queue(1, priority=0)
    for _ in range(60):
        scheduler.now += timedelta(hours=6)
        scheduler.queue(2, priority=HIGHEST)
        scheduler.queue(3, priority=HIGHEST)
        if scheduler.give() == lowest:
            break
    assert lowest in scheduler.given
    assert scheduler.now - NOW <= HIGHEST * AGING + timedelta(hours=12)


QUEUES = st.lists(
    st.builds(
        run,
        st.integers(1, 500),
        st.integers(1, 4),
        framework=st.sampled_from(["nvflare", "flower"]),
        trusts=st.frozensets(st.sampled_from(["GSTT", "KCH", "UCLH"]), min_size=1),
        minimum=st.integers(1, 3),
        priority=st.integers(0, HIGHEST),
        virtual_time=st.integers(0, 9000),
        resources=st.builds(Resources, gpus=st.integers(0, 2)),
    ).map(lambda each: replace(each, minimum=min(each.minimum, len(each.trusts)))),
    max_size=12,
    unique_by=lambda each: each.run_id,
)
SHARES = st.dictionaries(st.integers(1, 4).map(project), st.builds(Share, WEIGHTS, st.integers(0, 9000)))
FRAMEWORKS: st.SearchStrategy[Framework] = st.sampled_from(["nvflare", "flower"])
NETS = st.lists(
    st.builds(
        Net,
        st.integers(1, 99).map("net{}".format),
        FRAMEWORKS,
        st.frozensets(st.sampled_from(["GSTT", "KCH", "UCLH"])),
        st.sampled_from(["free", "free", "held", "released", "lost", "silent"]),
        st.booleans(),
        st.dictionaries(st.sampled_from(["GSTT", "KCH"]), st.builds(Resources, gpus=st.integers(0, 2))),
    ),
    max_size=5,
    unique_by=lambda net: net.net,
)


@given(QUEUES, SHARES)
@pytest.mark.requirement("RUN-4")
def test_ordering_loses_no_run_and_keeps_each_projects_runs_by_level_and_age(
    waiting: list[Waiting], shares: dict[ProjectId, Share]
) -> None:
    order = in_fair_order(waiting, shares, NOW, AGING)
    assert sorted(order, key=str) == sorted(waiting, key=str)
    levels = [level(each, NOW, AGING) for each in order]
    assert levels == sorted(levels, reverse=True)
    for of in {each.project_id for each in waiting}:
        own = [(-level(each, NOW, AGING), each.queued_at) for each in order if each.project_id == of]
        assert own == sorted(own)


# --- nets ---------------------------------------------------------------------------------------------------------


@given(QUEUES, NETS)
@pytest.mark.requirement("RUN-2")
@pytest.mark.requirement("RUN-4")
def test_no_net_that_fits_is_left_idle_and_no_run_is_given_less_than_it_asked_for(
    queue: list[Waiting], nets: list[Net]
) -> None:
    able = [
        (
            each,
            net,
            frozenset(trust for trust in each.trusts & net.trusts if has_gpus(net, trust) >= each.resources.gpus),
        )
        for each in queue
        for net in nets
        if net.state == "free" and not net.draining and net.framework == each.framework
    ]
    fitting = [(each, net, part) for each, net, part in able if len(part) >= each.minimum]
    chosen = pair(queue, nets)
    assert (chosen is None) == (not fitting)
    if chosen:
        one, net = chosen
        assert one == fitting[0][0]
        [part] = [part for each, at, part in fitting if (each, at) == (one, net)]
        assert net.part(one) == part
        assert len(part) == max(len(part) for each, _, part in fitting if each == one)


def has_gpus(net: Net, trust: str) -> int:
    return net.resources[trust].gpus if trust in net.resources else 99


@pytest.mark.requirement("RUN-4")
def test_a_run_that_needs_two_of_three_trusts_starts_with_those_that_are_connected() -> None:
    asked = run(1, trusts=frozenset({"GSTT", "KCH", "UCLH"}), minimum=2)
    assert pair([asked], [Net("net1", "nvflare", frozenset({"GSTT"}))]) is None
    chosen = pair([asked], [Net("net1", "nvflare", frozenset({"GSTT", "KCH", "RFH"}))])
    assert chosen
    assert chosen[1].part(asked) == {"GSTT", "KCH"}


@pytest.mark.requirement("RUN-4")
def test_a_run_is_given_the_net_where_most_of_its_trusts_take_part_and_of_those_the_one_with_the_fewest_others() -> (
    None
):
    asked = run(1, minimum=1)
    one, wide = Net("net1", "nvflare", frozenset({"KCH"})), Net("net2", "nvflare", BOTH | {"GSTT", "RFH"})
    narrow = Net("net3", "nvflare", BOTH | {"GSTT"})
    for nets, best in (([one, wide], wide), ([one, wide, narrow], narrow), ([one], one)):
        assert pair([asked], nets) == (asked, best)


@pytest.mark.requirement("RUN-4")
def test_a_trust_with_too_few_gpus_or_too_little_memory_takes_no_part() -> None:
    asked = run(1, minimum=1, resources=Resources(gpus=1, gpu_memory_mib=16000, memory_mib=32000))
    enough = Resources(gpus=2, gpu_memory_mib=24000, memory_mib=64000)
    for short in ({"gpus": 0}, {"gpu_memory_mib": 8000}, {"memory_mib": 16000}):
        net = Net("net1", "nvflare", BOTH, resources={"KCH": enough, "UCLH": enough.model_copy(update=short)})
        assert net.part(asked) == {"KCH"}
        assert net.lacking(asked, "UCLH") == short
        assert not net.fits(replace(asked, minimum=2))


# --- what a run can expect ----------------------------------------------------------------------------------------


def codes(asked: Waiting, *nets: Net) -> list[tuple[str, list[str]]]:
    return [(lack["code"], lack.get("trusts", [])) for lack in waits_for(asked, nets)]


@pytest.mark.requirement("RUN-5")
def test_a_waiting_run_says_what_it_waits_for() -> None:
    asked = run(1, resources=Resources(gpus=1))
    flower, alone = Net("net1", "flower", BOTH), Net("net2", "nvflare", frozenset({"KCH"}))
    busy = Net("net3", "nvflare", BOTH, "held")
    poor = Net("net4", "nvflare", BOTH, resources={"UCLH": Resources(memory_mib=1)})
    assert codes(asked) == [("no-net", [])]
    assert codes(asked, flower) == [("no-net", [])]
    assert codes(asked, flower, alone) == [("trusts-not-connected", ["UCLH"])]
    assert codes(asked, flower, poor) == [("resources-missing", ["UCLH"])]
    assert codes(asked, alone, busy) == [("nets-busy", [])]
    assert codes(asked, alone, replace(busy, draining=True)) == [("net-draining", [])]
    assert codes(asked, replace(busy, state="lost")) == [("net-silent", [])]
    assert codes(asked, busy, Net("net5", "nvflare", BOTH)) == []


@given(QUEUES, NETS)
@pytest.mark.requirement("RUN-5")
def test_a_run_waits_for_something_exactly_where_no_free_net_fits_it(queue: list[Waiting], nets: list[Net]) -> None:
    for each in queue:
        assert (waits_for(each, nets) == []) == (pair([each], nets) is not None)


@pytest.mark.requirement("RUN-9")
def test_a_run_that_rests_is_given_no_net_says_so_and_lets_others_go_first() -> None:
    net, until = Net("net1", "nvflare", BOTH), NOW + timedelta(seconds=20)
    resting, other = replace(run(1), rests_until=until), run(2)
    assert pair([resting], [net]) is None
    assert pair([resting, other], [net]) == (other, net)
    assert codes(resting, net) == [("resting", [])]
    assert outlooks([resting], [net], [], History(), NOW)[resting.run_id].start == Estimate(until, None)


@pytest.mark.requirement("RUN-5")
def test_a_place_counts_only_those_that_compete_for_the_same_nets() -> None:
    nets = [
        Net("net1", "nvflare", frozenset({"KCH"}), "held"),
        Net("net2", "nvflare", frozenset({"UCLH"}), "held"),
        Net("net3", "flower", BOTH, "held"),
    ]
    one_trust = [
        run(number, trusts=frozenset({trust}), minimum=1) for number, trust in enumerate(["KCH", "UCLH", "KCH"], 1)
    ]
    queue = [*one_trust, run(4, framework="flower"), run(5, trusts=frozenset({"GSTT"}), minimum=1)]
    found = outlooks(queue, nets, [], History(), NOW)
    assert [found[each.run_id].position for each in queue] == [1, 1, 2, 1, 4]


def took(*seconds: float, effort: Effort = PREDICTION, lead_s: float = 0) -> list[Took]:
    return [Took(effort, lead_s, each - lead_s) for each in seconds]


def training(rounds: int, rounds_done: int = 0, **changes: object) -> Effort:
    payload = {"mode": "training", "model_configuration": "2d", "device": "cuda", "num_rounds": rounds}
    return Effort.of("nvflare", {**payload, "epochs_per_round": 1, "starting_fed_round": 0, **changes}, rounds_done)


@pytest.mark.requirement("RUN-5")
def test_an_estimate_adds_up_what_runs_ahead_usually_take_and_says_what_it_rests_on() -> None:
    net = Net("net1", "nvflare", BOTH, "held")
    held = Held("net1", project(1), PREDICTION, NOW - timedelta(seconds=40))
    own_took, all_took = took(90.0, 100.0, 500.0), took(10.0, 60.0, 70.0, 20.0)
    history = History({(project(1), PREDICTION.kind): own_took}, {PREDICTION.kind: all_took})
    first, second, third = run(1), run(2, of=2), run(3)
    found = outlooks([first, second, third], [net], [held], history, NOW)
    own, all_ = Basis("project", 3, timedelta(seconds=100)), Basis("framework", 4, timedelta(seconds=40))
    assert found[first.run_id].start == Estimate(NOW + timedelta(seconds=60), own)
    assert found[second.run_id].start == Estimate(NOW + timedelta(seconds=160), own)
    assert found[third.run_id].start == Estimate(NOW + timedelta(seconds=200), all_)


@pytest.mark.requirement("RUN-5")
def test_a_training_is_expected_to_take_as_long_an_epoch_as_others_did_and_only_for_those_left() -> None:
    ten = took(120.0, 130.0, 140.0, effort=training(10), lead_s=20)
    history = History(of_all={ten[0].effort.kind: ten})

    def takes(effort: Effort) -> object:
        basis = history.basis(project(1), effort)
        return basis and basis.takes.total_seconds()

    assert takes(training(10)) == 130
    assert takes(training(100)) == 20 + 100 * 11
    assert takes(training(100, rounds_done=90)) == 20 + 10 * 11
    assert takes(training(50, epochs_per_round=2)) == 20 + 100 * 11


@pytest.mark.requirement("RUN-5")
@pytest.mark.parametrize(
    "other",
    [
        training(10, model_configuration="3d_fullres"),
        training(10, device="cpu"),
        PREDICTION,
        Effort.of("nvflare", {"mode": "app", "local_rounds": None}),
        replace(training(10), kind=replace(training(10).kind, framework="flower")),
    ],
)
def test_how_long_runs_of_another_kind_took_says_nothing(other: Effort) -> None:
    lasted = took(60.0, 60.0, 60.0, effort=training(10))
    kind = training(10).kind
    history = History({(project(1), kind): lasted}, {kind: lasted})
    assert history.basis(project(1), training(10)) is not None
    assert history.basis(project(1), other) is None


@pytest.mark.requirement("RUN-5")
def test_where_nothing_is_known_no_time_is_invented() -> None:
    net, asked = Net("net1", "nvflare", BOTH, "held"), run(1)
    held = Held("net1", project(1), PREDICTION, NOW - timedelta(seconds=40))

    def start(nets: list[Net], *seconds: float) -> object:
        history = History({(project(1), PREDICTION.kind): took(*seconds)})
        return outlooks([asked], nets, [held], history, NOW)[asked.run_id].start

    assert start([]) == "no-net-fits"
    assert start([net], *[60.0] * (FEWEST - 1)) == "no-finished-runs"
    assert start([net], *[60.0] * FEWEST) != "no-finished-runs"
    assert start([net], *[30.0] * FEWEST) == "overdue"


@pytest.mark.requirement("RUN-5")
def test_a_net_that_cleans_up_is_not_free_now_and_nobody_says_when_it_is() -> None:
    first, second = run(1), run(2)
    cleaning, free = Net("net1", "nvflare", BOTH, "released"), Net("net2", "nvflare", BOTH)
    long = History({(project(1), PREDICTION.kind): took(60.0, 60.0, 60.0)})
    assert outlooks([first], [cleaning], [], long, NOW)[first.run_id].start == "cleaning"
    found = outlooks([first, second], [cleaning, free], [], long, NOW)
    assert [found[each.run_id].start for each in (first, second)] == [Estimate(NOW, None), "cleaning"]
