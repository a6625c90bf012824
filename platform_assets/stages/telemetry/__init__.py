"""What a training's machine figures say: read, summed up, drawn, put as Prometheus text, held against what was asked for.

Pure functions over telemetry.jsonl and trace.json.gz. Taking the figures belongs into networks.companions, showing them into components.
"""
