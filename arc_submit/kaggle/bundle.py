def add_arguments(p): pass
main=None
