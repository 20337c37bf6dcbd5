"""The model room: names -> models; prompts -> answers.

In: a hub name, a local folder, a run directory, ``pocket``, or a model object. Out: an ``LM``, which generates
greedily. Only safetensors are loaded; code that comes with a model runs only where it is trusted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from holdfast import pocket, runs
from holdfast.errors import HoldfastError


@dataclass
class LM:
    """A model and its tokenizer."""

    model: Any
    tokenizer: Any
    name: str

    @property
    def context(self) -> int:
        """Largest number of tokens that the model takes."""
        return context_length(self.model.config, self.tokenizer)

    @property
    def pad_id(self) -> int:
        """An id to pad with; which one does not matter, as padding is masked."""
        return pad_id(self.tokenizer)

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 32,
        batch_size: int = 64,
        stop: Callable[[str], bool] | None = None,
    ) -> list[str]:
        """Greedy answers to rendered prompts (special tokens included in the text), without the token that ends them
        (``stop_ids``).

        Args:
            prompts: see ``holdfast.data.chat_template.generation_prompt``.
            max_new_tokens: per answer.
            batch_size: changes speed only.
            stop: looks at an answer so far and says whether to end it there.
        """
        self.model.eval()
        encoded = self.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
        answers = [""] * len(encoded)
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))  # equal lengths together: little padding
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            width = max(len(encoded[i]) for i in batch)
            ids = torch.full((len(batch), width), self.pad_id)
            mask = torch.zeros_like(ids)
            for row, i in enumerate(batch):  # left padding: every prompt ends where the answer starts
                ids[row, width - len(encoded[i]) :] = torch.tensor(encoded[i])
                mask[row, width - len(encoded[i]) :] = 1
            made = self.model.generate(
                input_ids=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=self.pad_id,
                eos_token_id=sorted(stop_ids(self.model, self.tokenizer)) or None,
                stopping_criteria=[_stopper(self.tokenizer, width, stop)] if stop else None,
            )
            texts = self.tokenizer.batch_decode(made[:, width:], skip_special_tokens=True)
            for i, text in zip(batch, texts, strict=True):
                answers[i] = text
        return answers


def load(
    name_or_folder_or_model: str | Path | nn.Module,
    tokenizer: Any = None,
    *,
    device: str | None = None,
    trust_remote_code: bool = False,
) -> LM:
    """Load a causal language model in float32.

    Args:
        name_or_folder_or_model: hub name, folder in Hugging Face layout, Holdfast run directory, ``pocket``, or a
            loaded model (then ``tokenizer`` is needed).
        tokenizer: to use instead of the model's own.
        device: where to put the model. Default: the first GPU if there is one, else the CPU.

    Raises:
        HoldfastError: nothing there, no model in the folder, no safetensors, or no tokenizer.
    """
    if isinstance(name_or_folder_or_model, nn.Module):
        if tokenizer is None:
            raise HoldfastError("a loaded model needs its tokenizer: load(model, tokenizer)")
        return LM(name_or_folder_or_model, tokenizer, type(name_or_folder_or_model).__name__)
    import transformers

    folder = locate(name_or_folder_or_model)
    options = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": trust_remote_code}
    with quiet(), _explained(folder):
        if (Path(folder) / "adapter_config.json").is_file():
            import peft

            model = peft.AutoPeftModelForCausalLM.from_pretrained(folder, **options)
            if (
                Path(folder) / "generation_config.json"
            ).is_file():  # of a run of ours: where the adapters learned to end
                model.get_base_model().generation_config = transformers.GenerationConfig.from_pretrained(folder)
        else:
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, **options)
    model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return LM(
        model, tokenizer or load_tokenizer(folder, trust_remote_code=trust_remote_code), str(name_or_folder_or_model)
    )


def load_tokenizer(name_or_folder: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer of a model, without its weights.

    Raises:
        HoldfastError: see ``load``.
    """
    import transformers

    folder = locate(name_or_folder)
    with quiet(), _explained(folder):
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)


def load_config(name_or_folder: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Load the config of a model, without its weights (of the base model, for a folder of adapters)."""
    import transformers

    folder = locate(name_or_folder)
    adapter = Path(folder) / "adapter_config.json"
    if adapter.is_file() and not (Path(folder) / "config.json").is_file():
        return load_config(runs.read_json(adapter)["base_model_name_or_path"], trust_remote_code=trust_remote_code)
    with quiet(), _explained(folder):
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)


def locate(name: str | Path) -> str:
    """What transformers should load for this name: a folder, or the name itself if it may be one of the hub's.

    Raises:
        HoldfastError: a folder without a model, or a path to nothing.
    """
    if str(name) == "pocket":
        return str(pocket.model_path())
    path = Path(name)
    run = runs.resolve(path)
    if run is not None:
        return str(run)
    if path.is_dir():
        if not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
            raise HoldfastError(
                f"{path}: a folder without a model (no config.json)",
                hint="point --model at a folder in Hugging Face layout",
            )
        return str(path)
    if path.is_file() or str(name).startswith((".", "/", "~")) or str(name).count("/") > 1:
        raise HoldfastError(
            f"{name}: no such model folder", hint="a model is a folder with config.json, a hub name, or 'pocket'"
        )
    return str(name)


def context_length(config: Any, tokenizer: Any) -> int:
    """Largest number of tokens that the model takes: the smaller of the config's and the tokenizer's limit, 4096 if
    neither says.
    """
    text = config.get_text_config()
    limits = [getattr(text, key, None) for key in ("max_position_embeddings", "n_positions", "max_seq_len")]
    limits.append(getattr(tokenizer, "model_max_length", None))
    known = [int(limit) for limit in limits if limit and limit < 10**9]
    return min(known) if known else 4096


def count_parameters(config: Any) -> int:
    """Of a model of this config, which is not loaded."""
    import transformers

    with torch.device("meta"):
        return int(transformers.AutoModelForCausalLM.from_config(config).num_parameters())


def stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """All ids that end a response: those of the generation config (some models have several) and the tokenizer's
    EOS.
    """
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = {configured} if isinstance(configured, int) else set(configured or ())
    return frozenset(ids | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()))


def cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """A cache of keys and values, under the name by which the model's ``forward`` takes it: ``cache``, or
    ``past_key_values`` as it was called before transformers 5.24."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {_cache_name(type(causal)): cache}  # type: ignore[arg-type]


@lru_cache
def _cache_name(kind: type) -> str:
    """The first class that says, as a subclass may take ``*args, **kwargs`` and pass them on."""
    names = ("cache", "past_key_values")
    forwards = (base.__dict__["forward"] for base in kind.__mro__ if "forward" in base.__dict__)
    return next(
        (name for forward in forwards for name in names if name in inspect.signature(forward).parameters),
        "past_key_values",
    )


def teach_stops(model: Any, tokenizer: Any, ends: Iterable[int]) -> None:
    """Make a model end its answers at these ids too, wherever it is run, as far as they are special tokens.

    A base model knows the end of a document only; a chat template ends a response with a token of its own, which
    training teaches."""
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    ids = sorted(stop_ids(model, tokenizer) | (special & set(ends)))
    if ids:
        model.generation_config.eos_token_id = ids[0] if len(ids) == 1 else ids


def pad_id(tokenizer: Any) -> int:
    """The tokenizer's pad id, else EOS, else 0."""
    return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)


def _stopper(tokenizer: Any, width: int, stop: Callable[[str], bool]) -> Callable[..., torch.Tensor]:
    def ended(ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.tensor(
            [stop(text) for text in tokenizer.batch_decode(ids[:, width:], skip_special_tokens=True)], device=ids.device
        )

    return ended


class _explained:
    """Turns what loaders raise into one clear error."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, HoldfastError) or not isinstance(error, Exception):
            return
        if "safetensors" in str(error) and Path(self.name).is_dir():
            raise HoldfastError(
                f"{self.name}: no weights in safetensors format",
                hint="convert them with model.save_pretrained; pickled weights are not loaded",
            ) from error
        if "trust_remote_code" in str(error):
            raise HoldfastError(
                f"{self.name}: this model brings its own code", hint="--trust-remote-code lets it run"
            ) from error
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise HoldfastError(
            f"{self.name}: could not be loaded as a causal language model ({reason})",
            hint="a model is a folder with config.json and safetensors, a hub name (needs the network once; with "
            "HF_HUB_OFFLINE=1 only "
            "what is cached can be had), or 'pocket'",
        ) from error


class quiet:
    """No progress bars of loaders and savers: stderr is our log."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.was = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

    def __exit__(self, *_: Any) -> None:
        from transformers.utils import logging

        if self.was:
            logging.enable_progress_bar()
