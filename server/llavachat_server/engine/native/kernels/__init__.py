"""What computes: functions that numba compiles, and the little that it has to be taught for them.

Only processes of `native.apart` import this package, and tests: numba and LLVM take half a second
and 100 MB, and what they make of it is kept. `plan` says what the two sides share.
"""
