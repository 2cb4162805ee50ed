"""The pool: oracle actors, the dispatcher that spreads tiles over them, and what each needs."""
