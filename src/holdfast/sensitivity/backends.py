"""Where the model runs: a name -> something that responds and scores (``task.Backend``)."""

from __future__ import annotations

from typing import Any

from holdfast import lm as models
from holdfast.config import SensitivityConfig
from holdfast.errors import HoldfastError
from holdfast.sensitivity.score import Local
from holdfast.sensitivity.task import Backend


def load_tokenizer(config: SensitivityConfig) -> Any:
    """The tokenizer of the model, without its weights."""
    return models.load_tokenizer(config.tokenizer or config.model, trust_remote_code=config.trust_remote_code)


def open_backend(config: SensitivityConfig, tokenizer: Any) -> Backend:
    """Load the model, connect to its server, or gather a cluster.

    Raises:
        HoldfastError: no address for a server, an address for no server, or a server that fails the preflight.
    """
    if config.backend == "hf":
        if config.endpoint is not None:
            raise HoldfastError("--endpoint needs --backend openai or sglang")
        if config.cluster == "ray":
            from holdfast.sensitivity.cluster import Cluster

            return Cluster(config)
        return load_local(config)
    if config.endpoint is None:
        raise HoldfastError(f"--backend {config.backend} needs --endpoint", hint="such as http://localhost:8000/v1")
    if config.cluster != "none":
        raise HoldfastError("--cluster ray is for --backend hf; a server takes requests in parallel by itself (--concurrency)")
    from holdfast.sensitivity.served import Served

    return Served(config, tokenizer)


def load_local(config: SensitivityConfig) -> Local:
    """The model in this process."""
    import torch

    lm = models.load(config.model, trust_remote_code=config.trust_remote_code)
    if config.dtype != "float32":
        lm.model = lm.model.to(getattr(torch, config.dtype))
    return Local(lm, config.max_new_tokens, exact=config.exact, token_budget=config.token_budget)
