// Functions compiled for several instruction sets, of which the loader takes the best that the machine has.
#pragma once

// flatten: what is called inside is compiled for the same set only if it is inlined. No clones under sanitizers, whose
// run time is not up when the loader asks; none where the compiler or C library cannot choose.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define EQL_CLONES __attribute__((target_clones("avx2", "default"), flatten))
#else
#define EQL_CLONES
#endif
