"""Why one user got this score for one item: similar users, prompt, every exit head's view, and where it stopped.

python -m ray_jobs.explain --config ray_jobs/configs/demo.yaml --user 17 --item 0000000337
"""

import pyarrow.compute as pc
import torch

from optirag_core.config.settings import Settings
from optirag_core.data.dataset import Dataset
from optirag_core.engine.loading import load_tokenizer
from optirag_core.engine.scorer import Scorer
from optirag_core.errors import DataError
from optirag_core.evidence.model import EvidenceModel
from optirag_core.inference.explain import Explanation, explain_group
from optirag_core.inference.opening import TRAINED, open_artifacts
from optirag_core.inference.parts import check_prompts_fit, open_assembler, open_scorer
from optirag_core.inference.requests import request_for
from optirag_core.prompting.assembly import Assembled
from ray_jobs.command import run_job


def explain(settings: Settings, *, user: str, item: str) -> None:
    """Print the similar users, the prompt, each exit head's p(yes) and window, and why it stopped."""
    artifacts = open_artifacts(settings, *TRAINED)
    check_prompts_fit(settings, artifacts)
    dataset = Dataset.load(artifacts["dataset"].path)
    tokenizer = load_tokenizer(artifacts["llm"].path)
    assembler, _ = open_assembler(settings, artifacts, tokenizer)
    [assembled] = assembler.assemble([request_for(dataset, user, item)])
    if assembled.prompt is None:
        raise DataError(f"user {user!r}, item {item!r}: {assembled.rejects[0].error}")
    scorer = open_scorer(settings, artifacts, device="cuda" if torch.cuda.is_available() else "cpu")
    group = assembled.prompt.group
    [scores] = scorer.score([group]).scores
    [explained] = explain_group(scorer, group, scores, EvidenceModel.open(artifacts["evidence"].path))
    _print_similar_users(assembled)
    print(f"\nPrompt ({len(group.prefix)} shared tokens + {len(group.suffixes[0])} of the candidate)\n")
    print(tokenizer.decode([*group.prefix, *group.suffixes[0]]))
    _print_heads(explained, scorer)
    print(f"\n{explained.stop}")
    print(f"The user's own answer: {_label(dataset, user, item)}")


def _label(dataset: Dataset, user: str, item: str) -> str:
    mask = pc.and_(pc.equal(dataset.interactions["user_id"], user), pc.equal(dataset.interactions["item_id"], item))
    known = dataset.interactions.filter(mask)
    if not len(known):
        return "not known"
    answer = "yes" if known["label"][0].as_py() else "no"
    return f"{answer} (rating {known['rating'][0].as_py():g}, {known['split'][0].as_py()} split)"


def _print_similar_users(assembled: Assembled) -> None:
    if assembled.cold_start:
        print("No similar users: this user has no training interactions (cold start).")
    for rank, neighbour in enumerate(assembled.similar_users, start=1):
        print(f"Similar user {rank}: {neighbour.user_id} (cosine {neighbour.similarity:.4f})")


def _print_heads(explained: Explanation, scorer: Scorer) -> None:
    policy = scorer.policy
    print(f"\nHeads: criterion {policy.criterion}, window {policy.window}, threshold {policy.threshold}")
    print(f"In use: the heads at layers {', '.join(map(str, scorer.layers))}")
    print("Log-odds of yes: what the evidence and what the text adds; tracked values: of layers l-m..l")
    print("layer   p(yes)  evidence     text  statistic  stable  tracked values")
    for view in explained.heads:
        numbers = ("" if each is None else f"{each:.4f}" for each in (view.evidence_logit, view.text_logit))
        evidence, text = (f"{number:>8}" for number in numbers)
        found = "" if view.statistic is None else f"{view.statistic:.5f}"
        values = "  ".join(f"{value:.4f}" for value in view.values)
        stable = "yes" if view.stops else "no"
        print(f"{view.layer:>5}  {view.score:>7.4f}  {evidence} {text}  {found:>9}  {stable:>6}  {values}")
    if explained.evidence_score is not None:
        print(f"A regression on the evidence alone: p(yes) = {explained.evidence_score:.4f}")


if __name__ == "__main__":
    run_job(explain, arguments=("user", "item"))
