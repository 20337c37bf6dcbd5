"""psi of 12 prompt sets in this process and from a vLLM server: the same numbers, how many requests, how long.

    python benchmarks/served.py --model FOLDER --vllm PROGRAM [--rounds 3] [--sets 12] [--json FILE]

FOLDER is a real model (SmolLM2-135M-Instruct), PROGRAM the `vllm` of an environment of its own. Both take turns, in
processes of their own, `rounds` times; medians are compared, start-up of neither counted: a run says its own seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

PORT = 18432


def run(arguments: list[str], output: Path) -> dict:
    command = [sys.executable, "-m", "holdfast.cli", "sensitivity", "run", *arguments, "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    return json.loads((output / "summary.json").read_text())


def wait(server: subprocess.Popen) -> None:
    for _ in range(600):
        if server.poll() is not None:
            sys.exit("the server has ended")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/v1/models", timeout=5).close()
            return
        except OSError:
            time.sleep(1)
    sys.exit("the server is not up")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--vllm", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sets", type=int, default=12)
    parser.add_argument("--json", default=None)
    asked = parser.parse_args()
    common = ["--sets", "pocket:intents", "--limit", str(asked.sets), "--chat", "--max-new-tokens", "12"]
    here = ["--model", asked.model, *common]
    there = ["--model", "served", "--tokenizer", asked.model, "--backend", "openai", *common]
    there += ["--endpoint", f"http://127.0.0.1:{PORT}/v1"]
    line = [
        asked.vllm,
        "serve",
        asked.model,
        "--served-model-name",
        "served",
        "--port",
        str(PORT),
        "--dtype",
        "float32",
    ]
    line += ["--enforce-eager", "--max-num-seqs", "8", "--max-model-len", "2048", "--no-enable-prefix-caching"]
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    runs: dict[str, list[dict]] = {"hf": [], "vllm": []}
    with tempfile.TemporaryDirectory() as folder:
        log = (Path(folder) / "log.txt").open("w")
        server = subprocess.Popen(line, env=os.environ | own, stdout=log, stderr=log)
        try:
            wait(server)
            for number in range(asked.rounds):
                for name, arguments in (("hf", here), ("vllm", there)):
                    runs[name].append(run(arguments, Path(folder) / f"{name}-{number}"))
        finally:
            server.terminate()
            server.wait(60)
    result = {}
    for name, summaries in runs.items():
        seconds = statistics.median(summary["seconds"] for summary in summaries)
        psi = summaries[0]["posix"]["all"]["mean"]
        result[name] = {"psi": psi, "seconds": seconds, "requests": summaries[0]["cost"].get("requests")}
        print(f"{name:5} psi {psi:.4f}  {seconds:7.1f} s  requests {result[name]['requests'] or '-'}")
    print(f"vllm / hf: {result['vllm']['seconds'] / result['hf']['seconds']:.2f}")
    if asked.json:
        Path(asked.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
