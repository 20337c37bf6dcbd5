"""A process of two: one optimizer step of a model sharded by FSDP2 (``fully_shard``, gloo). Prints the gradient's error
against float64, fully trained and with adapters.

torchrun --standalone --nproc-per-node 2 tests/helpers/sharded.py padded padding-free
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from exactness import Cell, examples, make_model, oracle, scaled
from holdfast.tune.attention import document_arguments, settle
from holdfast.tune.batches import collate, regroup
from holdfast.tune.head import LossRows, attach
from holdfast.tune.weights import role_weights, token_weights


def main(batchings: list[str]) -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    tokens, found = scaled(examples()), []
    for batching, lora in itertools.product(batchings, (False, True)):
        cell = Cell("holdfast", 2 * world, batching, (0.2, 0.8), lora, "nonzero")
        model = make_model(lora).train()
        settle(model, batching)
        assert attach(model) is None
        base = model.get_base_model() if lora else model
        for layer in base.model.layers:
            fully_shard(layer)
        fully_shard(model)
        mine = tokens[rank::world]
        batches = regroup([collate(mine[: len(mine) // 2]), collate(mine[len(mine) // 2 :])], batching)
        weights = [token_weights(b["roles"], role_weights(*cell.pair), b.scale_NT) for b in batches]
        divisor = torch.stack([(w != 0).sum() for w in weights]).sum().double()
        dist.all_reduce(divisor)
        for batch, weights_NT in zip(batches, weights):
            layout, ids, given = batch.layout, batch.ids_NT, {}
            if layout is not None:
                ids, weights_NT, given = layout.pack(ids), layout.pack(weights_NT), document_arguments(layout, model)
            made = model(input_ids=ids, loss_rows=LossRows(ids, weights_NT, divisor), **given)
            (made["loss"] * world).backward()  # FSDP averages over ranks
        trained = [p for p in model.parameters() if p.requires_grad]
        gradient = torch.cat([p.grad.full_tensor().double().flatten() for p in trained])
        exact = oracle(tokens, cell)
        found.append({"sharded": type(trained[0]).__name__, "error": float((gradient - exact).norm() / exact.norm())})
    if rank == 0:
        print(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
