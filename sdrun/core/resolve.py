"""`resolve`: which image runs on this host, on which GPU, or what to change so that one does. A pure function."""

from __future__ import annotations

from sdrun.core.choose import Request, attempt
from sdrun.core.facts import CudaFacts
from sdrun.core.host import HostFacts
from sdrun.core.index import Index
from sdrun.core.plan import Plan, Refusal
from sdrun.core.policy import Policy


def resolve(host: HostFacts, index: Index, policy: Policy, facts: CudaFacts) -> Plan | Refusal:
    """The plan for `host`, or the refusal that names the closest way to one.

    Same arguments, same answer, in whatever order the index stands; nothing is probed, read or remembered beyond the call
    (equal arguments may be answered from memory). Never raises for values that `from_json` accepts.
    """
    request = Request(host, index, policy, facts)
    answer = attempt(request)
    if isinstance(answer, Plan):
        return answer
    from sdrun.core.closest import refusal  # and the sentences with it: 5 ms that a plan need not wait for

    return refusal(request, answer)
