"""Weighted losses in a training loop of your own: roles -> weights -> loss. `python examples/own_loop.py`"""

import torch
from torch.utils.data import DataLoader

from holdfast import lm
from holdfast.data.examples import load_examples
from holdfast.tune.batches import TokenDataset, collate
from holdfast.tune.head import LossRows, attach
from holdfast.tune.roles import tokenize
from holdfast.tune.weights import role_weights, token_weights

loaded, weights = lm.load("pocket"), role_weights(prompt_weight=0.2, response_weight=0.8)
model = loaded.model.train()
attach(model)  # the model now takes loss_rows, and then computes no logits that the loss does not need
tokens, _ = tokenize(load_examples("pocket:instructions", limit=80), loaded.tokenizer, weights, max_length=256)

optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
micro_batches = list(DataLoader(TokenDataset(tokens), batch_size=4, collate_fn=collate))
for step in range(0, len(micro_batches), 4):
    window = [(b["input_ids"], token_weights(b["roles"], weights)) for b in micro_batches[step : step + 4]]
    divisor = sum(
        (weights_BT != 0).sum() for _, weights_BT in window
    )  # over the whole step: exact for any micro-batch size
    losses = []
    for ids_BT, weights_BT in window:
        loss = model(input_ids=ids_BT, loss_rows=LossRows(ids_BT, weights_BT, divisor))["loss"]
        loss.backward()
        losses.append(loss.item())
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step // 4}  loss {sum(losses):.4f}")
