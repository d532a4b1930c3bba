"""What a run tells about its devices: facts of each lease, and the section at the end.

No device is talked to here.
"""
