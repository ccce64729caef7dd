import sys
from pathlib import Path

# Spawned workers are given this process's sys.path, so they too can import jobs.py.
sys.path.insert(0, str(Path(__file__).parent))
