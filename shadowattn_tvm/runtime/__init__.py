"""The runtime: tokens in, timed tokens out, and a chat on top.

Nothing here imports TVM but `library` and `session`; the rest runs on any `protocol.TokenModel`.
"""
