"""The model room: names -> models; prompts -> answers.

In: a hub name, a local folder, a run directory, ``pocket``, or a model object. Out: an ``LM``, which generates
greedily. Only safetensors are loaded; code that comes with a model runs only where it is trusted.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from holdfast import pocket, runs
from holdfast.data.conversation import set_stops
from holdfast.errors import HoldfastError
from holdfast.tables.text import counted


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
        """An id to pad with. Which one does not matter, because padding is masked."""
        return pad_id(self.tokenizer)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int = 32,
        batch_size: int | None = None,
        stop: Callable[[str], bool] | None = None,
    ) -> list[str]:
        """Return greedy answers to rendered prompts (special tokens included in the text), without the token that ends
        them.

        Penalties and sampling settings of the checkpoint play no part.

        Args:
            prompts: see ``holdfast.data.chat_template.generation_prompt``.
            max_new_tokens: per answer.
            batch_size: most prompts that are answered at a time. Changes speed and memory only.
            stop: called with an answer so far; returns whether to end it there.

        Raises:
            HoldfastError: a prompt that is empty, or longer than the model's context.
        """
        from holdfast.lm.engine import Engine

        encoded = [tuple(ids) for ids in self.tokenizer(list(prompts), add_special_tokens=False)["input_ids"]]
        for number, ids in enumerate(encoded):
            if not 0 < len(ids) <= self.context:
                raise HoldfastError(
                    f"prompt {number} has {counted(len(ids), 'token')}; the model takes 1 to {self.context:,}",
                    hint="shorten it" if ids else "a model needs one token to start from",
                )
        answers = Engine(self.model, self.context).generate(
            encoded,
            max_new_tokens,
            stop_ids(self.model, self.tokenizer),
            ended=None if stop is None else lambda ids: stop(self._text(ids)),
            batch_size=batch_size,
        )
        room = [self.context + 1 - len(ids) for ids in encoded]
        cut = sum(len(a.ids) == most < max_new_tokens for a, most in zip(answers, room, strict=True))
        if cut:
            print(
                f"note: {cut} of {counted(len(answers), 'answer')} end where the model's context does", file=sys.stderr
            )
        return [self._text(answer.ids) for answer in answers]

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


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
        HoldfastError: there is nothing at that place, no model in the folder, no safetensors file, or no tokenizer.
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
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with contextlib.suppress(OSError):  # a model without a generation config stops on the tokenizer's EOS
            tell_stops(tokenizer, transformers.GenerationConfig.from_pretrained(folder))
    return tokenizer


def tell_stops(tokenizer: Any, generation_config: Any) -> None:
    """Tell a tokenizer what generation stops on, where a generation config says so."""
    ends = getattr(generation_config, "eos_token_id", None)
    if ends is not None:
        set_stops(tokenizer, [ends] if isinstance(ends, int) else ends)


def print_date(tokenizer: Any, date: str | None) -> str | None:
    """Let the chat template of a tokenizer print one day, whenever it is rendered.

    Args:
        date: YYYY-MM-DD; None: today.

    Returns:
        The day, or None if the template prints none: then nothing is changed.
    """
    if "strftime_now" not in str(getattr(tokenizer, "chat_template", None)):
        return None
    day = datetime.date.fromisoformat(date) if date else datetime.date.today()
    moment = datetime.datetime.combine(day, datetime.time())
    apply = functools.partial(type(tokenizer).apply_chat_template, tokenizer)
    tokenizer.apply_chat_template = functools.partial(_apply_on, moment, apply)
    return day.isoformat()


class _StoppedClock:
    """Stands where ``strftime_now`` of transformers asks for the time."""

    def __init__(self, moment: datetime.datetime) -> None:
        self._moment = moment

    def now(self) -> datetime.datetime:
        """Return the one moment."""
        return self._moment


def _apply_on(moment: datetime.datetime, apply: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``apply_chat_template`` with a clock that stands still. transformers takes no function from outside, and
    rendering is one thread's work, so its clock is exchanged for the time of the call."""
    from transformers.utils import chat_template_utils

    clock = chat_template_utils.datetime
    chat_template_utils.datetime = _StoppedClock(moment)  # type: ignore[misc, assignment]
    try:
        return apply(*args, **kwargs)
    finally:
        chat_template_utils.datetime = clock  # type: ignore[misc]


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
    """Return what transformers should load for this name: a folder, or the name itself if it may be a name on the hub.

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
    """Return the largest number of tokens that the model takes: the smaller of the config's and the tokenizer's limit,
    or 4096 if neither states one.
    """
    text = config.get_text_config()
    limits = [getattr(text, key, None) for key in ("max_position_embeddings", "n_positions", "max_seq_len")]
    limits.append(getattr(tokenizer, "model_max_length", None))
    stated = [int(limit) for limit in limits if limit and limit < 10**9]
    return min(stated) if stated else 4096


def count_parameters(config: Any) -> int:
    """Return the number of parameters of a model of this config, without loading its weights."""
    import transformers

    if type(config) not in transformers.AutoModelForCausalLM._model_mapping and not getattr(config, "auto_map", None):
        kind = "a model of images and text" if hasattr(config, "vision_config") else "no causal language model"
        raise HoldfastError(
            f"a model of the kind '{config.model_type}' is {kind}; it cannot be trained or measured here",
            hint="take a causal language model, such as the text model that it is built on",
        )
    with torch.device("meta"):
        return int(transformers.AutoModelForCausalLM.from_config(config).num_parameters())


def stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return all ids that end a response: those of the generation config (some models have several) and the tokenizer's
    EOS.
    """
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = {configured} if isinstance(configured, int) else set(configured or ())
    return frozenset(ids | ({tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()))


def teach_stops(model: Any, tokenizer: Any, ends: Iterable[int]) -> None:
    """Make a model end its answers at those of these ids that are special tokens, wherever it is run.

    A base model only stops at the end of a document. A chat template ends a response with its own token, which training
    teaches.
    """
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    ids = sorted(stop_ids(model, tokenizer) | (special & set(ends)))
    if ids:
        model.generation_config.eos_token_id = ids[0] if len(ids) == 1 else ids


def pad_id(tokenizer: Any) -> int:
    """Return the tokenizer's pad id, or else its EOS, or else 0."""
    return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)


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
    """Turn off the progress bars of loaders and savers, because stderr is the log of the command."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.was = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

    def __exit__(self, *_: Any) -> None:
        from transformers.utils import logging

        if self.was:
            logging.enable_progress_bar()
