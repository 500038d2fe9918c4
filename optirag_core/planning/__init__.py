"""What a job will need, computed from its settings before it runs: memory, optimiser steps, FLOPs, hours, machines.

accelerators.py   what devices can do
llm.py            the LLM that is planned for, on the meta device, and the ways to tune it
activations.py    what a batch keeps for its gradients
memory.py         bytes of a worker and of a scorer
counts.py         prompts, pairs and tokens, of the workspace or assumed
plan.py           all of it for a job's settings
measured.py       rates and sizes that were measured, with their files
load.py           what a scoring run puts on scorers, driver, network and storage
lookups.py        what its users ask of retriever, index and histories
capacity.py       GPUs, hours and cost of it
limits.py         what breaks first
sharding.py       how large its shards should be
simulation.py     the same run, event by event

Nothing here loads weights, writes a file, or makes a tensor of the LLM's size.
"""
