# The source package forces LLAMA_BUILD_COMMON=ON in the cache; a normal variable wins (CMP0077), and the Python binding never loads that library.
set(LLAMA_BUILD_COMMON OFF)
