from hypothesis import settings

# how long one example takes says nothing on a busy machine
settings.register_profile("tsprune", deadline=None)
settings.load_profile("tsprune")
