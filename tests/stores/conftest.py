import sys
from pathlib import Path

# Child processes are given this process's sys.path, so they too can import writers.py.
sys.path.insert(0, str(Path(__file__).parent))
