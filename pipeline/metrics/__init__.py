"""Numbers about samples: arrays in, numbers out. One file a family; no file, no training code.

Features are float (N, d), labels int (N,), logits float (N, K), images uint8 (N, H, W, C).
"""
