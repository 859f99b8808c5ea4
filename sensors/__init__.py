"""What watches the world and asks for runs. A tick reads; only a round's manifest it may write.

Each sensor looks at the state of the lake, not at events: whatever was missed, asked for twice or
broken off is put right by the next tick. ``sensors/attempts.py`` keeps a cause from running twice.
"""
