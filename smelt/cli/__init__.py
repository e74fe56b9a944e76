"""The command `smelt`: one thin file a verb.

What a verb does lives in the rooms; torch is imported only when needed.
"""
