"""Every setting, with its unit, its bounds and its default: one file per group of sections.

section.py     what all sections share
data.py        data, evidence, retriever, index, prompt
llm.py         the LLM and its tuning
exits.py       hidden states, heads, exit policy, calibration
serving.py     the endpoint: replicas, load, events
comparison.py  one run beside the next
run.py         engine, requests, shards, actors, training resources, plan, storage, Ray
settings.py    all of them together
"""
