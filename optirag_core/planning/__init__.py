"""What a job will need, computed from its settings before it runs: memory, optimiser steps, FLOPs, hours.

accelerators.py   what devices can do
llm.py            the LLM that is planned for, on the meta device, and the ways to tune it
activations.py    what a batch keeps for its gradients
memory.py         bytes of a worker and of a scorer
counts.py         prompts, pairs and tokens, of the workspace or assumed
plan.py           all of it for a job's settings

Nothing here loads weights, writes a file, or makes a tensor of the LLM's size.
"""
