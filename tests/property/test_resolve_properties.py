"""What holds for every host, index and policy."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from resolving import oracle
from resolving.samples import index_document
from resolving.strategies import DRIVERS, cases, indexes, policies, usual_policies

from sdrun.core import host as host_facts
from sdrun.core import index as index_facts
from sdrun.core import plan as plans
from sdrun.core.facts import CudaFacts
from sdrun.core.host import HostFacts, RuntimeFacts
from sdrun.core.index import Index, IndexImage
from sdrun.core.plan import EXIT_CODES, Plan, Refusal
from sdrun.core.policy import Change, Policy
from sdrun.core.resolve import resolve

many = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def ask(host: dict[str, Any], index: dict[str, Any], policy: Policy, facts: CudaFacts) -> Plan | Refusal:
    return resolve(host_facts.from_json(host), index_facts.from_json(index), policy, facts)


@many
@given(cases(), policies, st.integers(0, 2**32))
def test_the_order_of_the_index_never_matters(facts, case, policy, seed) -> None:
    host, index = case
    shuffled, random = copy.deepcopy(index), Random(seed)
    random.shuffle(shuffled["images"])
    for row in shuffled["images"]:
        random.shuffle(row["sass"])
        random.shuffle(row["ptx"])
    assert ask(host, index, policy, facts).to_json() == ask(host, shuffled, policy, facts).to_json()


@many
@given(cases(plain=True), usual_policies)
def test_the_chosen_image_carries_loadable_code_for_every_chosen_device(facts, case, policy) -> None:
    host, index = case
    answer = ask(host, index, policy, facts)
    assume(isinstance(answer, Plan) and answer.code_path != "cpu")
    assert isinstance(answer, Plan)
    assert answer.devices
    kinds = {}
    for row in host["gpus"]:
        kinds |= {row["uuid"]: row["compute_capability"]} | {s["uuid"]: row["compute_capability"] for s in row["mig"]}
    rows = [row for row in index["images"] if (row["image"], row["target"]) == (answer.image, answer.target)]
    paths = [[oracle.code_path(kinds[device], host, row, jit=policy.allow_jit) for device in answer.devices] for row in rows]
    worst = [max(found, key=plans.CODE_PATHS.index) for found in paths if None not in found]
    assert answer.code_path in worst


@many
@given(cases(plain=True), st.booleans())
def test_auto_takes_the_best_path_there_is_and_refuses_only_when_there_is_none(facts, case, jit) -> None:
    host, index = case
    answer = ask(host, index, Policy(allow_jit=jit), facts)
    found = {
        path
        for row in index["images"]
        for card in host["gpus"]
        if (path := oracle.code_path(card["compute_capability"], host, row, jit=jit)) is not None
    }
    if isinstance(answer, Refusal):
        assert not found, answer
        assert answer.id in ("no-code-for-capability", "driver-too-old", "ptx-newer-than-driver", "arch-mismatch",
                             "jit-forbidden", "platform-mismatch", "fatbin-compression-newer-than-driver")  # fmt: skip
    else:
        assert answer.code_path == min(found, key=plans.CODE_PATHS.index)


@many
@given(cases(), usual_policies, st.integers(0, 10**6))
def test_a_newer_driver_never_turns_a_plan_into_a_refusal_while_it_serves_the_gpu(facts, case, policy, pick) -> None:
    host, index = case
    assume(host["driver_version"] is not None)
    ends = 580 if any(card["compute_capability"] in oracle.LAST_580 for card in host["gpus"]) else 999
    later = [d for d in DRIVERS if oracle.numbers(host["driver_version"]) <= oracle.numbers(d) and oracle.numbers(d)[0] <= ends]
    driver = later[pick % len(later)] if later else host["driver_version"]
    before = ask(host, index, policy, facts)
    assume(isinstance(before, Plan))
    newer = host | {"driver_version": driver}
    if host["cuda_driver"] is not None:
        newer["cuda_driver"] = ".".join(map(str, max(oracle.spoken(host), oracle.spoken(newer | {"cuda_driver": None}))))
    after = ask(newer, index, policy, facts)
    assert isinstance(after, Plan)
    if policy.gpu != "none":
        assert plans.CODE_PATHS.index(after.code_path) <= plans.CODE_PATHS.index(before.code_path)  # type: ignore[union-attr]


def changed(change: Change, host: HostFacts, index: Index, policy: Policy) -> tuple[HostFacts, Index, Policy]:
    """A refusal's change carried out as an administrator would, apart from sdrun.core.change."""
    if change.driver is not None:
        wanted, has = change.driver.driver, host.driver_version
        version = has if wanted is None or (has is not None and has.numbers > wanted.numbers) else wanted
        cuda = change.driver.cuda if host.cuda_driver is None else max(host.cuda_driver, change.driver.cuda)
        host = replace(host, driver_version=version, cuda_driver=cuda)
    if change.gpu_access:
        host = replace(host, runtime=replace(host.runtime or RuntimeFacts("docker", "29.0"), nvidia_runtime=True))
    if (build := change.build) is not None:
        row = IndexImage(build.target, "new@sha256:0", build.platform, build.toolkit, build.sass, build.ptx, "none")
        index = Index(index.engine, (row, *index.images))
    asked: dict[str, Any] = {}
    if change.gpu is not None:
        asked["gpu"] = change.gpu
    if change.any_image:
        asked["image"] = None
    if change.unset_visible:
        asked["visible"] = None
    if change.allow_cpu:
        asked["allow_cpu"] = True
    if change.allow_jit:
        asked["allow_jit"] = True
    return host, index, replace(policy, **asked)


@settings(many, max_examples=800)
@given(cases(), policies)
def test_every_refusal_names_a_change_that_makes_the_same_call_succeed(facts, case, policy) -> None:
    host, index = case
    read, rows = host_facts.from_json(host), index_facts.from_json(index)
    answer = resolve(read, rows, policy, facts)
    assume(isinstance(answer, Refusal))
    assert isinstance(answer, Refusal)
    assert answer.change != Change()
    assert isinstance(resolve(*changed(answer.change, read, rows, policy), facts), Plan), answer
    assert answer.exit_code == EXIT_CODES[answer.id]
    for sentence in (answer.message, answer.remedy):
        assert sentence.endswith(".")
        assert "None" not in sentence
        assert "\n" not in sentence
    floor = answer.change.driver
    if floor is not None:
        assert (str(floor.driver) in answer.remedy) or "speaks CUDA" in answer.remedy or "JetPack" in answer.remedy
        assert str(floor.cuda) or floor.driver
    if (build := answer.change.build) is not None:
        assert build.target in answer.remedy
    if answer.id == "driver-too-old":
        assert floor is not None
        assert answer.change.build is None


@many
@given(cases(plain=True), policies)
def test_maxwell_pascal_and_volta_are_never_told_to_install_a_branch_beyond_580(facts, case, policy) -> None:
    host, index = case
    for card in host["gpus"]:
        card["compute_capability"] = {"9": "7.0", "8": "6.1", "1": "5.2"}.get(card["compute_capability"][0], "6.0")
    answer = ask(host, index, policy, facts)
    assume(isinstance(answer, Refusal))
    assert isinstance(answer, Refusal)
    floor = answer.change.driver
    assert floor is None or (floor.driver is not None and floor.driver.branch <= 580)
    for branch in ("590", "595", "610", "615", "616"):
        assert branch not in answer.remedy


@many
@given(cases(), policies)
def test_documents_round_trip(facts, case, policy) -> None:
    host, index = case
    read, rows = host_facts.from_json(host), index_facts.from_json(index)
    assert host_facts.from_json(json.loads(json.dumps(host_facts.to_json(read)))) == read
    assert index_facts.from_json(json.loads(json.dumps(index_facts.to_json(rows)))) == rows
    document = json.loads(json.dumps(resolve(read, rows, policy, facts).to_json()))
    again = plans.from_json(document)
    assert again.to_json() == document
    assert again == resolve(read, rows, policy, facts)


@many
@given(cases(), usual_policies, indexes)
def test_more_images_never_turn_a_plan_into_a_refusal(facts, case, policy, more) -> None:
    host, index = case
    before = ask(host, index, policy, facts)
    assume(isinstance(before, Plan))
    assert isinstance(ask(host, index_document(*index["images"], *more["images"]), policy, facts), Plan)
