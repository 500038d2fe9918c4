"""The one way in to trained parts: artifacts are opened, requests become prompts, prompts become answers.

requests.py    where requests come from: the test split, all users, files
opening.py     artifacts of one lineage and one prompt, verified and pinned
policy.py      settings, or a run's manifest -> the exit policy
parts.py       artifacts -> prompt assembler, scorer
prompts.py     requests -> rows of prompts, as they travel between processes
answers.py     rows of prompts and pair scores -> rows of `scores` and `rejects`
"""
