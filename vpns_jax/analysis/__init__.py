"""Reports, tables and figures of finished runs, and what they need: densities, multiply-adds, latency, overlap."""
