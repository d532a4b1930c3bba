"""What happens to servers, trackers and proxies in a year, in some minutes, with verdicts.

Measures no speed: that is the bench. What one test can show in a second is in tests/.
"""
