"""The engine against what a user would otherwise run: `transformers`, padded, and with the prefix's cache reused.

    python -m benchmarks.engine --out benchmarks/results/engine-cpu.json
    python -m benchmarks.engine --device cuda --model vicuna-7b-shape --out benchmarks/results/engine-cuda.json

Random weights, made on the device. Engine, peer and matrix products run in turn, and every figure is a median of
turns, so that a ratio compares what ran under the same conditions. Exits at a chosen share of the pairs come from a
threshold set between two measured discrepancies: the exits themselves are the engine's own.

`utilisation` is useful FLOPs per second over the rate of a layer's matrix products; `utilisation_by_shape` is the time
that all useful products would take, each at the rate of its own shape, over the time taken: attention's, of one head's
width, are slower whoever computes them.

Shapes: n candidates, P prefix tokens, S suffix tokens, T packed tokens.
"""

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.hardware import commit, hardware
from benchmarks.peers import padded, prefix_cached
from optirag_core.engine.criterion import discrepancy, window_values
from optirag_core.engine.groups import UserGroup
from optirag_core.engine.heads import ExitHeads
from optirag_core.engine.memory import keep_freed_memory
from optirag_core.engine.policy import ExitPolicy
from optirag_core.engine.scorer import Scorer

ANSWERS = (7, 3)
SEED = 0
WINDOW = 3


@dataclass(frozen=True)
class Plan:
    """What is run on one model shape."""

    config: dict[str, int]
    dtype: str
    prefixes: tuple[int, ...]  # P of the rows
    suffix: int  # S
    candidates: tuple[int, ...]  # n of the rows
    exit_layer: int
    grid_prefixes: tuple[int, ...]
    grid_candidates: tuple[int, ...]
    turns: int
    max_tokens_in_flight: int


PLANS = {
    "llama-512": Plan(
        {"vocab_size": 32000, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8,
         "num_attention_heads": 8},
        "float32", (700,), 40, (1, 8, 32, 50), 5, (200, 700, 1400), (1, 8, 32), 5, 16384,
    ),
    "vicuna-7b-shape": Plan(
        {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
         "num_attention_heads": 32},
        "bfloat16", (500, 1060, 1800), 40, (1, 10, 50, 100), 10, (500, 1060, 1800), (1, 10, 50), 3, 65536,
    ),
    "tiny": Plan(
        {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6,
         "num_attention_heads": 4},
        "float32", (24,), 4, (1, 4), 4, (12, 24), (1, 4), 2, 1024,
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--model", default="llama-512", choices=sorted(PLANS))
    parser.add_argument("--threads", type=int, default=2, help="of torch on CPU")
    parser.add_argument("--compile", action="store_true", help="the engine's layers through torch.compile")
    parser.add_argument("--keep-memory", action="store_true", help="keep what is freed; peers gain, too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.keep_memory:
        keep_freed_memory()
    bench = Bench(PLANS[arguments.model], arguments.device, compiled=arguments.compile)
    result = {
        "command": f"python -m benchmarks.engine --device {arguments.device} --model {arguments.model}"
        + (" --compile" if arguments.compile else "")
        + (" --keep-memory" if arguments.keep_memory else ""),
        "hardware": hardware(arguments.device),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "seed": SEED,
        "model": arguments.model,
        "plan": asdict(bench.plan),
        "gemm_gflops_per_s": bench.gemm(bench.plan.prefixes[0] + 8 * bench.plan.suffix) / 1e9,
        "rows": bench.rows(),
        "cost_model": bench.cost_model(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    plot(result["cost_model"], arguments.out.with_suffix(".png"))


class Bench:
    """One model of random weights, the engine on it, and its peers."""

    def __init__(self, plan: Plan, device: str, *, compiled: bool = False) -> None:
        self.plan = plan
        self._device = torch.device(device)
        self._compiled = compiled
        torch.manual_seed(SEED)
        config = LlamaConfig(**plan.config, max_position_embeddings=4096)
        with self._device:
            self.model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, plan.dtype)).eval()
        self._heads = ExitHeads(self.model, (plan.exit_layer,), ANSWERS).to(self._device)

    def rows(self) -> list[dict[str, Any]]:
        """One per prefix length, number of candidates, share of exits and peer."""
        rows = []
        for prefix, n in itertools.product(self.plan.prefixes, self.plan.candidates):
            for row in self._rows(self.group(prefix, n)):
                rows.append(row)
                print(json.dumps(row), flush=True)
        return rows

    def cost_model(self) -> list[dict[str, float]]:
        """Predicted against measured seconds over prefix length, candidates and depth.

        Predicted: linear FLOPs at one rate plus attention FLOPs at another, two constants that are fitted on half of
        the grid and judged on the other half.
        """
        grid = list(itertools.product(self.plan.grid_prefixes, self.plan.grid_candidates, ("none", "all")))
        points = []
        for prefix, n, exits in grid:
            group = self.group(prefix, n)
            scorer = self._scorer(math.inf, exits=exits)
            seconds = self._median([lambda scorer=scorer, group=group: scorer.score([group])])[0]
            cost = scorer.score([group]).figures.cost
            points.append([cost.linear_flops, cost.attention_flops, seconds])
        fits = [(number + number // 2) % 2 == 0 for number in range(len(grid))]  # full depth and exits in both halves
        fitted = torch.tensor([point for point, fit in zip(points, fits, strict=True) if fit], dtype=torch.float64)
        weights = 1 / fitted[:, 2:]  # relative errors count
        rates = torch.linalg.lstsq(fitted[:, :2] * weights, fitted[:, 2:] * weights).solution.flatten()
        rows = []
        for number, ((prefix, n, exits), (linear, attention, seconds)) in enumerate(zip(grid, points, strict=True)):
            predicted = float(torch.tensor([linear, attention], dtype=torch.float64) @ rates)
            rows.append(
                {
                    "prefix": prefix,
                    "n": n,
                    "depth": self.plan.exit_layer if exits == "all" else self.plan.config["num_hidden_layers"],
                    "fitted": fits[number],
                    "seconds": seconds,
                    "predicted_seconds": predicted,
                    "error": predicted / seconds - 1,
                }
            )
        return rows

    def group(self, prefix: int, n: int) -> UserGroup:
        generator = torch.Generator().manual_seed(SEED)
        size = self.plan.config["vocab_size"]
        tokens = torch.randint(0, size, (prefix + n * self.plan.suffix,), generator=generator).tolist()
        suffixes = tokens[prefix:]
        step = self.plan.suffix
        return UserGroup(tokens[:prefix], [suffixes[start : start + step] for start in range(0, n * step, step)])

    def gemm(self, tokens: int) -> float:
        """FLOPs per second of a layer's matrix products on that many rows."""
        layer = self.model.model.layers[0]
        weights = [module.weight for module in layer.modules() if isinstance(module, torch.nn.Linear)]
        return self._rate([(self._random(tokens, weight.size(1)), weight.T) for weight in weights])

    def attention_gemm(self, prefix: int, tokens: int) -> float:
        """FLOPs per second of attention's matrix products, head by head: tokens over a prefix, no softmax."""
        heads = self.plan.config["num_attention_heads"]
        width = self.plan.config["hidden_size"] // heads
        q, k, v = (self._random(heads, rows, width) for rows in (tokens, prefix, prefix))
        weights = self._random(tokens, prefix)
        return self._rate([*zip(q, k.mT, strict=True), *((weights, values) for values in v)])

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(shape, dtype=self.model.dtype, device=self._device)

    def _rate(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
        def products() -> None:
            for a, b in pairs:
                a @ b

        flops = sum(2 * a.size(0) * b.numel() for a, b in pairs)
        return flops / statistics.median(self._seconds(products) for _ in range(7))

    def _scorer(self, threshold: float, *, exits: str) -> Scorer:
        policy = ExitPolicy("none" if exits == "none" else "probability", WINDOW, threshold)
        return Scorer(
            self.model, self._heads, policy,
            max_tokens_in_flight=self.plan.max_tokens_in_flight, compile_layers=self._compiled,
        )  # fmt: skip

    def _scorers(self, group: UserGroup) -> dict[str, Scorer]:
        """At full depth, and with exits of all and of half of the pairs."""
        layer, n = self.plan.exit_layer, len(group.suffixes)
        scorers = {
            "none": self._scorer(math.inf, exits="none"),
            f"all@{layer}": self._scorer(math.inf, exits="all"),
        }
        if n > 1:
            trace = scorers[f"all@{layer}"].trace([group])
            seen = discrepancy(window_values(trace.logits[:, 0], "probability")).sort().values  # [n]
            middle = float(seen[n // 2 - 1 : n // 2 + 1].mean())
            scorers[f"half@{layer}"] = self._scorer(middle, exits="half")
        return scorers

    def _rows(self, group: UserGroup) -> list[dict[str, Any]]:
        """Engine, peers and matrix products in turn: every figure of a group comes from the same turns."""
        n, tokens = len(group.suffixes), len(group.prefix) + sum(map(len, group.suffixes))
        scorers = self._scorers(group)
        peers = {"padded": partial(padded, batch_size=n), "prefix_cached": prefix_cached}
        peaks = {exits: self._peak_gib(scorer, group) for exits, scorer in scorers.items()}
        rates: list[float] = []
        attention_rates: list[float] = []
        calls = [
            *(partial(scorer.score, [group]) for scorer in scorers.values()),
            *(partial(peer, self.model, [group], ANSWERS) for peer in peers.values()),
            lambda: rates.append(self.gemm(tokens)),
            lambda: attention_rates.append(self.attention_gemm(len(group.prefix), tokens)),
        ]
        seconds = dict(zip([*scorers, *peers], self._median(calls), strict=False))
        rate, attention_rate = statistics.median(rates), statistics.median(attention_rates)
        scored = {exits: scorer.score([group]) for exits, scorer in scorers.items()}
        full = scored["none"].figures.cost
        rows = []
        for exits, peer in itertools.product(scorers, peers):
            cost = scored[exits].figures.cost
            by_shape = cost.linear_flops / rate + cost.attention_flops / attention_rate
            rows.append(
                {
                    "peer": peer,
                    "prefix": len(group.prefix),
                    "n": n,
                    "exits": exits,
                    "exited": sum(p.exit_layer == self.plan.exit_layer for p in scored[exits].scores[0]),
                    "seconds": seconds[exits],
                    "peer_seconds": seconds[peer],
                    "ratio": seconds[peer] / seconds[exits],
                    "utilisation": cost.flops / seconds[exits] / rate,
                    "utilisation_by_shape": by_shape / seconds[exits],
                    "gemm_gflops_per_s": rate / 1e9,
                    "attention_gemm_gflops_per_s": attention_rate / 1e9,
                    "pairs_per_s": n / seconds[exits],
                    "time_left": seconds[exits] / seconds["none"],
                    "flops_left": cost.flops / full.flops,
                    "peak_gib": peaks[exits],
                }
            )
        return rows

    def _peak_gib(self, scorer: Scorer, group: UserGroup) -> float | None:
        """Of GPU memory, the model's weights counted."""
        if self._device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats()
        scorer.score([group])
        return torch.cuda.max_memory_allocated() / 2**30

    def _median(self, calls: Sequence[Callable[[], Any]]) -> list[float]:
        """Seconds of each call: medians of alternating turns after a warm-up."""
        turns = [[self._seconds(call) for call in calls] for _ in range(self.plan.turns + 1)]
        return [statistics.median(seconds) for seconds in zip(*turns[1:], strict=True)]

    def _seconds(self, call: Callable[[], Any]) -> float:
        self._wait()
        started = time.perf_counter()
        with torch.inference_mode():
            call()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()


def plot(points: Sequence[dict[str, float]], path: Path) -> None:
    """Predicted against measured seconds; nothing where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullFormatter
    except ImportError:
        return
    figure = Figure(figsize=(5, 5))
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="predicted s", ylabel="measured s")
    for fitted, marker in ((True, "o"), (False, "x")):
        chosen = [point for point in points if point["fitted"] == fitted]
        label = "fitted" if fitted else "held out"
        axes.plot([p["predicted_seconds"] for p in chosen], [p["seconds"] for p in chosen], marker, label=label)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())  # within one decade they would overlap
        axis.set_ticks([0.03, 0.1, 0.3, 1.0], labels=["0.03", "0.1", "0.3", "1"])
    ends = [min(point["seconds"] for point in points), max(point["seconds"] for point in points)]
    axes.plot(ends, ends, "k-", linewidth=0.8)
    axes.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")


if __name__ == "__main__":
    main()
