// What kernels of both kinds share. The per-element work of an op is an inline function marked EQL_HD in the op's header;
// x.cpp calls it in a parallel loop and x.cu in a CUDA kernel, so that the CPU tests exercise it.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define EQL_HD __host__ __device__ inline
#else
#define EQL_HD inline
#endif

namespace equilidar {

// A CUDA stream without CUDA's headers: bindings pass what PyTorch's current stream holds.
using Stream = void*;

template <typename T>
EQL_HD T min_of(T a, T b) {
  return b < a ? b : a;
}

template <typename T>
EQL_HD T max_of(T a, T b) {
  return a < b ? b : a;
}

// Index of the lowest bit that is set, of which there must be one.
EQL_HD int lowest_bit(uint64_t bits) {
#if defined(__CUDA_ARCH__)
  return __ffsll(static_cast<long long>(bits)) - 1;
#else
  return __builtin_ctzll(bits);
#endif
}

// Number of bits that hold 0 .. count - 1.
EQL_HD int bits_of(uint64_t count) {
  int bits = 0;
  while (bits < 64 && (count - 1) >> bits != 0) ++bits;
  return bits;
}

}  // namespace equilidar
