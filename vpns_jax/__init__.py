"""Sparsify pretrained vision models: a visual prompt and a weight mask, learned together (VPNs)."""
