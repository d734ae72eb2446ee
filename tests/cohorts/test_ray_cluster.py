"""Many machines by one command: two nodes, one of which is killed in the middle."""

from collections import Counter

import pytest

from cohorts.inputs import InputError, Item
from cohorts.judge import Plan, Wanted
from cohorts.ray_cluster import TRIES, _Crew, connected


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of what it will change
        patch.setenv("RAY_raylet_start_wait_time_s", "300")  # a busy machine
        patch.setenv("OMP_NUM_THREADS", "1")
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        yield started
        started.shutdown()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_node_that_dies_costs_only_what_it_had_in_hand(cluster, small_weights, bids):
    second = cluster.add_node(num_cpus=1)
    file = str(next(bids.rglob("*.nii.gz")))
    plan = Plan(small_weights, Wanted(), device="cpu")
    refused = []
    ray = connected(cluster.address)
    try:
        crew = _Crew(ray, plan, lambda item, error: refused.append(item) or {"error": str(error)}, 2)
        given, killed, left = [], [], [20]

        def work():  # until the death was noticed, however quickly the other node works, and some more
            while left[0] and len(given) < 5000:
                left[0] -= bool(crew.deaths)
                given.append(f"{len(given)}.nii.gz")
                yield Item(given[-1], file), None

        got = Counter()
        for name, record in crew.through(work()):
            got[name] += 1
            assert record["file"] == name and record["label"]
            if len(crew.load) == 2 and not killed:  # both are at work
                killed.append(len(crew.pending))
                cluster.remove_node(second, allow_graceful=False)
        assert killed and got == Counter(given) and not refused
        assert crew.deaths and len(crew.load) == 1 and max(crew.deaths.values()) < TRIES
    finally:
        ray.shutdown()


def test_no_cluster_at_an_address_is_said():
    with pytest.raises(InputError, match=r"--ray 127.0.0.1:1: no cluster there"):
        connected("127.0.0.1:1")
