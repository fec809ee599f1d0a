"""Many requests: batches, many clients, channels, deadlines, and other servers beside them.

`python -m bench.throughput` measures, writes bench/results/throughput.json and throughput.md, and shows what
was to be reached.
"""
