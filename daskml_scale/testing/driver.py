"""A program that has a worker at work without end: what is killed to see what is left."""

from __future__ import annotations

AT_WORK = """
client = cluster.get_client()
endless = client.submit(time.sleep, 1000)
while not any(client.processing().values()):
    time.sleep(0.01)
print("working", flush=True)
time.sleep(1000)
"""
"""Its end, after a ``cluster`` was made and ``time`` imported."""

DRIVER = f"""
import json, sys, time
from daskml_scale import deploy
cluster = deploy.cluster(json.loads(sys.argv[1]))
{AT_WORK}"""
"""The whole of it; its argument is the definition, as JSON."""
