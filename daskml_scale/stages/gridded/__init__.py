"""Features of the cells of a cube: ``kernels`` compute, ``program`` says what a block needs, ``calendar`` which times
belong together, ``layout`` and ``stage`` plan and write, ``samples`` turns cells into rows of a matrix.
"""
