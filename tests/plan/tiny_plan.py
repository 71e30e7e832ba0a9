"""Plans small enough to read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from shadowattn_tvm.config.cost_model import (
    AttendCost,
    CostModel,
    FusedLaunch,
    PilotCost,
    SelectCost,
)
from shadowattn_tvm.plan import (
    BucketGrid,
    CorpusDocument,
    HeadPlan,
    LayerPlan,
    Pilot,
    Plan,
    PlannedModel,
    Provenance,
    Sharing,
    StageCosts,
)
from shadowattn_tvm.weights import ModelDirectory, model_fingerprint

K_MIN = 8
BLOCKS_OF_8 = Sharing(query_block=8)


def make_plan(directory: ModelDirectory, keep_ratio: float = 0.25, corpus: str = "text") -> Plan:
    """A plan for the model in `directory`, its first layer dense."""
    architecture = directory.architecture
    group = architecture.num_attention_heads // architecture.num_key_value_heads
    heads = tuple(
        HeadPlan(
            q_scale=0.02 + 0.001 * h, k_scale=0.03 + 0.001 * (h // group), keep_ratio=keep_ratio
        )
        for h in range(architecture.num_attention_heads)
    )
    return Plan(
        model=PlannedModel(
            name="tiny",
            fingerprint=model_fingerprint(directory),
            num_layers=architecture.num_hidden_layers,
            num_q_heads=architecture.num_attention_heads,
            num_kv_heads=architecture.num_key_value_heads,
            head_dim=architecture.head_dim,
        ),
        buckets=BucketGrid(sigma=0.5),
        k_min=K_MIN,
        layers=tuple(
            LayerPlan(dense=layer == 0, heads=heads)
            for layer in range(architecture.num_hidden_layers)
        ),
        provenance=Provenance(
            method="uniform",
            ratio=0.5,
            corpus=(CorpusDocument(name=corpus, sha256="c" * 64),),
            window_tokens=256,
            num_windows=1,
            prefill_chunk_tokens=16,
            created=datetime(2026, 1, 2, tzinfo=UTC),
            tool_version="0.1.0",
        ),
    )


def shared_lists(
    plan: Plan,
    sharing: Sharing = BLOCKS_OF_8,
    keep_ratios: Sequence[float] | None = None,
) -> Plan:
    """`plan` with shared lists, and with other ratios of a layer's heads, if given."""
    requant = ((0.01,) * 3,) * 3
    layers = []
    for layer in plan.layers:
        ratios = keep_ratios or [head.keep_ratio for head in layer.heads]
        heads = tuple(
            head.model_copy(update={"requant": requant, "keep_ratio": ratio})
            for head, ratio in zip(layer.heads, ratios, strict=True)
        )
        layers.append(layer.model_copy(update={"heads": heads}))
    changed = {"pilot": Pilot(score_bits=8), "sharing": sharing, "layers": tuple(layers)}
    return Plan.model_validate_json(plan.model_copy(update=changed).model_dump_json())


def one_bucket(plan: Plan) -> Plan:
    """A plan that requantizes, with a single scale for each axis: banks of it have few graphs."""
    layers = []
    for layer in plan.layers:
        heads = tuple(h.model_copy(update={"requant": ((0.01,),)}) for h in layer.heads)
        layers.append(layer.model_copy(update={"heads": heads}))
    grid = plan.buckets.model_copy(update={"per_axis": 1})
    changed = {"buckets": grid, "layers": tuple(layers)}
    return Plan.model_validate_json(plan.model_copy(update=changed).model_dump_json())


def cost_model(**changes: object) -> CostModel:
    """Round figures: lists of 8 queries and 1,000 keys of 16 take 1 ms, of which 0.2 are fixed."""
    pilot = PilotCost(
        covers="list",
        queries=8,
        keys=1000,
        head_dim=16,
        launches=(FusedLaunch(heads=1, ms=1.0),),
        fixed_ms=0.2,
    )
    return CostModel(
        shared_cpu=True,
        pilot=pilot.model_copy(update=changes),
        select=SelectCost(ns_per_list=1000.0, ns_per_list_and_key=2.0),
        attend=AttendCost(ns_per_query_and_kept_key=50.0, head_dim=16),
    )


def stage_costs(model: CostModel) -> StageCosts:
    """Costs as measured, on no machine."""
    return StageCosts(
        model=model,
        pilot_error=0.01,
        attend_error=0.02,
        machine="Abacus, 2 cores",
        contexts=(512, 1000),
        chunk_tokens=16,
        planned_context=1000,
        rounds=3,
        created=datetime(2026, 1, 3, tzinfo=UTC),
        tool_version="0.1.0",
    )
