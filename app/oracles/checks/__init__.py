"""The questions, in SQL: each returns ``(where, what)`` for every row that breaks a promise.

Written against the tables, not against the packages that own them: they are a second reading of what
those promise, and share none of their code.
"""
