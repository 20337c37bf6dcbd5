"""Prompt weights for trainers whose padded batches have labels of -100 on the prompt: transformers'; axolotl's (return
the class from a plugin's `get_trainer_cls`); LLaMA-Factory's (mix in). Run: python examples/labels_only.py"""

import torch
import transformers

from holdfast import lm
from holdfast.tune.head import LossRows, attach


class PromptWeights:
    """Mix in before the trainer's own class."""

    prompt_weight, response_weight, loss_is_scaled_for_ga = 0.2, 0.8, True

    def token_weights(self, batch):
        weights_BT = torch.where(batch["labels"] == -100, self.prompt_weight, self.response_weight)
        return torch.nn.functional.pad((weights_BT * batch["attention_mask"])[:, 1:], (1, 0))  # the first is no target

    def get_batch_samples(self, *args, **kwargs):
        batches, _ = super().get_batch_samples(*args, **kwargs)
        return batches, self.accelerator.reduce(sum((self.token_weights(b) != 0).sum() for b in batches), "sum")

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=1.0):
        attach(self.accelerator.unwrap_model(model))
        ids, weights_BT = inputs["input_ids"], self.token_weights(inputs)
        out = model(input_ids=ids, loss_rows=LossRows(ids, weights_BT, num_items_in_batch))
        loss = out["loss"] * self.accelerator.num_processes  # DDP averages over ranks, but the divisor spans them
        return (loss, out) if return_outputs else loss


if __name__ == "__main__":
    Trainer = type("Trainer", (PromptWeights, transformers.Trainer), {})
    model, tokenizer = (loaded := lm.load("pocket")).model, loaded.tokenizer
    texts = [(f"Count to {n}:", " ".join(map(str, range(1, n + 1)))) for n in range(2, 18)]
    ids = [(tokenizer(prompt).input_ids, tokenizer(answer).input_ids) for prompt, answer in texts]
    rows = [{"input_ids": p + a, "labels": [-100] * len(p) + a} for p, a in ids]
    args = transformers.TrainingArguments("labels-only", max_steps=3, logging_steps=1, save_strategy="no", report_to=[])
    Trainer(model, args, transformers.DataCollatorForSeq2Seq(tokenizer), rows).train()
