"""MASt3R (Leroy et al. 2024): dense matches and metric pointmaps of two views, in plain torch.

The network is written from the papers (CroCo v2, DUSt3R, DPT, MASt3R) and loads the released checkpoint by name.
"""
