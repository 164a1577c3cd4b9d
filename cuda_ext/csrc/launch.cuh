// Launching of CUDA kernels without PyTorch's headers.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <stdexcept>
#include <string>

#include "portable.h"

namespace equilidar {

constexpr int kThreads = 256;

inline unsigned blocks_for(int64_t n, int threads = kThreads) { return static_cast<unsigned>((n + threads - 1) / threads); }

inline cudaStream_t stream_of(Stream stream) { return static_cast<cudaStream_t>(stream); }

// A launch that fails (wrong architecture, too many resources) would otherwise show at some later, innocent call.
inline void check_launch(const char* name) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(error));
}

}  // namespace equilidar
