"""`infra`: the machine. Nothing here changes the maths, only speed, memory and cost."""

from typing import Literal

from pydantic import Field

from smelt.recipe.sections.base import Section
from smelt.recipe.sections.launch import Launch
from smelt.recipe.units import Count


class Layout(Section):
    """How many processes share what; `pipeline * data * context * tensor` is all of them.

    data                processes (or groups of them) that read different rows; `auto`: whatever the others leave
    replicate           of the data processes, groups that each hold a whole copy of the sharded weights (HSDP)
    zero                what data processes shard: 1 optimizer state, 2 gradients too, 3 weights too
    tensor              processes that share each matrix; `sequence_parallel` also splits what lies between matrices
    context             processes that share each sequence
    expert              of the data, context and tensor processes of one copy, those that share the experts of a layer
    pipeline            processes that hold different layers, each `stages` separate stretches of them, and the order
                        (`schedule`) in which micro-batches pass through
    """

    data: Literal["auto"] | Count = "auto"
    replicate: Count = 1
    zero: Literal[1, 2, 3] = 2
    tensor: Count = 1
    sequence_parallel: bool = False
    context: Count = 1
    expert: Count = 1
    pipeline: Count = 1
    schedule: Literal["gpipe", "1f1b", "interleaved", "looped_bfs", "zero_bubble", "zbv", "dualpipev"] = "1f1b"
    stages: Count = 1


class Infra(Section):
    """`micro_batch`: windows a forward pass, `auto`: as many as fit; `recompute`: what the backward pass computes again
    instead of remembering it; `compile`: torch.compile for each layer, `auto`: when it pays; `nodes` of
    `gpus_per_node`: what `smelt launch` asks for; `price_per_hour`: what an hour of this machine costs, for the
    report."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    micro_batch: Literal["auto"] | Count = 8
    layout: Layout = Layout()
    recompute: Literal["none", "selective", "full"] = "none"
    compile: Literal["auto"] | bool = "auto"
    nodes: Count = 1
    gpus_per_node: Count = 1
    launch: Launch = Launch()
    price_per_hour: float | None = Field(default=None, ge=0)
