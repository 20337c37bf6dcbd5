"""Prompt and completion weights in TRL. `pip install "holdfast[trl]"`, then `python examples/trl_sft.py`"""

import torch
from trl import SFTConfig

from holdfast import lm, pocket
from holdfast.integrations.trl import WITSFTTrainer

gpu = torch.cuda.is_available()
rows = list(pocket.rows("pocket:instructions"))[:160]  # or any data set with prompt and completion, or with messages
loaded = lm.load("pocket")
trainer = WITSFTTrainer(
    model=loaded.model,
    args=SFTConfig(
        "trl-sft",
        max_length=256,
        max_steps=5,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        bf16=gpu,
        use_cpu=not gpu,
    ),
    train_dataset=rows[32:],
    eval_dataset=rows[:32],
    processing_class=loaded.tokenizer,
    prompt_loss_weight=0.2,
    completion_loss_weight=0.8,
)
trainer.train()
print({name: round(value, 3) for name, value in trainer.evaluate().items() if name.endswith("nll")})
